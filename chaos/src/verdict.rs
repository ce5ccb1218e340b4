//! Whether everything held: the books, the acknowledgements, the dead letters, the effects.

use std::time::{Duration, Instant};

use dacapo::audit::{Balance, audit};
use runtime::Config;

use crate::{load::Answers, outcomes::Done, watch::Seen};

/// How long one audit may read.
const AUDIT_PATIENCE: Duration = Duration::from_secs(300);
/// The pause between two audits.
const AGAIN: Duration = Duration::from_millis(500);
/// How many findings of a kind are listed.
const LISTED: usize = 10;

/// Audits until the books are clean, at most as long as `patience`. Answers the last balance and whether it is clean.
pub(crate) async fn settle(config: &Config, patience: Duration) -> anyhow::Result<(Balance, bool)> {
    let deadline = Instant::now() + patience;
    loop {
        let balance = audit(&config.for_service("audit"), AUDIT_PATIENCE).await?;
        // The parcel of a settled order may be gone a moment before the books of the shelf say so.
        let settled = balance.is_clean() && balance.stock.held == 0;
        if settled || Instant::now() >= deadline {
            return Ok((balance, settled));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Everything that did not hold.
pub(crate) fn findings(balance: &Balance, settled: bool, answers: &Answers, seen: &Seen, done: &Done) -> Vec<String> {
    let mut findings = Vec::new();
    if !settled && balance.is_clean() {
        findings.push(format!("the books are clean, and {} pieces are still held", balance.stock.held));
    }
    findings.extend(some(balance.findings.iter().map(|finding| format!("audit, {}: {}", finding.rule, finding.what))));
    let lost = answers.orders.iter().filter(|order| !seen.orders.contains(*order));
    findings.extend(some(lost.map(|order| format!("order {order} was acknowledged and is on no topic"))));
    // No record of this load is unreadable, so nothing may have been laid aside.
    findings.extend(some(seen.letters.iter().map(|letter| format!("a dead letter that nobody sent: {letter}"))));
    findings.extend(some(done.contradictions(&seen.answers).into_iter()));
    if done.kept_minor.iter().any(|(currency, kept)| *kept != completed(balance, currency)) {
        let kept = &done.kept_minor;
        findings.push(format!(
            "the gateway kept {kept:?} (minor units), completed orders are worth {:?}",
            balance.completed_minor
        ));
    }
    findings.extend(some(answers.unanswered.iter().map(|request| format!("never answered: {request}"))));
    findings.extend(some(answers.wrong.iter().map(|answer| format!("a wrong answer: {answer}"))));
    findings
}

fn completed(balance: &Balance, currency: &str) -> i64 {
    balance.completed_minor.get(currency).copied().unwrap_or_default()
}

/// The first of many, and how many there are beyond.
fn some(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = all.collect();
    let beyond = all.len().saturating_sub(LISTED);
    all.truncate(LISTED);
    if beyond > 0 {
        all.push(format!("and {beyond} more of this kind"));
    }
    all
}
