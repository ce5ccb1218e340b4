//! The enums of a service: names, schemas, and bodies that round-trip.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use apache_avro::{Schema, reader::datum::GenericDatumReader, writer::datum::GenericDatumWriter};
use runtime::{
    TimerFired, Written,
    codec::{RecordReader, RecordWriter},
    message::Message,
};
use serde::Deserialize;

mod written {
    use super::TimerFired;
    runtime::produces! {
        /// Produced records.
        pub enum Command in "../schemas" { inbox of "runtime" { TimerFired = 1 } }
    }
}

mod tolerant {
    /// A tolerant reader that uses no field. Avro matches a record by name, so the struct has the record's name.
    #[derive(super::Deserialize)]
    pub(super) struct TimerFired {}
}

mod read {
    use super::TimerFired;
    runtime::consumes! {
        /// Consumed records.
        pub enum Input { inbox of "runtime" { TimerFired } }
    }
}

fn bytes_of(message: &impl Written) -> (&'static Schema, Vec<u8>) {
    let schema: &'static Schema = Box::leak(Box::new(Schema::parse_str(message.record().schema.unwrap()).unwrap()));
    let datum = GenericDatumWriter::builder(schema).build().unwrap();
    let mut out = Vec::new();
    message.write(&mut RecordWriter::new(&datum, &mut out)).unwrap();
    (schema, out)
}

#[test]
fn a_body_round_trips() {
    let (schema, bytes) = bytes_of(&written::Command::from(TimerFired { due_at: 42 }));
    let datum = GenericDatumReader::builder(schema).build().unwrap();
    let reader = RecordReader::new(&datum, &bytes);
    assert_eq!(
        read::Input::read("TimerFired", &reader).unwrap(),
        Some(read::Input::TimerFired(TimerFired { due_at: 42 }))
    );
    assert_eq!(read::Input::read("Unheard", &reader).unwrap(), None);
    assert!(reader.read::<tolerant::TimerFired>().is_ok());
}

#[test]
fn a_truncated_body_is_an_error() {
    let (schema, bytes) = bytes_of(&written::Command::from(TimerFired { due_at: i64::MAX }));
    let datum = GenericDatumReader::builder(schema).build().unwrap();
    let reader = RecordReader::new(&datum, &bytes[..bytes.len() - 1]);
    assert!(read::Input::read("TimerFired", &reader).is_err());
}
