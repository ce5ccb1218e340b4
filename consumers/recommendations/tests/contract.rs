//! The structs of recommendations against every version of every schema they read, and the examples beside them.

use recommendations::reads::Input;
use runtime::testing::contract;

#[test]
fn every_version_of_what_is_heard_is_understood() {
    contract::reads::<Input>(concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas"));
}
