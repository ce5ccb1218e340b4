//! The contract kit reports every mismatch between structs and schemas.

mod good {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(crate) struct TimerFired {
        pub(crate) due_at: i64,
    }

    runtime::produces! {
        /// Produced records.
        pub(crate) enum Command in "../schemas" { inbox of "runtime" { TimerFired = 1 } }
    }
}

mod greedy {
    #[derive(Debug, Clone, PartialEq, serde::Deserialize, serde::Serialize)]
    pub(crate) struct TimerFired {
        pub(crate) a_field_nobody_writes: i64,
    }

    runtime::consumes! {
        /// Consumed records.
        pub(crate) enum Input { inbox of "runtime" { TimerFired } }
    }
}

mod forgetful {
    use serde::{Deserialize, Serialize};

    /// Reads one number and writes another.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(crate) struct TimerFired {
        #[serde(skip_deserializing)]
        pub(crate) due_at: i64,
    }

    runtime::produces! {
        /// Produced records.
        pub(crate) enum Command in "../schemas" { inbox of "runtime" { TimerFired = 1 } }
    }
}

mod unknown {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(crate) struct NobodySaysThis {}

    runtime::consumes! {
        /// Consumed records.
        pub(crate) enum Input { events of "nobody" { NobodySaysThis } }
    }
}

use runtime::testing::contract;

const SCHEMAS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas");

fn failure_of(check: fn()) -> String {
    let panic = std::panic::catch_unwind(check).expect_err("it was passed");
    panic.downcast_ref::<String>().expect("an objection in words").clone()
}

#[test]
fn matching_structs_pass() {
    contract::reads::<good::Command>(SCHEMAS);
    contract::writes::<good::Command>(SCHEMAS);
}

#[test]
fn a_field_that_no_version_has_is_reported() {
    let text = failure_of(|| contract::reads::<greedy::Input>(SCHEMAS));
    assert!(text.contains("runtime/inbox/TimerFired/v1.avsc") && text.contains("a_field_nobody_writes"), "{text}");
}

#[test]
fn a_struct_that_writes_other_bytes_is_reported() {
    let text = failure_of(|| contract::writes::<forgetful::Command>(SCHEMAS));
    assert!(text.contains("runtime/inbox/TimerFired/v1.avsc: the struct writes its example differently"), "{text}");
}

#[test]
fn a_record_that_is_not_in_the_catalog_is_reported() {
    let text = failure_of(|| contract::reads::<unknown::Input>(SCHEMAS));
    assert!(text.contains("NobodySaysThis of nobody is not in"), "{text}");
}
