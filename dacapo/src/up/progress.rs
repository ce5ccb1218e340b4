//! The progress of a run: a bar on a terminal, else a line every few seconds.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// The interval between two lines where there is no bar.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows the progress of a run.
#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    last_line: Instant,
}

/// The counts that are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProgressCounts {
    /// Orders that were accepted or rejected.
    pub(super) placed: u64,
    /// The number of orders of the run, if it is known.
    pub(super) orders: Option<u64>,
    /// Settled sagas of all runs.
    pub(super) settled: u64,
    /// Open sagas.
    pub(super) open: u64,
}

impl Progress {
    /// The progress of a run with this number of orders.
    #[must_use]
    pub(super) fn new(orders: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = orders.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
            let style = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos} placed, {msg}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, last_line: Instant::now() }
    }

    /// Shows the current counts.
    pub(super) fn show(&mut self, counts: ProgressCounts) {
        if let Some(bar) = &self.bar {
            bar.set_position(counts.placed);
            bar.set_message(format!("{} settled, {} open", counts.settled, counts.open));
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let of = counts.orders.map(|orders| format!(" of {orders}")).unwrap_or_default();
            output::note(&format!(
                "{}{of} orders placed, {} settled, {} open",
                counts.placed, counts.settled, counts.open
            ));
        }
    }

    /// Leaves the bar as it is, so that output continues below it.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }
}
