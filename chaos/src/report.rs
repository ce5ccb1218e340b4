//! What a run says in the end. Pure: numbers in, text out.

use std::{collections::BTreeMap, fmt, time::Duration};

use comfy_table::{CellAlignment, Table, presets};
use dacapo::{audit::Balance, up::report::balance};

use crate::plan::Kind;

/// How many findings of the audit the balance lists; all of them stand in the report's own list.
const FINDINGS: usize = 0;

/// What services had to recover from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Nothing was wrong: what the load alone takes to reach every partition.
    Nothing,
    /// One fault.
    Alone(Kind),
    /// One of two faults at once.
    WithAnother,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("(no fault)"),
            Self::Alone(kind) => kind.fmt(f),
            Self::WithAnother => f.write_str("two faults at once"),
        }
    }
}

/// How long it took until the struck services decided again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// From what.
    pub what: What,
    /// From the blow until every partition of the struck services had a newly committed decision.
    pub took: Duration,
    /// How long the fault itself lasted.
    pub lasted: Duration,
}

/// What became of a run.
#[derive(Debug)]
pub struct Report {
    /// Every recovery.
    pub recoveries: Vec<Recovery>,
    /// What did not hold; empty if everything did.
    pub findings: Vec<String>,
    /// The audit's last balance.
    pub balance: Balance,
    /// HTTP requests that were answered.
    pub answered: u64,
    /// HTTP requests that were sent again.
    pub repeated: u64,
    /// Keys that the gateway and the courier did something under.
    pub effects: usize,
    /// Records in dead-letter topics.
    pub letters: usize,
    /// How long the plan took.
    pub took: Duration,
    /// From its end until everything had settled.
    pub took_to_settle: Duration,
}

impl Report {
    /// True if everything held.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// The report as text.
    #[must_use]
    pub fn render(&self, faults: usize) -> String {
        let ends = self.balance.ends;
        let mut lines = vec![
            recovery_table(&self.recoveries),
            format!(
                "{faults} faults in {:.0} s; settled {:.1} s after the last",
                self.took.as_secs_f64(),
                self.took_to_settle.as_secs_f64()
            ),
            format!(
                "load: {} requests answered, {} sent again; orders: {} completed, {} cancelled, {} rejected, {} open",
                self.answered, self.repeated, ends.completed, ends.cancelled, ends.rejected, ends.open
            ),
            format!("effects: {} keys at gateway and courier; dead letters: {}", self.effects, self.letters),
            balance(&self.balance, FINDINGS),
        ];
        if self.is_clean() {
            lines.push("verdict: everything held".to_owned());
        } else {
            lines.push(format!("verdict: {} findings", self.findings.len()));
            lines.extend(self.findings.iter().map(|finding| format!("  {finding}")));
        }
        lines.join("\n")
    }
}

fn recovery_table(recoveries: &[Recovery]) -> String {
    let mut by_kind: BTreeMap<What, Vec<&Recovery>> = BTreeMap::new();
    for recovery in recoveries {
        by_kind.entry(recovery.what).or_default().push(recovery);
    }
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["fault", "times", "lasted p50", "decided again p50", "max", "after its end p50", "max"]);
    for (what, recoveries) in by_kind {
        let of = |ms: fn(&Recovery) -> Duration| {
            let mut all: Vec<Duration> = recoveries.iter().map(|recovery| ms(recovery)).collect();
            all.sort_unstable();
            all
        };
        let (lasted, took) = (of(|recovery| recovery.lasted), of(|recovery| recovery.took));
        let after = of(|recovery| recovery.took.saturating_sub(recovery.lasted));
        let cells = [median(&lasted), median(&took), took.last(), median(&after), after.last()];
        let shown = cells.map(|cell| cell.map_or_else(String::new, |time| format!("{} ms", time.as_millis())));
        table.add_row([what.to_string(), recoveries.len().to_string()].into_iter().chain(shown));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// The smallest value that at least half of them do not exceed.
fn median(sorted: &[Duration]) -> Option<&Duration> {
    sorted.get(sorted.len().div_ceil(2).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recoveries_are_told_by_kind_in_the_middle_and_at_the_worst() {
        let kill = |took, lasted| Recovery {
            what: What::Alone(Kind::Kill),
            took: Duration::from_millis(took),
            lasted: Duration::from_millis(lasted),
        };
        let table = recovery_table(&[kill(900, 400), kill(300, 400), kill(500, 400)]);
        let row = table.lines().last().unwrap();
        let cells: Vec<&str> = row.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(cells, ["kill -9", "3", "400 ms", "500 ms", "900 ms", "100 ms", "500 ms"]);
    }
}
