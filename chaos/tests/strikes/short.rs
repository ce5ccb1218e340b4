//! The short mode: eight faults of eight kinds, then everything settles and the books are clean.

use std::process::Command;

use super::{executable, named, system};

/// Draws eight kinds that do not last long: of instances, of the broker, of what lies between them.
const SEED: &str = "399";

#[test]
fn eight_faults_and_everything_holds() {
    let folder = tempfile::tempdir().unwrap();
    let mut chaos = Command::new(executable());
    chaos.args(["--seed", SEED, "--faults", "8", "--rate", "5", "--partitions", "2"]);
    match named() {
        Some((bootstrap, registry)) => {
            chaos.args(["--bootstrap", &bootstrap, "--registry", &registry, "--system", &system(folder.path())])
        }
        None => chaos.args(["--session-ms", "1500"]),
    };
    let output = chaos.args(["--settle", "90", "--data"]).arg(folder.path()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, noted) = (text(&output.stdout), text(&output.stderr));
    let held = output.status.success() && said.contains("verdict: everything held") && said.contains("audit: clean");
    if !held {
        // The logs of every process are what a failure is understood from.
        eprintln!("data and logs are kept in {}", folder.keep().display());
    }
    assert!(held, "{}\n{said}\n{noted}", output.status);
}

#[test]
fn the_same_seed_prints_the_same_plan() {
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
