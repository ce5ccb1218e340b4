//! Runs the suite on the embedded broker and registry in process, with Confluent's exact error codes.

use conformance::{CheckFilter, TestTarget, run_each};
use embedded::broker::{Broker, BrokerConfig};
use embedded::registry::{Level, Registry, RegistryConfig};

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_broker_and_registry_conform() {
    let directory = tempfile::tempdir().expect("a directory");
    let broker =
        Broker::start(BrokerConfig { data_dir: Some(directory.path().join("broker")), ..BrokerConfig::default() })
            .expect("the broker starts");
    let registry = Registry::start(RegistryConfig {
        data_dir: Some(directory.path().join("registry")),
        listen: ([127, 0, 0, 1], 0).into(),
        default_level: Level::FullTransitive,
        fsync: false,
    })
    .await
    .expect("the registry starts");
    let target = TestTarget { bootstrap: broker.bootstrap(), registry: registry.url(), exact_confluent_codes: true };
    let suite = move || run_each(&target, &CheckFilter::all(), |outcome| eprintln!("{outcome}"));
    let report = tokio::task::spawn_blocking(suite).await.expect("the suite ends");
    let failed: Vec<String> = report.failed().map(ToString::to_string).collect();
    assert!(report.passed(), "{}:\n{}", report.summary(), failed.join("\n"));
    registry.stop().await;
    broker.stop().await;
}
