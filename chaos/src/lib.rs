//! Real processes under load and under faults that a seed draws; afterwards everything must settle and the books be clean.
//!
//! Owns the faults, the processes that they strike and the verdict. It knows no rule of any service: what must hold is asked of
//! the audit, of the topics and of the outside world's own journal. `plan` draws what will happen, `run` lets it happen, `verdict`
//! says whether everything held. Nothing depends on this crate.

pub mod cli;
mod faults;
pub mod fleet;
pub mod ground;
pub mod load;
mod outcomes;
pub mod plan;
pub mod process;
pub mod proxy;
pub mod report;
pub mod roles;
mod run;
pub mod stage;
mod verdict;
pub mod watch;
