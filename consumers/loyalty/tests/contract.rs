//! The structs of this service against every version of every schema they read or write, and the examples beside them.

use loyalty::{events::Event, reads::Input};
use runtime::testing::contract;

const SCHEMAS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas");

#[test]
fn every_version_of_what_is_heard_is_understood() {
    contract::reads::<Input>(SCHEMAS);
}

#[test]
fn every_version_of_what_was_said_is_understood() {
    contract::reads::<Event>(SCHEMAS);
}

#[test]
fn every_event_is_written_as_its_schema_has_it() {
    contract::writes::<Event>(SCHEMAS);
}
