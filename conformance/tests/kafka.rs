//! The suite on whatever Kafka and registry the environment names: `scripts/kafka.sh run -- cargo test -p conformance`.

use std::env;

use conformance::{Filter, Target, run_each};

#[test]
fn the_named_kafka_and_registry_conform() {
    let (Ok(bootstrap), Ok(registry)) = (env::var("DACAPO_TEST_KAFKA"), env::var("DACAPO_TEST_REGISTRY")) else {
        eprintln!(
            "skipped: DACAPO_TEST_KAFKA and DACAPO_TEST_REGISTRY name no Kafka and registry (scripts/kafka.sh run)"
        );
        return;
    };
    let target = Target { bootstrap, registry, exact_confluent_codes: false };
    let report = run_each(&target, &Filter::all(), |outcome| eprintln!("{outcome}"));
    let failed: Vec<String> = report.failed().map(ToString::to_string).collect();
    assert!(report.passed(), "{}:\n{}", report.summary(), failed.join("\n"));
}
