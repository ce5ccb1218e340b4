//! The audit: reads the topics alone and checks the rules of MusicCorp. It shares no code with the deciders, so it cannot repeat
//! their mistakes.

mod auditor;
mod checks;
mod order;
mod reads;
mod report;

use std::time::Duration;

use anyhow::bail;
use runtime::config::Config;

use crate::{output, target::Target};

pub use auditor::{AuditRecord, Auditor};
pub use report::{AuditFinding, AuditReport, AuditRule, OrderOutcomes, StockTotals};

/// Flags of `dacapo audit`.
#[derive(Debug, clap::Args)]
pub struct AuditArgs {
    #[command(flatten)]
    target: Target,
    /// Fail if the topics cannot be read within this time
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    patience: u64,
    /// How many findings to list; all are counted
    #[arg(long, value_name = "N", default_value_t = 20)]
    findings: usize,
}

/// Reads the topics to their present ends and prints the report.
///
/// # Errors
/// The topics cannot be read, or a rule is broken.
pub async fn run(args: &AuditArgs) -> anyhow::Result<()> {
    let config = args.target.connect("dacapo-audit").await?.config;
    let report = audit(&config, Duration::from_secs(args.patience)).await?;
    output::line(report.render(args.findings).trim_end())?;
    if report.is_clean() { Ok(()) } else { bail!("the audit of system {} has findings", config.system) }
}

/// Audits every events, dead-letter and parked topic of the system up to its present end.
///
/// # Errors
/// The topics cannot be read within `patience`.
pub async fn audit(config: &Config, patience: Duration) -> anyhow::Result<AuditReport> {
    auditor::read(config, patience).await
}

#[cfg(test)]
mod checks_tests;
