//! A broker that has just started may return metadata without brokers. A client then loses all addresses and never reconnects. The
//! runtime replaces such a client, and the services continue.

use std::sync::Arc;

use chaos::{
    environment::{Environment, EnvironmentSettings},
    infrastructure::Infrastructure,
    load::Load,
    plan::{FAULTED_SERVICES, Instance},
    proxy::ProxyMode,
};
use runtime::{Channel, clock, message::topic};

use super::{PATIENCE, executable, external, system, wait_until};

const PARTITIONS: i32 = 2;
/// How many metadata responses without brokers each instance gets: more than it has clients.
const EMPTY_RESPONSES: u64 = 12;

#[tokio::test(flavor = "multi_thread")]
async fn services_recover_from_metadata_without_brokers() {
    let folder = tempfile::tempdir().unwrap();
    let (infrastructure, session_ms) = match external() {
        Some((bootstrap, registry)) => (Infrastructure::external(&bootstrap, &registry).await.unwrap(), 6_000),
        None => (Infrastructure::embedded(&executable(), folder.path()).await.unwrap(), 2_500),
    };
    let system = system(folder.path());
    let settings = EnvironmentSettings {
        executable: executable(),
        folder: folder.path().to_owned(),
        system: system.clone(),
        partitions: PARTITIONS,
        session_ms,
    };
    let initial_instances = FAULTED_SERVICES.map(|service| Instance { service, number: 0, is_named: true });
    let environment = Environment::start(settings, &initial_instances, infrastructure).await.unwrap();
    let load = Load::start(Arc::clone(&environment.instances), 1, 10.0);
    all_services_decide(&environment, &system, 0).await;

    let instances = environment.instances.all();
    let before: Vec<u64> = instances.iter().map(|running| running.proxy().without_brokers_sent()).collect();
    for running in &instances {
        running.set_connections(ProxyMode::Disconnected);
        running.set_connections(ProxyMode::NoBrokers);
    }
    let have_responses = || {
        instances
            .iter()
            .zip(&before)
            .all(|(running, before)| running.proxy().without_brokers_sent() >= before + EMPTY_RESPONSES)
    };
    wait_until("every instance gets metadata without brokers", have_responses).await;
    for running in &instances {
        running.set_connections(ProxyMode::Open);
    }
    all_services_decide(&environment, &system, clock::now_ms()).await;
    for running in &instances {
        running.wait_until_ready(PATIENCE).await.unwrap();
    }

    let results = load.stop(PATIENCE).await;
    let result = environment.settle(&results, PATIENCE).await.unwrap();
    assert!(result.findings.is_empty(), "{:#?}", result.findings);
    assert!(result.audit.orders.completed > 0);
}

/// Waits until every partition of every service has an event that was decided after `since_ms`.
async fn all_services_decide(environment: &Environment, system: &str, since_ms: i64) {
    let partitions = usize::try_from(PARTITIONS).unwrap();
    let has_decided = |service: &&str| {
        let events = topic(system, service, Channel::Events);
        environment.observed.read(|seen| seen.has_decided(&events, partitions, since_ms))
    };
    wait_until("every service decides", || FAULTED_SERVICES.iter().all(has_decided)).await;
}
