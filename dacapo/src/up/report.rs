//! The report that `up --until-settled` prints at its end. Pure: numbers in, text out.

use std::{collections::BTreeMap, time::Duration};

use comfy_table::{CellAlignment, Table, presets};

use crate::audit::AuditReport;

/// How many audit findings the report lists.
const FINDINGS: usize = 20;

/// The orders of one run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct RunSummary {
    /// Orders by outcome, as the saga's declaration names it.
    pub(super) by_outcome: BTreeMap<String, u64>,
    /// The time from placing an order until it settled, one entry for each order of this run.
    pub(super) place_to_end_ms: Vec<u64>,
    /// The time from placing the first order until the last one settled.
    pub(super) took: Duration,
    /// Orders of this run that were accepted or rejected.
    pub(super) orders: u64,
    /// Orders that could not be placed: bad lines, refused requests.
    pub(super) not_placed: u64,
    /// Orders that an earlier run had placed.
    pub(super) placed_before: u64,
}

/// The report as text.
#[must_use]
pub(super) fn render(summary: &RunSummary, audit: &AuditReport) -> String {
    let mut text = String::new();
    let mut add = |part: &str| {
        text.push_str(part);
        text.push('\n');
    };
    add(&outcome_table(summary).to_string());
    add(&rate_line(summary));
    add(&audit.render(FINDINGS));
    text
}

fn outcome_table(summary: &RunSummary) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(["outcome", "orders", "share"]);
    let settled: u64 = summary.by_outcome.values().sum();
    for (outcome, orders) in &summary.by_outcome {
        table.add_row([outcome.clone(), orders.to_string(), share(*orders, settled)]);
    }
    table.add_row(["all".to_owned(), settled.to_string(), share(settled, settled)]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[expect(clippy::cast_precision_loss, reason = "a share is shown with one decimal")]
fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", 100.0 * part as f64 / whole as f64) }
}

#[expect(clippy::cast_precision_loss, reason = "a rate is shown without decimals")]
fn rate_line(summary: &RunSummary) -> String {
    let seconds = summary.took.as_secs_f64();
    let rate = if seconds > 0.0 { summary.orders as f64 / seconds } else { 0.0 };
    let mut line = format!("{} orders in {seconds:.1} s: {rate:.0} orders/s", summary.orders);
    if let (Some(p50), Some(p99)) = (percentile(&summary.place_to_end_ms, 50), percentile(&summary.place_to_end_ms, 99))
    {
        line.push_str(&format!("; placed to settled p50 {p50} ms, p99 {p99} ms"));
    }
    if summary.placed_before > 0 {
        line.push_str(&format!("; {} had been placed before", summary.placed_before));
    }
    if summary.not_placed > 0 {
        line.push_str(&format!("; {} were not placed", summary.not_placed));
    }
    line
}

/// The smallest value that at least `percent` of the values do not exceed.
fn percentile(values: &[u64], percent: usize) -> Option<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{OrderOutcomes, StockTotals};

    fn clean_audit() -> AuditReport {
        AuditReport {
            findings: Vec::new(),
            unlisted_findings: 0,
            orders: OrderOutcomes { completed: 3, cancelled: 1, rejected: 0, open: 0 },
            captured_minor: BTreeMap::from([("EUR".to_owned(), 12_345)]),
            refunded_minor: BTreeMap::from([("EUR".to_owned(), 45)]),
            completed_minor: BTreeMap::from([("EUR".to_owned(), 12_300)]),
            stock: StockTotals { received: 10, free: 5, held: 0, shipped: 4, written_off: 1 },
            events: 77,
        }
    }

    #[test]
    fn the_report_shows_outcomes_rate_money_stock_and_the_audit() {
        let summary = RunSummary {
            by_outcome: BTreeMap::from([("completed".to_owned(), 3), ("lost at packaging".to_owned(), 1)]),
            place_to_end_ms: vec![40, 10, 20, 30],
            took: Duration::from_millis(2_000),
            orders: 4,
            not_placed: 0,
            placed_before: 2,
        };
        let expected = "\
| outcome           | orders |   share |
|-------------------|--------|---------|
| completed         |      3 |  75.0 % |
| lost at packaging |      1 |  25.0 % |
| all               |      4 | 100.0 % |
4 orders in 2.0 s: 2 orders/s; placed to settled p50 20 ms, p99 40 ms; 2 had been placed before
money: captured 123.45 EUR - refunded 0.45 EUR = completed orders 123.00 EUR
stock: received 10 = free 5 + held 0 + shipped 4 + written off 1
audit: clean, 77 events read
";
        assert_eq!(render(&summary, &clean_audit()), expected);
    }
}
