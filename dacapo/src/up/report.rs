//! The table that `up --until-settled` ends with. Pure: numbers in, text out.

use std::{collections::BTreeMap, time::Duration};

use comfy_table::{CellAlignment, Table, presets};

use crate::audit::Balance;

/// How many findings the report of a run lists.
const FINDINGS: usize = 20;

/// What became of the orders of one run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcomes {
    /// Orders by outcome, as the saga's declaration calls it.
    pub by_outcome: BTreeMap<String, u64>,
    /// From the acceptance of an order to its end, one entry an order of this run.
    pub place_to_end_ms: Vec<u64>,
    /// From the first order given to the edge to the last one settled.
    pub took: Duration,
    /// Orders of this run that were accepted or rejected.
    pub orders: u64,
    /// Orders that never got in: bad lines, refused requests.
    pub not_placed: u64,
    /// Orders that had been placed by an earlier run.
    pub placed_before: u64,
}

/// The report as text.
#[must_use]
pub fn render(outcomes: &Outcomes, balance: &Balance) -> String {
    let mut text = String::new();
    let mut add = |part: &str| {
        text.push_str(part);
        text.push('\n');
    };
    add(&outcome_table(outcomes).to_string());
    add(&pace(outcomes));
    add(&self::balance(balance, FINDINGS));
    text
}

/// The balance as text: money, stock, and what was found, of which at most `shown` are listed.
#[must_use]
pub fn balance(balance: &Balance, shown: usize) -> String {
    [money(balance), stock(balance), verdict(balance, shown)].join("\n")
}

fn outcome_table(outcomes: &Outcomes) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(["outcome", "orders", "share"]);
    let settled: u64 = outcomes.by_outcome.values().sum();
    for (outcome, orders) in &outcomes.by_outcome {
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
fn pace(outcomes: &Outcomes) -> String {
    let seconds = outcomes.took.as_secs_f64();
    let rate = if seconds > 0.0 { outcomes.orders as f64 / seconds } else { 0.0 };
    let mut line = format!("{} orders in {seconds:.1} s: {rate:.0} orders/s", outcomes.orders);
    if let (Some(p50), Some(p99)) =
        (percentile(&outcomes.place_to_end_ms, 50), percentile(&outcomes.place_to_end_ms, 99))
    {
        line.push_str(&format!("; placed to settled p50 {p50} ms, p99 {p99} ms"));
    }
    if outcomes.placed_before > 0 {
        line.push_str(&format!("; {} had been placed before", outcomes.placed_before));
    }
    if outcomes.not_placed > 0 {
        line.push_str(&format!("; {} were not placed", outcomes.not_placed));
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

fn money(balance: &Balance) -> String {
    let amounts = |sums: &BTreeMap<String, i64>| {
        let shown: Vec<String> = sums.iter().map(|(currency, minor)| amount(*minor, currency)).collect();
        if shown.is_empty() { "0".to_owned() } else { shown.join(" + ") }
    };
    format!(
        "money: captured {} - refunded {} = completed orders {}",
        amounts(&balance.captured_minor),
        amounts(&balance.refunded_minor),
        amounts(&balance.completed_minor)
    )
}

/// Minor units with two decimals, which fits every currency that is sold in.
fn amount(minor: i64, currency: &str) -> String {
    let sign = if minor < 0 { "-" } else { "" };
    let minor = minor.unsigned_abs();
    format!("{sign}{}.{:02} {currency}", minor / 100, minor % 100)
}

fn stock(balance: &Balance) -> String {
    let stock = balance.stock;
    format!(
        "stock: received {} = free {} + held {} + shipped {} + written off {}",
        stock.received, stock.free, stock.held, stock.shipped, stock.written_off
    )
}

fn verdict(balance: &Balance, shown: usize) -> String {
    if balance.is_clean() {
        return format!("audit: clean, {} events read", balance.events);
    }
    let all = balance.findings.len() as u64 + balance.unlisted_findings;
    let mut lines = vec![format!("audit: {all} findings in {} events", balance.events)];
    lines.extend(balance.findings.iter().take(shown).map(|finding| format!("  {}: {}", finding.rule, finding.what)));
    let listed = balance.findings.len().min(shown) as u64;
    if all > listed {
        lines.push(format!("  and {} more", all - listed));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Ends, Finding, Rule, Stock};

    fn balance() -> Balance {
        Balance {
            findings: Vec::new(),
            unlisted_findings: 0,
            ends: Ends { completed: 3, cancelled: 1, rejected: 0, open: 0 },
            captured_minor: BTreeMap::from([("EUR".to_owned(), 12_345)]),
            refunded_minor: BTreeMap::from([("EUR".to_owned(), 45)]),
            completed_minor: BTreeMap::from([("EUR".to_owned(), 12_300)]),
            stock: Stock { received: 10, free: 5, held: 0, shipped: 4, written_off: 1 },
            events: 77,
        }
    }

    #[test]
    fn the_report_shows_outcomes_pace_money_stock_and_the_verdict() {
        let outcomes = Outcomes {
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
        assert_eq!(render(&outcomes, &balance()), expected);
    }

    #[test]
    fn findings_are_listed_and_the_rest_counted() {
        let finding = |n| Finding { rule: Rule::Money, what: format!("order {n} is off") };
        let balance = Balance { findings: (0..25).map(finding).collect(), unlisted_findings: 3, ..balance() };
        let verdict = verdict(&balance, FINDINGS);
        assert!(verdict.starts_with("audit: 28 findings in 77 events\n  money: order 0 is off\n"), "{verdict}");
        assert!(verdict.ends_with("and 8 more"), "{verdict}");
    }
}
