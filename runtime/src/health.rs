//! Whether a process lives and is ready, as its parts tell.

use std::{
    fmt::Write,
    sync::{Arc, PoisonError, RwLock},
};

/// What a part says of itself: fine, or why not.
pub type CheckResult = Result<(), String>;

type Check = Box<dyn Fn() -> CheckResult + Send + Sync>;

/// What is asked of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthProbe {
    /// Does it still run as it should, or is it to be started again?
    Live,
    /// May it be given work?
    Ready,
}

/// The parts of a process and what they say. Clones share them. A check answers at once, from what it knows: it asks nobody.
#[derive(Clone, Default)]
pub struct HealthChecks {
    checks: Arc<RwLock<Vec<(HealthProbe, String, Check)>>>,
}

impl std::fmt::Debug for HealthChecks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.report(HealthProbe::Ready).text)
    }
}

/// What all parts said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthReport {
    /// Every part is fine.
    pub is_fine: bool,
    /// A line per part, in the form Kubernetes uses.
    pub text: String,
}

impl HealthChecks {
    /// Adds a part that must be fine for the process to live. A part that waits for something outside is not one.
    pub fn live(&self, name: impl Into<String>, check: impl Fn() -> CheckResult + Send + Sync + 'static) {
        self.add(HealthProbe::Live, name.into(), Box::new(check));
    }

    /// Adds a part that must be fine for the process to be given work.
    pub fn ready(&self, name: impl Into<String>, check: impl Fn() -> CheckResult + Send + Sync + 'static) {
        self.add(HealthProbe::Ready, name.into(), Box::new(check));
    }

    fn add(&self, question: HealthProbe, name: String, check: Check) {
        self.checks.write().unwrap_or_else(PoisonError::into_inner).push((question, name, check));
    }

    /// Asks every part.
    #[must_use]
    pub fn report(&self, question: HealthProbe) -> HealthReport {
        let mut report = HealthReport { is_fine: true, text: String::new() };
        let checks = self.checks.read().unwrap_or_else(PoisonError::into_inner);
        for (_, name, check) in checks.iter().filter(|(asked, _, _)| *asked == question) {
            let verdict = check();
            report.is_fine &= verdict.is_ok();
            let written = match verdict {
                Ok(()) => writeln!(report.text, "[+]{name} ok"),
                Err(reason) => {
                    writeln!(report.text, "[-]{name} failed: {}", crate::telemetry::printable(&reason, 500))
                }
            };
            debug_assert!(written.is_ok(), "writing to a string does not fail");
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_as_fine_as_its_worst_part() {
        let checks = HealthChecks::default();
        assert!(checks.report(HealthProbe::Ready).is_fine, "nothing to object to");
        checks.ready("registry", || Ok(()));
        checks.ready("view", || Err("3 records\nbehind".to_owned()));
        checks.live("worker", || Ok(()));
        let report = checks.report(HealthProbe::Ready);
        assert!(!report.is_fine);
        assert_eq!(report.text, "[+]registry ok\n[-]view failed: 3 records\u{fffd}behind\n");
        assert!(checks.report(HealthProbe::Live).is_fine);
    }
}
