//! A broker that has just started may answer that its cluster has no broker. Clients then forget all they know and look for none
//! again; whoever has such a client replaces it, and everything goes on.

use std::sync::Arc;

use chaos::{
    ground::Ground,
    load::Load,
    plan::{Instance, STRUCK},
    proxy::Line,
    stage::{Settings, Stage},
};
use runtime::{Channel, clock, message::topic};

use super::{PATIENCE, executable, named, system, wait_until};

const PARTITIONS: i32 = 2;
/// So many answers without a broker go to each instance before brokers have names again: more than it has clients.
const TOLD: u64 = 12;

#[tokio::test(flavor = "multi_thread")]
async fn services_that_were_told_of_no_broker_find_one_again() {
    let folder = tempfile::tempdir().unwrap();
    let (ground, session_ms) = match named() {
        Some((bootstrap, registry)) => (Ground::foreign(&bootstrap, &registry).await.unwrap(), 6_000),
        None => (Ground::embedded(&executable(), folder.path()).await.unwrap(), 2_500),
    };
    let system = system(folder.path());
    let settings = Settings {
        executable: executable(),
        folder: folder.path().to_owned(),
        system: system.clone(),
        partitions: PARTITIONS,
        session_ms,
    };
    let cast = STRUCK.map(|service| Instance { service, number: 0, is_named: true });
    let stage = Stage::set(settings, &cast, ground).await.unwrap();
    let load = Load::start(Arc::clone(&stage.fleet), 1, 10.0);
    everybody_decides(&stage, &system, 0).await;

    let members = stage.fleet.members();
    let before: Vec<u64> = members.iter().map(|member| member.door().nameless()).collect();
    for member in &members {
        member.line(Line::Cut);
        member.line(Line::Nameless);
    }
    let are_told = || members.iter().zip(&before).all(|(member, before)| member.door().nameless() >= before + TOLD);
    wait_until("every instance is told that there is no broker", are_told).await;
    for member in &members {
        member.line(Line::Open);
    }
    everybody_decides(&stage, &system, clock::now_ms()).await;
    for member in &members {
        member.wait_until_ready(PATIENCE).await.unwrap();
    }

    let answers = load.stop(PATIENCE).await;
    let verdict = stage.settle(&answers, PATIENCE).await.unwrap();
    assert!(verdict.findings.is_empty(), "{:#?}", verdict.findings);
    assert!(verdict.balance.ends.completed > 0);
}

/// Waits until every service has said something in every partition that it decided after `since_ms`.
async fn everybody_decides(stage: &Stage, system: &str, since_ms: i64) {
    let partitions = usize::try_from(PARTITIONS).unwrap();
    let has_decided = |service: &&str| {
        let events = topic(system, service, Channel::Events);
        stage.seen.read(|seen| seen.has_decided(&events, partitions, since_ms))
    };
    wait_until("every service decides", || STRUCK.iter().all(has_decided)).await;
}
