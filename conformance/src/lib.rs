//! What dacapo relies on in a Kafka and in a schema registry, as checks.
//!
//! The suite takes a bootstrap address and a registry address and nothing else: it must never know which broker or
//! registry answers, nor reach around the protocol. Apache Kafka is the truth; the embedded broker is held to it.
//! Every check makes its own topics, groups and subjects under a name of its own and takes them away again, so the
//! suite can run on a shared cluster. Next: `check` (what a check is), then `checks` (all of them).

mod check;
mod checks;
mod clients;
mod context;
mod http;
mod members;
mod runner;
mod wire;

pub use check::{Area, Failure};
pub use runner::{Outcome, Report, catalogue, run, run_each};

/// What the suite is pointed at.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host:port` of a broker.
    pub bootstrap: String,
    /// Base address of the registry, with its path if it has one.
    pub registry: String,
    /// Whether the registry must answer with exactly the error codes of Confluent's own.
    pub exact_confluent_codes: bool,
}

/// Which checks to run.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Run only checks whose area or name contains one of these texts; empty means all.
    pub only: Vec<String>,
    /// Leave out checks whose area or name contains one of these texts.
    pub except: Vec<String>,
}

impl Filter {
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
