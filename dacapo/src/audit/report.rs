//! What an audit reports: findings and totals, and their text. Pure.

use std::{collections::BTreeMap, fmt};

/// The rule that a finding breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuditRule {
    /// Every accepted order has exactly one outcome.
    SingleOutcome,
    /// Captured minus refunded equals the total of the completed orders.
    Money,
    /// received = free + held + shipped + written off, at every prefix.
    Stock,
    /// No event id has two contents.
    UniqueContent,
    /// An entity's events are numbered 1, 2, 3 … without a gap.
    Sequence,
    /// No record is dead-lettered or parked, and every event can be read.
    Readable,
}

impl fmt::Display for AuditRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SingleOutcome => "one outcome",
            Self::Money => "money",
            Self::Stock => "stock",
            Self::UniqueContent => "one content per id",
            Self::Sequence => "sequence",
            Self::Readable => "readable",
        })
    }
}

/// One violation of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditFinding {
    /// The rule.
    pub rule: AuditRule,
    /// What is wrong, with which entity or record.
    pub what: String,
}

/// Orders counted by outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OrderOutcomes {
    /// Shipped, paid and rewarded.
    pub completed: u64,
    /// Cancelled, with every step compensated.
    pub cancelled: u64,
    /// Rejected when they were placed.
    pub rejected: u64,
    /// Accepted, without an outcome so far.
    pub open: u64,
}

/// The stock of one sku, or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StockTotals {
    /// Delivered to the warehouse.
    pub received: i64,
    /// Available for sale.
    pub free: i64,
    /// Held for orders that have not shipped.
    pub held: i64,
    /// Shipped to customers.
    pub shipped: i64,
    /// Missing from the shelf, and written off.
    pub written_off: i64,
}

impl StockTotals {
    pub(super) fn add(&mut self, other: Self) {
        self.received += other.received;
        self.free += other.free;
        self.held += other.held;
        self.shipped += other.shipped;
        self.written_off += other.written_off;
    }
}

/// The result of an audit: findings and totals.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditReport {
    /// The violations, at most [`AuditReport::MAX_FINDINGS`]; empty if the audit is clean.
    pub findings: Vec<AuditFinding>,
    /// How many findings are not listed.
    pub unlisted_findings: u64,
    /// Orders by outcome.
    pub orders: OrderOutcomes,
    /// Captured minor units by currency.
    pub captured_minor: BTreeMap<String, i64>,
    /// Refunded minor units by currency.
    pub refunded_minor: BTreeMap<String, i64>,
    /// Totals of completed orders by currency.
    pub completed_minor: BTreeMap<String, i64>,
    /// The stock of all skus together.
    pub stock: StockTotals,
    /// How many events were read.
    pub events: u64,
}

impl AuditReport {
    /// How many findings are listed; further findings are only counted.
    pub const MAX_FINDINGS: usize = 1_000;

    /// Whether nothing was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// The report as text: money, stock and findings, of which at most `listed` are listed.
    #[must_use]
    pub fn render(&self, listed: usize) -> String {
        [self.money_line(), self.stock_line(), self.findings_text(listed)].join("\n")
    }

    fn money_line(&self) -> String {
        let amounts = |sums: &BTreeMap<String, i64>| {
            let shown: Vec<String> = sums.iter().map(|(currency, minor)| amount(*minor, currency)).collect();
            if shown.is_empty() { "0".to_owned() } else { shown.join(" + ") }
        };
        format!(
            "money: captured {} - refunded {} = completed orders {}",
            amounts(&self.captured_minor),
            amounts(&self.refunded_minor),
            amounts(&self.completed_minor)
        )
    }

    fn stock_line(&self) -> String {
        let StockTotals { received, free, held, shipped, written_off } = self.stock;
        format!(
            "stock: received {received} = free {free} + held {held} + shipped {shipped} + written off {written_off}"
        )
    }

    fn findings_text(&self, listed: usize) -> String {
        if self.is_clean() {
            return format!("audit: clean, {} events read", self.events);
        }
        let all = self.findings.len() as u64 + self.unlisted_findings;
        let mut lines = vec![format!("audit: {all} findings in {} events", self.events)];
        let shown = self.findings.iter().take(listed);
        lines.extend(shown.map(|finding| format!("  {}: {}", finding.rule, finding.what)));
        let listed = self.findings.len().min(listed) as u64;
        if all > listed {
            lines.push(format!("  and {} more", all - listed));
        }
        lines.join("\n")
    }
}

/// Minor units with two decimals, which fits every currency that MusicCorp sells in.
fn amount(minor: i64, currency: &str) -> String {
    let sign = if minor < 0 { "-" } else { "" };
    let minor = minor.unsigned_abs();
    format!("{sign}{}.{:02} {currency}", minor / 100, minor % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_listed_up_to_the_limit_and_the_rest_are_counted() {
        let finding = |n| AuditFinding { rule: AuditRule::Money, what: format!("order {n} is off") };
        let report = AuditReport {
            findings: (0..25).map(finding).collect(),
            unlisted_findings: 3,
            orders: OrderOutcomes::default(),
            captured_minor: BTreeMap::from([("EUR".to_owned(), 12_345)]),
            refunded_minor: BTreeMap::new(),
            completed_minor: BTreeMap::new(),
            stock: StockTotals::default(),
            events: 77,
        };
        let text = report.render(20);
        assert!(text.starts_with("money: captured 123.45 EUR - refunded 0 = completed orders 0\n"), "{text}");
        assert!(text.contains("\naudit: 28 findings in 77 events\n  money: order 0 is off\n"), "{text}");
        assert!(text.ends_with("and 8 more"), "{text}");
    }
}
