//! The records of the projector match every version of their schemas.

use projector::status::StatusMessage;
use runtime::testing::contract;

#[test]
fn every_status_is_written_as_its_schema_has_it() {
    contract::writes::<StatusMessage>(concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas"));
}
