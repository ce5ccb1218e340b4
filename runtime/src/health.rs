//! Liveness and readiness of a process, from the checks of its parts.
//!
//! A part of a process is fine, degraded or failed. A degraded part works, except for some of its pieces, such as one partition with
//! a batch that cannot be read. A degraded process stays ready, so one bad batch does not take every instance of a service out of its
//! load balancer. [`HealthChecks::watch`] logs each degraded piece once, as an error, and counts them in a metric.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use crate::telemetry::{metric, printable};

/// How often a process looks for pieces that have become degraded.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// The longest reason that is shown.
const REASON_CHARS: usize = 500;

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckResult {
    /// Everything works.
    Fine,
    /// It works, except for these pieces.
    Degraded(Vec<DegradedPiece>),
    /// It does not work, and why.
    Failed(String),
}

/// A piece of a process that does not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DegradedPiece {
    /// Which piece, such as `topic/partition/offset`. It is reported once as long as it stays degraded.
    pub place: String,
    /// Why, and what to do about it.
    pub reason: String,
}

impl DegradedPiece {
    /// A piece at this place, with this reason.
    pub fn new(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { place: place.into(), reason: reason.into() }
    }
}

impl std::fmt::Display for DegradedPiece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}

impl From<Result<(), String>> for CheckResult {
    fn from(result: Result<(), String>) -> Self {
        result.map_or_else(Self::Failed, |()| Self::Fine)
    }
}

impl CheckResult {
    /// Fine, or degraded if there are such pieces.
    #[must_use]
    pub fn of_pieces(pieces: Vec<DegradedPiece>) -> Self {
        if pieces.is_empty() { Self::Fine } else { Self::Degraded(pieces) }
    }

    /// The result of two parts together: one that has failed has failed as a whole.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Failed(reason), Self::Failed(other)) => Self::Failed(format!("{reason}; {other}")),
            (failed @ Self::Failed(_), _) | (_, failed @ Self::Failed(_)) => failed,
            (Self::Fine, other) | (other, Self::Fine) => other,
            (Self::Degraded(mut pieces), Self::Degraded(more)) => {
                pieces.extend(more);
                Self::Degraded(pieces)
            }
        }
    }
}

type Check = Box<dyn Fn() -> CheckResult + Send + Sync>;

/// Which of Kubernetes' probes a check belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthProbe {
    /// Liveness: a failure asks for a restart.
    Live,
    /// Readiness: a failure keeps requests away.
    Ready,
}

/// The health checks of a process. Clones share them. A check returns at once from known state: it does no I/O.
#[derive(Clone, Default)]
pub struct HealthChecks {
    checks: Arc<RwLock<Vec<(HealthProbe, String, Check)>>>,
}

impl std::fmt::Debug for HealthChecks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.report(HealthProbe::Ready).text)
    }
}

/// The results of all checks of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthReport {
    /// No check failed.
    pub is_fine: bool,
    /// The degraded pieces, with the name of their check.
    pub degraded: Vec<(String, DegradedPiece)>,
    /// A line per check, and a line per degraded piece, in Kubernetes' format.
    pub text: String,
}

impl HealthReport {
    fn add(&mut self, name: &str, result: CheckResult) {
        let written = match result {
            CheckResult::Fine => writeln!(self.text, "[+]{name} ok"),
            CheckResult::Failed(reason) => {
                self.is_fine = false;
                writeln!(self.text, "[-]{name} failed: {}", printable(&reason, REASON_CHARS))
            }
            CheckResult::Degraded(pieces) => pieces.into_iter().try_for_each(|piece| {
                let line = writeln!(self.text, "[!]{name} degraded: {}", printable(&piece.to_string(), REASON_CHARS));
                self.degraded.push((name.to_owned(), piece));
                line
            }),
        };
        debug_assert!(written.is_ok(), "writing to a string does not fail");
    }
}

impl HealthChecks {
    /// Adds a liveness check. A part that waits for another process must not fail it: a restart would not help.
    pub fn live<R: Into<CheckResult>>(&self, name: impl Into<String>, check: impl Fn() -> R + Send + Sync + 'static) {
        self.add(HealthProbe::Live, name.into(), Box::new(move || check().into()));
    }

    /// Adds a readiness check.
    pub fn ready<R: Into<CheckResult>>(&self, name: impl Into<String>, check: impl Fn() -> R + Send + Sync + 'static) {
        self.add(HealthProbe::Ready, name.into(), Box::new(move || check().into()));
    }

    fn add(&self, probe: HealthProbe, name: String, check: Check) {
        self.checks.write().unwrap_or_else(PoisonError::into_inner).push((probe, name, check));
    }

    /// Runs every check of a probe.
    #[must_use]
    pub fn report(&self, probe: HealthProbe) -> HealthReport {
        let mut report = HealthReport { is_fine: true, degraded: Vec::new(), text: String::new() };
        let checks = self.checks.read().unwrap_or_else(PoisonError::into_inner);
        for (_, name, check) in checks.iter().filter(|(registered, _, _)| *registered == probe) {
            report.add(name, check());
        }
        report
    }

    /// Logs each piece that becomes degraded, and each that works again, and sets the metric, for as long as the future is polled.
    /// `process` names the process in both.
    pub async fn watch(self, process: &'static str) {
        let mut watch = DegradedWatch { process, known: BTreeMap::new() };
        let mut every = tokio::time::interval(WATCH_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            watch.look(self.report(HealthProbe::Ready).degraded);
        }
    }
}

/// A check and a place.
type Piece = (String, String);

/// The degraded pieces that were reported.
struct DegradedWatch {
    process: &'static str,
    /// The reason of each, by check and place.
    known: BTreeMap<Piece, String>,
}

impl DegradedWatch {
    fn look(&mut self, degraded: Vec<(String, DegradedPiece)>) {
        let (process, before) = (self.process, self.known.clone());
        for ((check, place), reason) in self.newly_degraded(degraded) {
            tracing::error!(process, check, place, reason = %printable(&reason, REASON_CHARS), "degraded");
        }
        for (check, place) in before.keys().filter(|piece| !self.known.contains_key(piece)) {
            tracing::info!(process, check, place, "no longer degraded");
        }
        let checks: BTreeSet<&String> = before.keys().chain(self.known.keys()).map(|(check, _)| check).collect();
        for check in checks {
            let pieces = self.known.keys().filter(|(of, _)| of == check).count();
            let labels = [("process", process.to_owned()), ("check", check.clone())];
            metrics::gauge!(metric::DEGRADED, &labels).set(u32::try_from(pieces).unwrap_or(u32::MAX));
        }
    }

    /// The pieces that were not degraded before, with their reasons.
    fn newly_degraded(&mut self, degraded: Vec<(String, DegradedPiece)>) -> Vec<(Piece, String)> {
        let now: BTreeMap<Piece, String> =
            degraded.into_iter().map(|(check, piece)| ((check, piece.place), piece.reason)).collect();
        let before = std::mem::replace(&mut self.known, now);
        let is_new = |(piece, _): &(&Piece, &String)| !before.contains_key(*piece);
        self.known.iter().filter(is_new).map(|(piece, reason)| (piece.clone(), reason.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_if_every_check_passes() {
        let checks = HealthChecks::default();
        assert!(checks.report(HealthProbe::Ready).is_fine, "no check fails");
        checks.ready("registry", || Ok(()));
        checks.ready("view", || Err("3 records\nbehind".to_owned()));
        checks.live("worker", || Ok(()));
        let report = checks.report(HealthProbe::Ready);
        assert!(!report.is_fine);
        assert_eq!(report.text, "[+]registry ok\n[-]view failed: 3 records\u{fffd}behind\n");
        assert!(checks.report(HealthProbe::Live).is_fine);
    }

    #[test]
    fn a_process_with_a_degraded_piece_is_ready_and_names_each_piece() {
        let checks = HealthChecks::default();
        let pieces = || vec![DegradedPiece::new("t/0/7", "no gzip\nat all"), DegradedPiece::new("t/2/9", "zstd")];
        checks.ready("decisions", move || CheckResult::of_pieces(pieces()));
        checks.ready("view", || CheckResult::of_pieces(Vec::new()));
        let report = checks.report(HealthProbe::Ready);
        assert!(report.is_fine);
        assert_eq!(
            report.degraded.iter().map(|(_, piece)| piece.place.as_str()).collect::<Vec<_>>(),
            ["t/0/7", "t/2/9"]
        );
        let lines =
            "[!]decisions degraded: t/0/7: no gzip\u{fffd}at all\n[!]decisions degraded: t/2/9: zstd\n[+]view ok\n";
        assert_eq!(report.text, lines);
    }

    #[test]
    fn parts_together_are_as_bad_as_the_worst_of_them() {
        let failed = || CheckResult::Failed("gone".to_owned());
        let degraded = |place: &str| CheckResult::Degraded(vec![DegradedPiece::new(place, "held")]);
        assert_eq!(CheckResult::Fine.and(CheckResult::Fine), CheckResult::Fine);
        assert_eq!(degraded("a").and(failed()), failed());
        assert_eq!(failed().and(failed()), CheckResult::Failed("gone; gone".to_owned()));
        let both = vec![DegradedPiece::new("a", "held"), DegradedPiece::new("b", "held")];
        assert_eq!(degraded("a").and(degraded("b")), CheckResult::Degraded(both));
    }

    #[test]
    fn a_degraded_piece_is_reported_once_and_again_after_it_has_worked() {
        let mut watch = DegradedWatch { process: "payment", known: BTreeMap::new() };
        let piece = |reason: &str| vec![("decisions".to_owned(), DegradedPiece::new("t/0/7", reason))];
        assert_eq!(watch.newly_degraded(piece("held for 1 s")).len(), 1);
        assert_eq!(watch.newly_degraded(piece("held for 2 s")), []);
        assert_eq!(watch.newly_degraded(Vec::new()), []);
        assert_eq!(watch.newly_degraded(piece("held again"))[0].1, "held again");
    }
}
