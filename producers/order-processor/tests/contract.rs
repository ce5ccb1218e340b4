//! The structs of this service against the schemas and examples of everybody it hears.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path};

use apache_avro::{Schema, reader::datum::GenericDatumReader, types::Value, writer::datum::GenericDatumWriter};
use order_processor::{events::Event, inbox::Command, reads::Input};
use runtime::{
    Message, Written,
    codec::{RecordReader, RecordWriter},
};

fn each_example<M: Message>(check: impl Fn(&Schema, Vec<u8>, M)) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas");
    for record in M::RECORDS {
        let channel = format!("{:?}", record.channel).to_lowercase();
        let folder = root.join(record.owner).join(channel).join(record.name);
        let text = fs::read_to_string(folder.join("v1.avsc")).unwrap();
        let schema: &'static Schema = Box::leak(Box::new(Schema::parse_str(&text).unwrap()));
        let example: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(folder.join("v1.example.json")).unwrap()).unwrap();
        let value = Value::try_from(example).unwrap().resolve(schema).unwrap();
        let bytes = GenericDatumWriter::builder(schema).build().unwrap().write_value_to_vec(value).unwrap();
        let datum = GenericDatumReader::builder(schema).build().unwrap();
        let body = M::read(record.name, &RecordReader::new(&datum, &bytes)).unwrap().unwrap();
        check(schema, bytes, body);
    }
}

fn written<M: Written>() {
    each_example::<M>(|schema, bytes, body| {
        let schema: &'static Schema = Box::leak(Box::new(schema.clone()));
        let datum = GenericDatumWriter::builder(schema).build().unwrap();
        let mut out = Vec::new();
        body.write(&mut RecordWriter::new(&datum, &mut out)).unwrap();
        assert_eq!(out, bytes, "{}", body.record().name);
    });
}

#[test]
fn every_event_and_command_is_written_as_its_schema_has_it() {
    written::<Event>();
    written::<Command>();
}

#[test]
fn every_example_of_what_is_heard_is_understood() {
    each_example::<Input>(|_, _, _| {});
}
