//! Runs the suite on the Kafka and registry that the environment names: `scripts/kafka.sh run -- cargo test -p conformance`.

use std::env;

use conformance::{CheckFilter, TestTarget, run_each};

#[test]
fn the_named_kafka_and_registry_conform() {
    let (Ok(bootstrap), Ok(registry)) = (env::var("DACAPO_TEST_KAFKA"), env::var("DACAPO_TEST_REGISTRY")) else {
        eprintln!("skipped: DACAPO_TEST_KAFKA and DACAPO_TEST_REGISTRY are not set (scripts/kafka.sh run sets them)");
        return;
    };
    let target = TestTarget { bootstrap, registry, exact_confluent_codes: false };
    let report = run_each(&target, &CheckFilter::all(), |outcome| eprintln!("{outcome}"));
    let failed: Vec<String> = report.failed().map(ToString::to_string).collect();
    assert!(report.passed(), "{}:\n{}", report.summary(), failed.join("\n"));
}
