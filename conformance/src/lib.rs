//! Checks of the Kafka and schema registry behaviour that dacapo relies on.
//!
//! The suite takes only a bootstrap address and a registry address: it must not know which broker or registry it tests, nor bypass
//! the protocol. Apache Kafka is the reference; the embedded broker must pass the same checks. Every check creates topics, groups
//! and subjects under unique names and removes them again, so the suite can run on a shared cluster. Next: `check` (what a check
//! is), then `checks` (all of them).

mod batch_bytes;
mod check;
mod checks;
mod clients;
mod context;
mod http;
mod members;
mod runner;
mod wire;

pub use check::{Area, CheckFailure};
pub use runner::{CheckOutcome, SuiteReport, catalogue, run, run_each};

/// The servers under test.
#[derive(Clone, Debug)]
pub struct TestTarget {
    /// `host:port` of a broker.
    pub bootstrap: String,
    /// Base URL of the registry, including its path if it has one.
    pub registry: String,
    /// Whether the registry must return exactly the error codes of Confluent's registry.
    pub exact_confluent_codes: bool,
}

/// Which checks to run.
#[derive(Clone, Debug, Default)]
pub struct CheckFilter {
    /// Run only checks whose area or name contains one of these texts; empty means all.
    pub only: Vec<String>,
    /// Skip checks whose area or name contains one of these texts.
    pub except: Vec<String>,
}

impl CheckFilter {
    /// Every check.
    pub fn all() -> Self {
        Self::default()
    }

    /// Checks whose area or name contains `text`.
    pub fn only(text: impl Into<String>) -> Self {
        Self { only: vec![text.into()], ..Self::default() }
    }

    fn admits(&self, area: &str, name: &str) -> bool {
        let named = |texts: &[String]| texts.iter().any(|text| name.contains(text.as_str()) || area == text);
        (self.only.is_empty() || named(&self.only)) && !named(&self.except)
    }
}
