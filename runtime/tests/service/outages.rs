//! Dependencies that fail for a while: a registry that does not have a schema yet, a full disk. The service retries, `/readyz` names
//! the cause, and nothing is lost or done twice.

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{Method, StatusCode, Uri},
    response::IntoResponse,
};
use std::sync::atomic::AtomicUsize;

use super::*;

/// A replica of the registry that lacks one schema until `has_caught_up` is set.
#[derive(Clone)]
struct Replica {
    behind: String,
    missing: u32,
    has_caught_up: Arc<AtomicBool>,
    is_down: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
}

impl Replica {
    /// A replica of the cluster's registry that lacks a schema.
    fn of(stage: &ServiceFixture, missing: u32) -> Self {
        let behind = stage.cluster.config.registry_url.clone();
        let (has_caught_up, is_down, refused) = (Arc::default(), Arc::default(), Arc::default());
        Self { behind, missing, has_caught_up, is_down, refused }
    }

    /// Starts to serve. Returns its address.
    async fn serve(&self) -> String {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().fallback(pass_on).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        format!("http://{address}")
    }
}

async fn pass_on(State(replica): State<Replica>, method: Method, uri: Uri, body: Bytes) -> impl IntoResponse {
    if replica.is_down.load(Ordering::SeqCst) {
        return (StatusCode::SERVICE_UNAVAILABLE, r#"{"error_code":50301,"message":"down"}"#.to_owned());
    }
    let of_missing = uri.path().ends_with(&format!("/schemas/ids/{}", replica.missing));
    if of_missing && !replica.has_caught_up.load(Ordering::SeqCst) {
        replica.refused.fetch_add(1, Ordering::SeqCst);
        return (StatusCode::NOT_FOUND, r#"{"error_code":40403,"message":"Schema not found"}"#.to_owned());
    }
    let url = format!("{}{}", replica.behind, uri.path_and_query().map_or("", |path| path.as_str()));
    let request = reqwest::Client::new().request(method, url).header("content-type", "application/json").body(body);
    let answer = request.send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_producer_of_answers_is_replaced() {
    let stage = ServiceFixture::set().await;
    let running = stage.start().await;
    stage.ping("order-1", "order-1", "ask", 1).await;
    let accepted = |stage: &ServiceFixture| {
        stage.bodies().iter().filter(|(_, event)| matches!(event, Event::ReplyAccepted(_))).count()
    };
    stage.until("the accepted answer", |stage| (accepted(stage) == 1).then_some(())).await;
    let inbox = stage.topic("probe", runtime::Channel::Inbox);
    let answer = stage.read(&inbox).pop().expect("an answer");
    crate::raw::steal_sequence(&stage.cluster.config.bootstrap, &inbox, answer.partition, answer.offset);
    stage.ping("order-1", "order-1", "ask", 2).await;
    stage.until("another accepted answer", |stage| (accepted(stage) == 2).then_some(())).await;
    assert!(running.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_a_lagging_registry_lacks_at_first_is_retried() {
    let stage = ServiceFixture::set().await;
    let keys = key_per_partition();
    stage.ping(&keys[0], &keys[0], "count", 1).await;
    let written = stage.read(&source(&stage))[0].value.clone().unwrap();
    let replica = Replica::of(&stage, u32::from_be_bytes(written[1..5].try_into().unwrap()));
    let timeouts =
        runtime::config::Timeouts { schema: runtime::config::default::SCHEMA, ..stage.cluster.config.timeouts };
    let config = Config { registry_url: replica.serve().await, timeouts, ..stage.config() };
    let running = start(config, stage.probe.clone(), stage.world.clone(), axum::Router::new()).await.unwrap();
    stage.edge.publish::<Command>([Outgoing::new(keys[1].clone(), Count { amount: 100 })], PATIENCE).await.unwrap();
    stage.until_counted(100).await;
    // At 0, 0.5, 1.5 and 3.5 s: longer than a replica of a healthy registry lags.
    stage.until("four answers", |_| (replica.refused.load(Ordering::SeqCst) >= 4).then_some(())).await;
    let health = running.health();
    let place = format!("{}/0/0: schema {} is not in the registry", source(&stage), replica.missing);
    assert!(health.is_ready && health.is_degraded && health.text.contains(&place), "{}", health.text);
    assert_eq!(stage.dead_letters().len(), 0, "nothing is dead-lettered");
    replica.has_caught_up.store(true, Ordering::SeqCst);
    stage.until_counted(101).await;
    tokio::time::timeout(PATIENCE, running.ready()).await.expect("ready again").unwrap();
    assert!(running.stop().await);
    assert_eq!(stage.dead_letters().len(), 0);
    assert_whole(&stage.events());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_moves_while_the_registry_is_down_needs_no_schema_that_its_process_writes_or_has_read() {
    let stage = ServiceFixture::set().await;
    let replica = Replica::of(&stage, 0);
    let config = Config { registry_url: replica.serve().await, ..stage.config() };
    let running = stage.start_as(config).await;
    let keys = key_per_partition();
    stage.pings(keys.iter().map(|key| (key.as_str(), key.as_str(), "count", 1))).await;
    stage.until_counted(2).await;
    replica.is_down.store(true, Ordering::SeqCst);
    // Its own events were written by this process and never read. Another instance joins, so that partitions are recovered again.
    let second = stage.start().await;
    stage.until("one partition each", |_| ((running.deciding(), second.deciding()) == (1, 1)).then_some(())).await;
    stage.until("it is ready", |_| running.health().is_ready.then_some(())).await;
    stage.pings(keys.iter().map(|key| (key.as_str(), key.as_str(), "count", 1))).await;
    stage.until_counted(4).await;
    assert!(replica.is_down.load(Ordering::SeqCst) && running.stop().await && second.stop().await);
    assert_whole(&stage.events());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_was_parked_for_a_missing_schema_is_retried_with_the_registry_asked_anew() {
    let mut stage = ServiceFixture::set().await;
    stage.probe.keyed_alike = true;
    let key = key_per_partition()[0].clone();
    stage.ping(&key, &key, "count", 1).await;
    let written = stage.read(&source(&stage))[0].value.clone().unwrap();
    let replica = Replica::of(&stage, u32::from_be_bytes(written[1..5].try_into().unwrap()));
    let timeouts = runtime::config::Timeouts { schema: Duration::from_millis(300), ..stage.cluster.config.timeouts };
    let config = Config { registry_url: replica.serve().await, timeouts, ..stage.config() };
    let running = start(config, stage.probe.clone(), stage.world.clone(), axum::Router::new()).await.unwrap();
    let place = format!("{}/0/0", source(&stage));
    let parked = |stage: &ServiceFixture| stage.parked().contains_key(&place).then_some(());
    stage.until("a parked record", parked).await;
    replica.has_caught_up.store(true, Ordering::SeqCst);
    // The answer "not found" is remembered for a minute, which is longer than this test waits.
    stage.ask(&key, RetryParked { position: place.clone(), by: "ada".to_owned() });
    stage.until_counted(1).await;
    assert!(stage.parked().is_empty());
    assert!(running.stop().await);
}

fn source(stage: &ServiceFixture) -> String {
    stage.topic("source", runtime::Channel::Events)
}

/// Why the test is skipped.
const NO_PRLIMIT: &str = "skipped: prlimit, which simulates the full disk, is not installed";
/// Set in the process whose disk is full.
const FULL: &str = "DACAPO_DISK_FULL";

/// Runs this test in a process of its own, which gets the error of a full disk instead of the signal. `None` without prlimit.
fn on_a_disk_of_its_own(test: &str) -> Option<std::process::Command> {
    if std::process::Command::new("prlimit").arg("--version").output().is_err() {
        return None;
    }
    let mut process = std::process::Command::new("sh");
    process.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]).arg(std::env::current_exe().unwrap());
    process.args(["--exact", &format!("outages::{test}"), "--nocapture"]).env(FULL, "1");
    Some(process)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Forbids or allows the files of this process to grow. A forbidden write fails as on a full disk.
fn files_may_grow(may: bool) {
    let soft = if may { "--fsize=unlimited:" } else { "--fsize=1:" };
    let pid = std::process::id().to_string();
    let changed = std::process::Command::new("prlimit").args(["--pid", &pid, soft]).status().unwrap();
    assert!(changed.success());
}

#[test]
fn a_full_disk_is_retried_until_it_has_room() {
    if std::env::var(FULL).is_ok() {
        return runtime().block_on(on_a_full_disk());
    }
    let Some(mut process) = on_a_disk_of_its_own("a_full_disk_is_retried_until_it_has_room") else {
        return eprintln!("{NO_PRLIMIT}");
    };
    let output = process.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn on_a_full_disk() {
    let stage = ServiceFixture::on(Cluster::start_embedded("probe").await).await;
    let running = stage.start().await;
    let key = key_per_partition()[0].clone();
    stage.ping(&key, &key, "count", 1).await;
    stage.until_counted(1).await;
    assert!(running.stop().await);
    stage.pings((0..10).map(|_| (key.as_str(), key.as_str(), "count", 1))).await;
    files_may_grow(false);
    let running = start(stage.config(), stage.probe.clone(), stage.world.clone(), axum::Router::new()).await.unwrap();
    stage
        .until("a service that reports the full disk", |_| {
            let health = running.health();
            assert!(health.is_live, "it can continue as soon as there is room: {}", health.text);
            (!health.is_ready && health.text.contains("Disk error")).then_some(())
        })
        .await;
    assert_eq!(stage.counted(), 1, "no partial batch is visible");
    files_may_grow(true);
    tokio::time::timeout(2 * PATIENCE, running.ready()).await.expect("ready again").unwrap();
    stage.until_counted(11).await;
    assert!(running.stop().await);
    assert_eq!(stage.counted(), 11, "each once");
    assert_whole(&stage.events());
}

#[test]
fn a_full_store_costs_only_its_checkpoint() {
    let runtime = runtime();
    if std::env::var(FULL).is_ok() {
        return runtime.block_on(with_a_full_store());
    }
    let Some(mut process) = on_a_disk_of_its_own("a_full_store_costs_only_its_checkpoint") else {
        return eprintln!("{NO_PRLIMIT}");
    };
    // The broker has its own disk.
    let cluster = runtime.block_on(Cluster::start("probe"));
    process
        .env("DACAPO_TEST_KAFKA", &cluster.config.bootstrap)
        .env("DACAPO_TEST_REGISTRY", &cluster.config.registry_url);
    let output = process.env("RUST_LOG", "info").output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("the last checkpoint is not saved"), "the store was never full: {said}");
}

async fn with_a_full_store() {
    let (stage, data) = (ServiceFixture::set().await, tempfile::tempdir().unwrap());
    let on = |folder: &str| Config {
        data_dir: Some(data.path().join(folder)),
        instance: Some("a".to_owned()),
        ..stage.config()
    };
    let running = stage.start_as(on("data")).await;
    let key = key_per_partition()[0].clone();
    let ping = || stage.ping(&key, &key, "count", 1);
    ping().await;
    stage.until_counted(1).await;
    files_may_grow(false);
    stage.pings((0..10).map(|_| (key.as_str(), key.as_str(), "count", 1))).await;
    stage.until_counted(11).await;
    assert!(
        running.health().is_ready,
        "a cache that cannot be written does not make it unready: {}",
        running.health().text
    );
    assert!(running.stop().await, "nor does it delay a stop");
    let refused = start(on("elsewhere"), stage.probe.clone(), stage.world.clone(), axum::Router::new()).await;
    let refused = refused.err().map(|error| runtime::telemetry::chain(&error)).unwrap_or_default();
    assert!(refused.contains("store"), "a new store needs room, and the start reports it: {refused:?}");
    files_may_grow(true);
    let running = stage.start_as(on("data")).await;
    ping().await;
    stage.until_counted(12).await;
    assert!(running.stop().await);
    assert_whole(&stage.events());
}
