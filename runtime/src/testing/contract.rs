//! Checks a service's structs against the schema catalog: every version of what it consumes, and exactly what it produces.
//!
//! ```
//! use runtime::testing::contract;
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
//! const SCHEMAS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas");
//! contract::reads::<Input>(SCHEMAS);
//! contract::writes::<Event>(SCHEMAS);
//! ```

use std::path::Path;

use apache_avro::{reader::datum::GenericDatumReader, writer::datum::GenericDatumWriter};

use crate::{
    codec::{RecordReader, RecordWriter},
    message::{Message, RecordType, Written},
    schemas::{CatalogRecord, SchemaCatalog, SchemaVersion, json_to_avro},
};

/// Checks that `M` can read the example of every version of each of its records.
///
/// # Panics
/// The folder is not a schema catalog, a record has no version, a version has no example, or an example cannot be read. The message
/// lists every failure.
#[track_caller]
pub fn reads<M: Message>(schemas: impl AsRef<Path>) {
    let faults = each_record::<M>(schemas.as_ref(), |record_type, record| {
        record.versions.iter().filter_map(|version| read::<M>(record_type, version).err()).collect()
    });
    assert!(faults.is_empty(), "consumed records cannot be read:\n{}", faults.join("\n"));
}

/// Checks that each record of `M` is compiled with a schema of the catalog, and that its struct writes this version's example byte for
/// byte.
///
/// # Panics
/// A record's schema is not in the catalog, or its struct writes other bytes than it has read. The message lists every failure.
#[track_caller]
pub fn writes<M: Written>(schemas: impl AsRef<Path>) {
    let faults = each_record::<M>(schemas.as_ref(), |record_type, record| {
        write::<M>(record_type, record).err().into_iter().collect()
    });
    assert!(faults.is_empty(), "produced records differ from the schema catalog:\n{}", faults.join("\n"));
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
    // A test's process does not live long.
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
