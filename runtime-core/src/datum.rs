//! One Avro body, read into a struct or written from one. An author's `Deserialize` and `Serialize` run here, guarded.

use apache_avro::{reader::datum::GenericDatumReader, writer::datum::GenericDatumWriter};
use serde::{Serialize, de::DeserializeOwned};

use crate::{guard::guarded, tolerant::Tolerant};

/// A body that does not fit its schema or its struct. The text is shortened, because Avro's errors contain whole schemas.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(String);

impl CodecError {
    const MAX_CHARS: usize = 400;

    /// An error with `text`, shortened to a readable length.
    #[must_use]
    pub fn new(text: impl std::fmt::Display) -> Self {
        let text = text.to_string();
        match text.char_indices().nth(Self::MAX_CHARS) {
            Some((end, _)) => Self(format!("{}…", &text[..end])),
            None => Self(text),
        }
    }
}

/// One body, and the schema that it was written with.
pub struct RecordReader<'a> {
    datum: &'a GenericDatumReader<'static>,
    body: &'a [u8],
}

impl<'a> RecordReader<'a> {
    /// A body (without the Confluent prefix) and the reader of its writer's schema.
    #[must_use]
    pub fn new(datum: &'a GenericDatumReader<'static>, body: &'a [u8]) -> Self {
        Self { datum, body }
    }

    /// Reads the whole body into a struct that has the fields it uses.
    ///
    /// # Errors
    /// The body is truncated, does not fit its schema, has bytes left over, or lacks a field that the struct requires.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, CodecError> {
        let mut rest = self.body;
        // The bytes come from outside. A panic in Avro's code or in a `Deserialize` is an error of this record only.
        let Tolerant(value) = guarded("reading the record", || self.datum.read_deser(&mut rest))
            .map_err(CodecError::new)?
            .map_err(CodecError::new)?;
        if rest.is_empty() {
            Ok(value)
        } else {
            Err(CodecError::new(format!("{} bytes are left over after the record", rest.len())))
        }
    }
}

/// Writes one body.
pub struct RecordWriter<'a> {
    datum: &'a GenericDatumWriter<'static>,
    out: &'a mut Vec<u8>,
}

impl<'a> RecordWriter<'a> {
    /// A writer that appends to `out`.
    #[must_use]
    pub fn new(datum: &'a GenericDatumWriter<'static>, out: &'a mut Vec<u8>) -> Self {
        Self { datum, out }
    }

    /// Appends the body.
    ///
    /// # Errors
    /// The struct does not fit the schema.
    pub fn write<T: Serialize>(&mut self, body: &T) -> Result<(), CodecError> {
        let Self { datum, out } = self;
        guarded("Serialize", || datum.write_ser(*out, body))
            .map_err(CodecError::new)?
            .map(|_| ())
            .map_err(CodecError::new)
    }

    /// The result of writing with a read-only enum.
    ///
    /// # Errors
    /// Always.
    pub fn refuse(&mut self) -> Result<(), CodecError> {
        Err(CodecError::new("this enum was declared with consumes!, so it is only read"))
    }
}
