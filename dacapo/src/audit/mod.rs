//! The balance check: reads the topics alone and finds what does not add up. It shares no code with the deciders, so that it
//! cannot share their mistakes.

mod auditor;
mod books;
mod reads;

use std::time::Duration;

use anyhow::bail;
use runtime::config::Config;

use crate::{output, target::Target, up::report};

pub use auditor::{Auditor, Seen};
pub use books::{Balance, Ends, Finding, Rule, Stock};

/// Flags of `dacapo audit`.
#[derive(Debug, clap::Args)]
pub struct AuditArgs {
    #[command(flatten)]
    target: Target,
    /// Give up if the topics cannot be read within this time
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    patience: u64,
    /// How many findings to list at most; all are counted
    #[arg(long, value_name = "N", default_value_t = 20)]
    findings: usize,
}

/// Reads everything there is and shows the balance.
///
/// # Errors
/// The topics cannot be read, or something does not add up.
pub async fn run(args: &AuditArgs) -> anyhow::Result<()> {
    let config = args.target.reached("dacapo-audit").await?.config;
    let balance = audit(&config, Duration::from_secs(args.patience)).await?;
    output::line(report::balance(&balance, args.findings).trim_end())?;
    if balance.is_clean() { Ok(()) } else { bail!("the books of system {} do not balance", config.system) }
}

/// Reads every events and dead-letter topic of the system up to its present end and closes the books.
///
/// # Errors
/// The topics cannot be read within `patience`.
pub async fn audit(config: &Config, patience: Duration) -> anyhow::Result<Balance> {
    auditor::read(config, patience).await
}

#[cfg(test)]
mod books_tests;
