//! The checks after a run: the audit, the acknowledged orders, the dead letters and the effects.

use std::time::{Duration, Instant};

use dacapo::audit::{AuditReport, audit};
use runtime::Config;

use crate::{load::LoadResults, observer::Observations, stub_journals::StubJournals};

/// How long one audit may read the topics.
const AUDIT_PATIENCE: Duration = Duration::from_secs(300);
/// The pause between two audits.
const AUDIT_PAUSE: Duration = Duration::from_millis(500);
/// How many findings of a kind are listed.
const LISTED: usize = 10;

/// Audits until the report is clean and no stock is held, at most as long as `patience`. Returns the last report and whether both hold.
pub(crate) async fn audit_until_settled(config: &Config, patience: Duration) -> anyhow::Result<(AuditReport, bool)> {
    let deadline = Instant::now() + patience;
    loop {
        let report = audit(&config.for_service("audit"), AUDIT_PATIENCE).await?;
        // The stock item of a settled order may record the shipment a moment after the order has settled.
        let settled = report.is_clean() && report.stock.held == 0;
        if settled || Instant::now() >= deadline {
            return Ok((report, settled));
        }
        tokio::time::sleep(AUDIT_PAUSE).await;
    }
}

/// The failed checks.
pub(crate) fn findings(
    audit: &AuditReport,
    settled: bool,
    load: &LoadResults,
    seen: &Observations,
    journals: &StubJournals,
) -> Vec<String> {
    let mut findings = Vec::new();
    if !settled && audit.is_clean() {
        findings.push(format!("the audit is clean, and {} pieces are still held", audit.stock.held));
    }
    findings.extend(some(audit.findings.iter().map(|finding| format!("audit, {}: {}", finding.rule, finding.what))));
    let lost = load.orders.iter().filter(|order| !seen.orders.contains(*order));
    findings.extend(some(lost.map(|order| format!("order {order} was acknowledged and is on no topic"))));
    // Every record of this load is readable, so nothing may be dead-lettered.
    findings.extend(some(seen.dead_letters.iter().map(|letter| format!("an unexpected dead letter: {letter}"))));
    findings.extend(some(journals.contradictions(&seen.effect_results).into_iter()));
    if journals.kept_minor.iter().any(|(currency, kept)| *kept != completed(audit, currency)) {
        let kept = &journals.kept_minor;
        findings.push(format!(
            "the gateway kept {kept:?} (minor units), completed orders are worth {:?}",
            audit.completed_minor
        ));
    }
    findings.extend(some(load.unanswered.iter().map(|request| format!("never answered: {request}"))));
    findings.extend(some(load.wrong.iter().map(|response| format!("a wrong response: {response}"))));
    findings
}

fn completed(audit: &AuditReport, currency: &str) -> i64 {
    audit.completed_minor.get(currency).copied().unwrap_or_default()
}

/// The first of many findings, and how many follow.
fn some(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = all.collect();
    let beyond = all.len().saturating_sub(LISTED);
    all.truncate(LISTED);
    if beyond > 0 {
        all.push(format!("and {beyond} more of this kind"));
    }
    all
}
