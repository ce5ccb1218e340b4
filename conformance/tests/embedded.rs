//! The suite on the embedded registry and broker, in process, with Confluent's exact error codes.

use std::net::{Ipv4Addr, SocketAddr};

use conformance::{Filter, Target, run_each};
use embedded::registry::{Level, Registry, RegistryConfig};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_registry_conforms() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = RegistryConfig {
        data_dir: Some(directory.path().to_owned()),
        listen: ANY_PORT,
        default_level: Level::FullTransitive,
        fsync: false,
    };
    let registry = Registry::start(config).await.expect("the registry starts");
    // Registry checks ask no broker; nothing listens on the port that reserves itself.
    let target = Target { bootstrap: "127.0.0.1:1".to_owned(), registry: registry.url(), exact_confluent_codes: true };
    check(target, Filter::only("registry")).await;
    registry.stop().await;
}

#[expect(clippy::print_stderr, reason = "what each check saw is the output of this test")]
async fn check(target: Target, filter: Filter) {
    let suite = move || run_each(&target, &filter, |outcome| eprintln!("{outcome}"));
    let report = tokio::task::spawn_blocking(suite).await.expect("the suite ends");
    let failed: Vec<String> = report.failed().map(ToString::to_string).collect();
    assert!(report.passed(), "{}:\n{}", report.summary(), failed.join("\n"));
}
