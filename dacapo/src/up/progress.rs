//! How far a run is: a bar on a terminal, a line every few seconds elsewhere.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// How often a line is written where there is no bar.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows how far a run is.
#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    last_line: Instant,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// Orders that were answered.
    pub(super) placed: u64,
    /// Orders that there will be, as far as is known.
    pub(super) orders: Option<u64>,
    /// Sagas of all runs with nothing open any more.
    pub(super) settled: u64,
    /// Sagas that are on their way.
    pub(super) open: u64,
}

impl Progress {
    /// Progress of a run of so many orders.
    #[must_use]
    pub(super) fn new(orders: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = orders.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
            let style = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos} placed, {msg}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, last_line: Instant::now() }
    }

    /// Shows how far it is now.
    pub(super) fn show(&mut self, standing: Standing) {
        if let Some(bar) = &self.bar {
            bar.set_position(standing.placed);
            bar.set_message(format!("{} settled, {} open", standing.settled, standing.open));
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let of = standing.orders.map(|orders| format!(" of {orders}")).unwrap_or_default();
            output::note(&format!(
                "{}{of} orders placed, {} settled, {} open",
                standing.placed, standing.settled, standing.open
            ));
        }
    }

    /// Leaves the bar as it is and goes on below it.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }
}
