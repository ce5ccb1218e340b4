//! Checks the message types of a service against the schemas: every version of what it consumes, and exactly what it produces.
//!
//! ```
//! use runtime::testing::contract::ContractTest;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
//! struct CustomerRegistered {
//!     customer_id: String,
//! }
//!
//! #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
//! struct LoyaltyAccountOpened {
//!     customer_id: String,
//!     occurred_at: i64,
//! }
//!
//! runtime::consumes! { enum Input { events of "customers" { CustomerRegistered } } }
//! runtime::produces! { enum Event in "../schemas" { events of "loyalty" { LoyaltyAccountOpened = 1 } } }
//!
//! ContractTest::in_folder(concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas"))
//!     .consumes::<Input>()
//!     .produces::<Event>()
//!     .check();
//! ```

use std::path::{Path, PathBuf};

use apache_avro::{reader::datum::GenericDatumReader, writer::datum::GenericDatumWriter};

use crate::{
    codec::{RecordReader, RecordWriter},
    message::{Message, RecordType, Written},
    schemas::{CatalogRecord, SchemaCatalog, SchemaVersion, json_to_avro},
};

/// The message types of one service, checked together so that one failure lists every fault.
#[derive(Debug)]
pub struct ContractTest {
    schemas: PathBuf,
    faults: Vec<String>,
}

impl ContractTest {
    /// The contract of a service whose schemas are in this folder.
    #[must_use]
    pub fn in_folder(schemas: impl Into<PathBuf>) -> Self {
        Self { schemas: schemas.into(), faults: Vec::new() }
    }

    /// The service consumes `M`: `M` must read the example of every version of each of its records.
    #[must_use]
    pub fn consumes<M: Message>(mut self) -> Self {
        self.faults.extend(unreadable::<M>(&self.schemas));
        self
    }

    /// The service produces `M`: each record must be compiled with a schema of the folder, its struct must write the example of this
    /// version byte for byte, and `M` must read the example of every version, because a service folds its own log.
    #[must_use]
    pub fn produces<M: Written>(self) -> Self {
        let mut contract = self.consumes::<M>();
        contract.faults.extend(miswritten::<M>(&contract.schemas));
        contract
    }

    /// Ends the check.
    ///
    /// # Panics
    /// A type does not match its schemas. The message lists every fault.
    #[track_caller]
    pub fn check(self) {
        assert!(self.faults.is_empty(), "the message types do not match their schemas:\n{}", self.faults.join("\n"));
    }
}

/// Reads the example of every version of every record that `M` consumes.
///
/// # Panics
/// The folder is not a schema catalog, a record has no version, a version has no example, or an example cannot be read. The message lists
/// every fault.
#[track_caller]
pub fn reads<M: Message>(schemas: impl AsRef<Path>) {
    let faults = unreadable::<M>(schemas.as_ref());
    assert!(faults.is_empty(), "consumed records cannot be read:\n{}", faults.join("\n"));
}

/// Checks that each record of `M` is compiled with a schema of the catalog, and that its struct writes the example of this version
/// byte for byte.
///
/// # Panics
/// The schema of a record is not in the catalog, or its struct writes another value than it has read. The message lists every
/// fault.
#[track_caller]
pub fn writes<M: Written>(schemas: impl AsRef<Path>) {
    let faults = miswritten::<M>(schemas.as_ref());
    assert!(faults.is_empty(), "written records do not match the contract:\n{}", faults.join("\n"));
}

fn unreadable<M: Message>(schemas: &Path) -> Vec<String> {
    each_record::<M>(schemas, |record_type, record| {
        record.versions.iter().filter_map(|version| read::<M>(record_type, version).err()).collect()
    })
}

fn miswritten<M: Written>(schemas: &Path) -> Vec<String> {
    each_record::<M>(schemas, |record_type, record| write::<M>(record_type, record).err().into_iter().collect())
}

fn each_record<M: Message>(root: &Path, check: impl Fn(&RecordType, &CatalogRecord) -> Vec<String>) -> Vec<String> {
    let catalog = match SchemaCatalog::load(root) {
        Ok(catalog) => catalog,
        Err(error) => return vec![crate::telemetry::chain(&error)],
    };
    let mut faults = Vec::new();
    for record_type in M::RECORDS {
        match catalog.find(record_type.owner, record_type.channel, record_type.name) {
            Some(record) => faults.extend(check(record_type, record)),
            None => faults.push(format!("{} of {} is not in {}", record_type.name, record_type.owner, root.display())),
        }
    }
    faults
}

fn read<M: Message>(record_type: &RecordType, version: &SchemaVersion) -> Result<(M, Vec<u8>), String> {
    let failed = |reason: &dyn std::fmt::Display| format!("{}: {reason}", version.path);
    let example = version.example.as_ref().ok_or_else(|| failed(&"it has no example"))?;
    let example = serde_json::from_str(example).map_err(|e| failed(&format!("its example is not JSON: {e}")))?;
    let bytes = json_to_avro(&version.schema, &example).map_err(|e| failed(&e))?;
    // The process of a test ends soon, so the leak is bounded.
    let schema = Box::leak(Box::new(version.schema.clone()));
    let datum = GenericDatumReader::builder(schema).build().map_err(|e| failed(&e))?;
    match M::read(record_type.name, &RecordReader::new(&datum, &bytes)) {
        Ok(Some(body)) => Ok((body, bytes)),
        Ok(None) => Err(failed(&"the enum has no such record")),
        Err(error) => Err(failed(&error)),
    }
}

fn write<M: Written>(record_type: &RecordType, record: &CatalogRecord) -> Result<(), String> {
    let failed = |reason: &dyn std::fmt::Display| format!("{}: {reason}", record.folder());
    let compiled = record_type.schema.ok_or_else(|| failed(&"it is only read"))?;
    let version = record.versions.iter().find(|version| version.text == compiled);
    let version = version.ok_or_else(|| failed(&"the schema compiled in is none of its versions; build again"))?;
    let (body, expected) = read::<M>(record_type, version)?;
    let schema = Box::leak(Box::new(version.schema.clone()));
    let datum = GenericDatumWriter::builder(schema).build().map_err(|e| failed(&e))?;
    let mut written = Vec::new();
    body.write(&mut RecordWriter::new(&datum, &mut written)).map_err(|e| format!("{}: {e}", version.path))?;
    if written == expected {
        Ok(())
    } else {
        Err(format!("{}: the struct writes its example differently than it was read", version.path))
    }
}
