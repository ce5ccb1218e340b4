//! Liveness and readiness of a process, from the checks of its parts.

use std::{
    fmt::Write,
    sync::{Arc, PoisonError, RwLock},
};

/// The result of one check: healthy, or the reason why not.
pub type CheckResult = Result<(), String>;

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
    /// Every check passed.
    pub is_fine: bool,
    /// A line per check, in Kubernetes' format.
    pub text: String,
}

impl HealthChecks {
    /// Adds a liveness check. A part that waits for another process must not fail it: a restart would not help.
    pub fn live(&self, name: impl Into<String>, check: impl Fn() -> CheckResult + Send + Sync + 'static) {
        self.add(HealthProbe::Live, name.into(), Box::new(check));
    }

    /// Adds a readiness check.
    pub fn ready(&self, name: impl Into<String>, check: impl Fn() -> CheckResult + Send + Sync + 'static) {
        self.add(HealthProbe::Ready, name.into(), Box::new(check));
    }

    fn add(&self, probe: HealthProbe, name: String, check: Check) {
        self.checks.write().unwrap_or_else(PoisonError::into_inner).push((probe, name, check));
    }

    /// Runs every check of a probe.
    #[must_use]
    pub fn report(&self, probe: HealthProbe) -> HealthReport {
        let mut report = HealthReport { is_fine: true, text: String::new() };
        let checks = self.checks.read().unwrap_or_else(PoisonError::into_inner);
        for (_, name, check) in checks.iter().filter(|(registered, _, _)| *registered == probe) {
            let result = check();
            report.is_fine &= result.is_ok();
            let written = match result {
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
}
