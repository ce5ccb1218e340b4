//! What the projector writes, against every version of its schemas and the examples beside them.

use projector::status::Said;
use runtime::testing::contract;

#[test]
fn every_status_is_written_as_its_schema_has_it() {
    contract::writes::<Said>(concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas"));
}
