//! The structs of payment against every version of every schema they read or write, and the examples beside them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use apache_avro::{Schema, reader::datum::GenericDatumReader, types::Value, writer::datum::GenericDatumWriter};
use payment::{events::Event, inbox::Command, reads::Input};
use runtime::{
    Channel, Message, RecordType, Written,
    codec::{RecordReader, RecordWriter},
};

/// One version of a schema, and its example in Avro.
struct Version {
    path: PathBuf,
    schema: &'static Schema,
    bytes: Vec<u8>,
}

fn versions(record: &RecordType) -> Vec<Version> {
    let channel = match record.channel {
        Channel::Events => "events",
        Channel::Inbox => "inbox",
    };
    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas");
    let folder = schemas.join(record.owner).join(channel).join(record.name);
    let files = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
    let found: Vec<Version> =
        files.filter(|path| path.extension().is_some_and(|ext| ext == "avsc")).map(version).collect();
    assert!(!found.is_empty(), "{} has no schema", folder.display());
    found
}

fn version(path: PathBuf) -> Version {
    let schema: &'static Schema = Box::leak(Box::new(Schema::parse_str(&fs::read_to_string(&path).unwrap()).unwrap()));
    let example = fs::read_to_string(path.with_extension("example.json")).unwrap();
    let example: serde_json::Value = serde_json::from_str(&example).unwrap();
    let value = Value::try_from(example).unwrap().resolve(schema).unwrap();
    let bytes = GenericDatumWriter::builder(schema).build().unwrap().write_value_to_vec(value).unwrap();
    Version { path, schema, bytes }
}

fn read<M: Message>(record: &RecordType, version: &Version) -> M {
    let datum = GenericDatumReader::builder(version.schema).build().unwrap();
    let body = M::read(record.name, &RecordReader::new(&datum, &version.bytes));
    body.unwrap_or_else(|error| panic!("{}: {error}", version.path.display())).unwrap()
}

fn each_is_written_as_it_was_read<M: Written>() {
    for record in M::RECORDS {
        let compiled: &'static Schema = Box::leak(Box::new(Schema::parse_str(record.schema.unwrap()).unwrap()));
        let mut compared = false;
        for version in versions(record).iter().filter(|version| version.schema == compiled) {
            let body: M = read(record, version);
            let datum = GenericDatumWriter::builder(compiled).build().unwrap();
            let mut out = Vec::new();
            body.write(&mut RecordWriter::new(&datum, &mut out)).unwrap();
            assert_eq!(out, version.bytes, "{}", version.path.display());
            compared = true;
        }
        assert!(compared, "{} was compared with no version", record.name);
    }
}

#[test]
fn every_event_is_written_as_its_schema_has_it() {
    each_is_written_as_it_was_read::<Event>();
}

#[test]
fn every_command_is_written_as_its_schema_has_it() {
    each_is_written_as_it_was_read::<Command>();
}

#[test]
fn every_version_of_what_is_heard_is_understood() {
    for record in Input::RECORDS {
        for version in versions(record) {
            let body: Input = read(record, &version);
            assert_eq!(body.record().name, record.name);
        }
    }
}

#[test]
fn a_placed_order_is_read_for_its_total_and_not_for_a_line() {
    let placed = Input::RECORDS.iter().find(|record| record.name == "OrderPlaced").unwrap();
    for version in versions(placed) {
        let example = fs::read_to_string(version.path.with_extension("example.json")).unwrap();
        let example: serde_json::Value = serde_json::from_str(&example).unwrap();
        let Input::OrderPlaced(read) = read(placed, &version) else { panic!("another record") };
        assert_eq!(read.customer_id, example["customer_id"]);
        assert_eq!(read.total.amount_minor, example["total"]["amount_minor"]);
        assert_eq!(read.total.currency, example["total"]["currency"]);
        assert_eq!(read.payment_method, example["payment_method"]);
    }
}
