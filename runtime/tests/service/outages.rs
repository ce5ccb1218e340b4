//! A registry that lags: a record whose schema it does not have yet is waited for, with its place on `/readyz`, and is no letter.

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{Method, StatusCode, Uri},
    response::IntoResponse,
};
use std::sync::atomic::AtomicUsize;

use super::*;

/// A replica of the registry that does not have one of its schemas, until it is let on.
#[derive(Clone)]
struct Replica {
    behind: String,
    missing: u32,
    has_caught_up: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
}

impl Replica {
    /// Starts to serve. Answers its address.
    async fn serve(&self) -> String {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().fallback(pass_on).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        format!("http://{address}")
    }
}

async fn pass_on(State(replica): State<Replica>, method: Method, uri: Uri, body: Bytes) -> impl IntoResponse {
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
async fn a_schema_that_a_lagging_registry_has_only_later_is_waited_for() {
    let stage = Stage::set().await;
    let keys = key_per_partition();
    stage.ping(&keys[0], &keys[0], "count", 1).await;
    let written = stage.read(&source(&stage))[0].value.clone().unwrap();
    let replica = Replica {
        behind: stage.cluster.config.registry_url.clone(),
        missing: u32::from_be_bytes(written[1..5].try_into().unwrap()),
        has_caught_up: Arc::default(),
        refused: Arc::default(),
    };
    let timeouts =
        runtime::config::Timeouts { schema: runtime::config::default::SCHEMA, ..stage.cluster.config.timeouts };
    let config = Config { registry_url: replica.serve().await, timeouts, ..stage.config() };
    let running = start(config, stage.probe.clone(), stage.world.clone(), axum::Router::new()).await.unwrap();
    stage.edge.publish::<Command>([Outgoing::new(keys[1].clone(), Count { amount: 100 })], PATIENCE).await.unwrap();
    stage.until_counted(100).await;
    // At 0, 0.5, 1.5 and 3.5 s: longer than any replica of a healthy registry lags.
    stage.until("four answers", |_| (replica.refused.load(Ordering::SeqCst) >= 4).then_some(())).await;
    let health = running.health();
    let place = format!("{}/0/0: schema {} is not in the registry", source(&stage), replica.missing);
    assert!(health.is_live && !health.is_ready && health.text.contains(&place), "{}", health.text);
    assert_eq!(stage.dead_letters().len(), 0, "nothing is given up");
    replica.has_caught_up.store(true, Ordering::SeqCst);
    stage.until_counted(101).await;
    tokio::time::timeout(PATIENCE, running.ready()).await.expect("well again").unwrap();
    assert!(running.stop().await);
    assert_eq!(stage.dead_letters().len(), 0);
    assert_whole(&stage.events());
}

fn source(stage: &Stage) -> String {
    stage.topic("source", runtime::Channel::Events)
}
