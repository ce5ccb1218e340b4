//! The report of a run. Pure: numbers in, text out.

use std::{collections::BTreeMap, fmt, time::Duration};

use comfy_table::{CellAlignment, Table, presets};
use dacapo::audit::AuditReport;

use crate::plan::FaultKind;

/// How many findings the text of the audit lists: none, since the report lists them itself.
const FINDINGS: usize = 0;

/// The cause that services had to recover from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecoveryCause {
    /// No fault: how long the load itself takes to reach every partition.
    Nothing,
    /// One fault.
    Alone(FaultKind),
    /// One of two faults at once.
    WithAnother,
}

impl fmt::Display for RecoveryCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("(no fault)"),
            Self::Alone(kind) => kind.fmt(f),
            Self::WithAnother => f.write_str("two faults at once"),
        }
    }
}

/// How long the hit services took to decide again after a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoveryTime {
    /// What the services had to recover from.
    pub cause: RecoveryCause,
    /// The time from the start of the fault until every partition of the hit services had a newly committed decision.
    pub took: Duration,
    /// How long the fault lasted.
    pub lasted: Duration,
}

/// The result of a run.
#[derive(Debug)]
pub struct Report {
    /// Every recovery.
    pub recoveries: Vec<RecoveryTime>,
    /// The failed checks; empty if all passed.
    pub findings: Vec<String>,
    /// The last report of the audit.
    pub audit: AuditReport,
    /// HTTP requests with a definite response.
    pub answered: u64,
    /// Repeated HTTP requests.
    pub repeated: u64,
    /// How many keys the gateway and the courier acted under.
    pub effects: usize,
    /// Records in dead-letter topics.
    pub dead_letters: usize,
    /// How long the plan took.
    pub took: Duration,
    /// The time from the end of the plan until everything had settled.
    pub took_to_settle: Duration,
}

impl Report {
    /// Whether all checks passed.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// The report as text.
    #[must_use]
    pub fn render(&self, faults: usize) -> String {
        let orders = self.audit.orders;
        let mut lines = vec![
            recovery_table(&self.recoveries),
            format!(
                "{faults} faults in {:.0} s; settled {:.1} s after the last",
                self.took.as_secs_f64(),
                self.took_to_settle.as_secs_f64()
            ),
            format!(
                "load: {} requests answered, {} repeated; orders: {} completed, {} cancelled, {} rejected, {} open",
                self.answered, self.repeated, orders.completed, orders.cancelled, orders.rejected, orders.open
            ),
            format!("effects: {} keys at gateway and courier; dead letters: {}", self.effects, self.dead_letters),
            self.audit.render(FINDINGS),
        ];
        if self.is_clean() {
            lines.push("result: all checks passed".to_owned());
        } else {
            lines.push(format!("result: {} findings", self.findings.len()));
            lines.extend(self.findings.iter().map(|finding| format!("  {finding}")));
        }
        lines.join("\n")
    }
}

fn recovery_table(recoveries: &[RecoveryTime]) -> String {
    let mut by_kind: BTreeMap<RecoveryCause, Vec<&RecoveryTime>> = BTreeMap::new();
    for recovery in recoveries {
        by_kind.entry(recovery.cause).or_default().push(recovery);
    }
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["fault", "times", "lasted p50", "decided again p50", "max", "after its end p50", "max"]);
    for (cause, recoveries) in by_kind {
        let of = |ms: fn(&RecoveryTime) -> Duration| {
            let mut all: Vec<Duration> = recoveries.iter().map(|recovery| ms(recovery)).collect();
            all.sort_unstable();
            all
        };
        let (lasted, took) = (of(|recovery| recovery.lasted), of(|recovery| recovery.took));
        let after = of(|recovery| recovery.took.saturating_sub(recovery.lasted));
        let cells = [median(&lasted), median(&took), took.last(), median(&after), after.last()];
        let shown = cells.map(|cell| cell.map_or_else(String::new, |time| format!("{} ms", time.as_millis())));
        table.add_row([cause.to_string(), recoveries.len().to_string()].into_iter().chain(shown));
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
    fn recoveries_are_shown_by_kind_with_median_and_maximum() {
        let kill = |took, lasted| RecoveryTime {
            cause: RecoveryCause::Alone(FaultKind::Kill),
            took: Duration::from_millis(took),
            lasted: Duration::from_millis(lasted),
        };
        let table = recovery_table(&[kill(900, 400), kill(300, 400), kill(500, 400)]);
        let row = table.lines().last().unwrap();
        let cells: Vec<&str> = row.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(cells, ["kill -9", "3", "400 ms", "500 ms", "900 ms", "100 ms", "500 ms"]);
    }
}
