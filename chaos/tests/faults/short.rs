//! A short run: eight faults of eight kinds, then everything settles and the audit is clean.

use std::process::Command;

use super::{executable, external, system};

/// This seed draws eight short faults: of instances, of the broker, and of the connections.
const SEED: &str = "399";

#[test]
fn after_eight_faults_all_checks_pass() {
    let folder = tempfile::tempdir().unwrap();
    let mut chaos = Command::new(executable());
    chaos.args(["--seed", SEED, "--faults", "8", "--rate", "5", "--partitions", "2"]);
    match external() {
        Some((bootstrap, registry)) => {
            chaos.args(["--bootstrap", &bootstrap, "--registry", &registry, "--system", &system(folder.path())])
        }
        None => chaos.args(["--session-ms", "1500"]),
    };
    let output = chaos.args(["--settle", "90", "--data"]).arg(folder.path()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (report, notes) = (text(&output.stdout), text(&output.stderr));
    let passed =
        output.status.success() && report.contains("result: all checks passed") && report.contains("audit: clean");
    if !passed {
        // The logs of all processes explain a failure.
        eprintln!("data and logs are kept in {}", folder.keep().display());
    }
    assert!(passed, "{}\n{report}\n{notes}", output.status);
}

#[test]
fn a_seed_always_prints_the_same_plan() {
    let plan = |seed: &str| {
        let output =
            Command::new(executable()).args(["--plan-only", "--faults", "30", "--seed", seed]).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(plan("7"), plan("7"));
    assert_ne!(plan("7"), plan("8"));
    assert_eq!(plan("7").lines().filter(|line| line.contains("after ")).count(), 30);
}
