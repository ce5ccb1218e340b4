//! Real processes under load, with faults drawn from a seed; afterwards everything must settle and the audit must be clean.
//!
//! This crate owns the faults, the processes that they hit, and the checks afterwards. It knows no rule of any service: it checks
//! the audit, the topics and the journals of the stubs. `plan` draws the faults, `run` injects them, `checks` checks the result.
//! Nothing depends on this crate.

mod checks;
pub mod cli;
pub mod environment;
mod faults;
pub mod infrastructure;
pub mod instances;
pub mod load;
pub mod observer;
pub mod plan;
pub mod process;
pub mod proxy;
pub mod report;
pub mod roles;
mod run;
mod stub_journals;
