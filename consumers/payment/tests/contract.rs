//! The message types of this service match every version of their schemas, and the examples beside them.

use payment::{events::Event, inbox::Command, reads::Input};
use runtime::testing::contract::ContractTest;

#[test]
fn message_types_match_their_schemas() {
    ContractTest::in_folder(concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas"))
        .consumes::<Input>()
        .produces::<Event>()
        .produces::<Command>()
        .check();
}
