//! The HTTP API through a real socket and the shipped client.

use std::time::Duration;

use projector::{
    Board, api,
    client::{ClientError, ProjectorClient},
    http,
    query::SagaFilter,
    render,
};
use runtime::health::{DegradedPiece, HealthChecks};
use tokio::{net::TcpListener, sync::watch};

use crate::support::{COMPLETED, Log, SHORT};

/// A board that is served until this is dropped.
pub(crate) struct Served {
    pub(crate) board: Board,
    pub(crate) client: ProjectorClient,
    pub(crate) url: String,
    ending: watch::Sender<bool>,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Served {
    pub(crate) async fn start(log: &Log) -> Self {
        let board = Board::new(log.view());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let (ending, ended) = watch::channel(false);
        let (checks, checked) = (HealthChecks::default(), board.clone());
        checks.ready("sagas", move || checked.check());
        let task = tokio::spawn(http::serve(listener, board.clone(), checks, ended));
        Self { board, client: ProjectorClient::new(&url).expect("an address"), url, ending, task }
    }

    async fn stop(self) {
        self.ending.send_replace(true);
        let ended = tokio::time::timeout(Duration::from_secs(10), self.task).await;
        ended.expect("the server stops in time").expect("it does not panic").expect("it stops without error");
    }

    /// Status, content type and body.
    async fn get(&self, path: &str) -> (u16, String, serde_json::Value) {
        let response = reqwest::get(format!("{}{path}", self.url)).await.expect("an answer");
        let kind = response.headers()["content-type"].to_str().expect("text").to_owned();
        let status = response.status().as_u16();
        let body = response.bytes().await.expect("a body");
        (status, kind, serde_json::from_slice(&body).unwrap_or_default())
    }
}

fn hundred() -> Log {
    let mut log = Log::default();
    for number in 0..100 {
        let events: &[&str] = if number % 2 == 0 { &COMPLETED } else { &SHORT[..6] };
        log.append_all(&format!("o-{number}"), events);
    }
    log
}

#[tokio::test]
async fn a_list_is_paged_filtered_and_has_its_read_progress() {
    let served = Served::start(&hundred()).await;
    let mut filter = SagaFilter::default();
    filter.set("state", "compensating").expect("a key");
    let (mut ids, mut cursor) = (Vec::new(), None);
    loop {
        let page = served.client.list(&filter, 8, cursor.as_deref()).await.expect("a page");
        assert!(page.items.iter().all(|saga| saga.state == "compensating"));
        assert_eq!(page.as_of.epoch, 1);
        ids.extend(page.items.into_iter().map(|saga| saga.id));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 50);
    let counts = served.client.counts().await.expect("counts");
    assert_eq!((counts.sagas[0].total, counts.sagas[0].open), (100, 50));
    served.stop().await;
}

#[tokio::test]
async fn one_saga_is_shown_with_its_steps_and_timeline() {
    let served = Served::start(&hundred()).await;
    let reply = served.client.show_all("o-4", None).await.expect("the saga");
    assert_eq!((reply.saga.saga.state.as_str(), reply.saga.timeline.len()), ("completed", 21));
    assert!(reply.saga.nodes.iter().all(|node| node.status == "done"), "{:?}", reply.saga.nodes);
    let page = served.client.timeline("o-4", None, Some("15")).await.expect("the rest");
    assert_eq!(
        (page.items.len(), page.items[0].event.as_str()),
        (6, "com.musiccorp.notifications.NotificationRequested")
    );
    let text = render::show(&reply);
    assert!(text.starts_with("order-fulfilment  o-4  completed (completed)\nCompleted: paid, shipped"), "{text}");
    assert!(text.contains("musiccorp.warehouse.events/0/") && text.contains("OrderAudited (not declared)"), "{text}");
    assert!(served.client.show("o-4711", None).await.expect_err("not there").is_not_found());
    served.stop().await;
}

#[tokio::test]
async fn an_invalid_query_gets_a_problem_that_names_the_nearest_key() {
    let served = Served::start(&hundred()).await;
    for (path, status, kind, expected) in [
        (
            "/api/v1/sagas?stat=running",
            400,
            "/problems/bad-filter",
            "\"stat\" is not a known parameter; did you mean \"state\"?",
        ),
        ("/api/v1/sagas?flag=stuk", 400, "/problems/bad-filter", "did you mean \"stuck\"?"),
        ("/api/v1/sagas?limit=0", 400, "/problems/bad-filter", "limit \"0\" is not a number from 1 to 500"),
        ("/api/v1/sagas?limit=501", 400, "/problems/bad-filter", "limit \"501\""),
        ("/api/v1/sagas?state=running&state=failed", 400, "/problems/bad-filter", "\"state\" is given twice"),
        ("/api/v1/sagas?cursor=nonsense", 400, "/problems/cursor-mismatch", "does not belong to this list"),
        ("/api/v1/sagas?cursor=9.1.1", 410, "/problems/cursor-expired", "list again"),
        ("/api/v1/sagas?cursor=1.1.1", 400, "/problems/cursor-mismatch", "does not belong to this list"),
        ("/api/v1/sagas/changes?since=later", 400, "/problems/bad-filter", "is not an epoch and a revision"),
        ("/api/v1/sagas/changes?wait=3600", 400, "/problems/bad-filter", "wait \"3600\" is not a number from 0 to 60"),
        ("/api/v1/sagas/o-1?saga=order-fulfillment", 400, "/problems/bad-filter", "did you mean \"order-fulfilment\"?"),
        ("/api/v1/sagas/nobody", 404, "/problems/not-found", "no saga has the id \"nobody\""),
        (
            "/api/v1/snapshots/77/sagas/order-fulfilment/o-1",
            410,
            "/problems/cursor-expired",
            "snapshot 77 is not known",
        ),
        ("/api/v1/snapshot?form=long", 400, "/problems/bad-filter", "neither \"full\" nor \"digest\""),
        ("/nowhere", 404, "/problems/not-found", "no resource has this path"),
    ] {
        let (found, content, body) = served.get(path).await;
        assert_eq!((found, content.as_str()), (status, "application/problem+json"), "{path}: {body}");
        assert_eq!(body["type"], kind, "{path}: {body}");
        assert!(body["detail"].as_str().is_some_and(|detail| detail.contains(expected)), "{path}: {body}");
    }
    served.stop().await;
}

#[tokio::test]
async fn a_waiting_reader_receives_a_change_or_an_empty_reply_after_its_wait() {
    let mut log = Log::default();
    log.append_all("o-1", &COMPLETED[..6]);
    let served = Served::start(&log).await;
    let filter = SagaFilter::default();
    let start = served.client.changes(&filter, None, Duration::ZERO).await.expect("an answer");
    assert!(start.changes.is_empty() && !start.reset);
    let later = log.append_all("o-1", &["payment/PaymentTaken"]).records.last().expect("a record").clone();
    let waiting = served.client.changes(&filter, Some(&start.next), Duration::from_secs(30));
    let writing = async {
        served.board.write(|view| {
            later.fold_into(view);
            view.commit(0)
        })
    };
    let (changes, _) = tokio::join!(waiting, writing);
    let changes = changes.expect("an answer");
    let [api::SagaChange::Upsert { saga }] = &changes.changes[..] else { panic!("{changes:?}") };
    assert_eq!(saga.waiting[0].step, "confirm");
    assert!(render::change(&changes.changes[0]).contains("Money taken; waiting for the order processor"));
    let quiet = served.client.changes(&filter, Some(&changes.next), Duration::from_secs(1)).await.expect("an answer");
    assert!(quiet.changes.is_empty());
    let gone = served.client.changes(&filter, Some("0.5"), Duration::ZERO).await.expect("an answer");
    assert!(gone.reset, "an unknown epoch requires a new list");
    served.stop().await;
}

#[tokio::test]
async fn waiting_readers_do_not_delay_shutdown() {
    let served = Served::start(&hundred()).await;
    let client = served.client.clone();
    let waiting =
        tokio::spawn(async move { client.changes(&SagaFilter::default(), None, Duration::from_secs(60)).await });
    // The reader waits once it is subscribed to the board.
    let subscribed = async {
        while served.board.listeners() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), subscribed).await.expect("the request arrives");
    served.stop().await;
    waiting.await.expect("no panic").expect("an answer, though an empty one");
}

#[tokio::test]
async fn it_is_ready_once_it_has_caught_up_and_not_while_reading_is_degraded() {
    let served = Served::start(&hundred()).await;
    assert_eq!(served.get("/livez").await.0, 200);
    assert_eq!(served.get("/readyz").await.0, 503);
    served.board.set_read_progress(projector::board::ReadProgress { caught_up: true, ..Default::default() });
    assert_eq!(served.get("/readyz").await.0, 200);
    served.board.set_read_progress(projector::board::ReadProgress {
        degraded_reason: Some("no broker".to_owned()),
        ..Default::default()
    });
    assert_eq!(served.get("/readyz").await.0, 503);
    let (_, _, health) = served.get("/api/v1/health").await;
    assert_eq!((&health["status"], &health["degraded_reason"]), (&"degraded".into(), &"no broker".into()));
    assert_eq!(health["positions"]["musiccorp.loyalty.events"]["0"], 99, "50 records, each with a marker after it");
    served.board.set_read_progress(projector::board::ReadProgress {
        caught_up: true,
        held: vec![DegradedPiece::new("musiccorp.loyalty.events/0/7", "not gzip")],
        ..Default::default()
    });
    assert_eq!(served.get("/readyz").await.0, 200, "the other partitions are read on");
    assert_eq!(served.get("/readyz?strict").await.0, 503);
    let (_, _, health) = served.get("/api/v1/health").await;
    assert_eq!((&health["status"], &health["as_of"]["held"][0]["reason"]), (&"degraded".into(), &"not gzip".into()));
    let (_, _, declarations) = served.get("/api/v1/declarations").await;
    assert_eq!(declarations["items"][0]["outcomes"][2]["name"], "short");
    served.stop().await;
}

#[tokio::test]
async fn an_unreachable_projector_is_reported_with_its_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    drop(listener);
    let error = ProjectorClient::new(&url).expect("an address").counts().await.expect_err("unreachable");
    assert!(
        matches!(&error, ClientError::Unreachable { .. }) && error.to_string().contains("is it running?"),
        "{error}"
    );
    assert!(matches!(ProjectorClient::new("localhost 80"), Err(ClientError::Address(_))));
}

#[test]
fn text_from_events_cannot_move_the_cursor_or_change_the_direction_of_writing() {
    let hostile = "o-1\u{1b}[2J\r\n\u{202e}<script>\u{200b}\u{7}";
    assert_eq!(render::plain(hostile), "o-1\\u{1b}[2J\\u{d}\\u{a}\\u{202e}<script>\\u{200b}\\u{7}");
    let mut log = Log::default();
    log.append_all(hostile, &COMPLETED[..3]);
    let view = log.view();
    let items = view.list(&SagaFilter::default(), None, 10).expect("a valid filter").items;
    let as_of = Board::new(folded_nothing()).as_of(&view);
    let text = render::list(&api::SagaList { items, next: None, as_of });
    assert!(text.contains("\\u{1b}[2J") && !text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text}");
}

fn folded_nothing() -> projector::SagaView {
    crate::support::folded([])
}
