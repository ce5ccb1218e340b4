//! Keeps a board's view up to date from the topics.
//!
//! Folding runs on the threads of the runtime's views, one record at a time; a task beside them commits what was folded, moves the
//! watermark, looks whether the cluster answers, and takes in topics of dead letters and of what is parked that come to be. Owns
//! that loop. How records get out of Kafka, and bodies out of Avro, is the runtime's business.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use runtime::{
    Config, clock,
    codec::{Decoded, Readers, SchemaRef},
    core::ParkingUpdate,
    kafka::admin::Admin,
    message::PARKED,
    projection::{self, LogRecord, Projection, Topics, ViewError},
    registry::RegistryClient,
};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    board::{Board, Reading},
    fields::Fields,
    record::{Bodies, Body, BodyError, Record},
    view::View,
};

/// What dead-letter topics are called.
const DEAD_LETTERS: &str = "dlq.";
/// The least time between two commits, and the most while nothing comes.
const COMMIT_AFTER: Duration = Duration::from_millis(20);
const COMMIT_WHEN_IDLE: Duration = Duration::from_millis(500);
/// How often the cluster is asked for its topics.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// For how long partitions that gave old records hold the watermark back.
const HOLDS_BACK: Duration = Duration::from_secs(2);
/// How many schemas the registry is asked about in one go.
const VERSIONS_AT_ONCE: usize = 64;
/// How many readers there may be: one for what was there at the start, the others for what came later.
const READERS_MAX: usize = 32;

/// Folds what one reader reads into a shared view.
pub(crate) struct Folder {
    board: Board,
    system: String,
    schemas: BTreeSet<u32>,
}

impl Folder {
    pub(crate) fn new(board: Board, system: &str) -> Self {
        Self { board, system: system.to_owned(), schemas: BTreeSet::new() }
    }

    /// Takes in what a service keeps because it cannot work. What is no such record changes nothing.
    fn fold_parked(&self, seen: &Record<'_>, record: &LogRecord<'_>) {
        match record.with_record(|record| ParkingUpdate::read(&self.system, record)) {
            Ok(news) => self.board.write_last(|view| view.fold_parked(seen, news)),
            Err(error) => tracing::warn!(place = %record.position(), %error, "passed over"),
        }
    }

    /// The record's schema, if it was not met before.
    fn new_schema(&mut self, record: &LogRecord<'_>) -> Option<u32> {
        match record.schema()?.schema {
            SchemaRef::Id(id) => self.schemas.insert(id).then_some(id),
            SchemaRef::Guid(_) => None,
        }
    }
}

impl Projection for Folder {
    fn apply(&mut self, record: &LogRecord<'_>) {
        let headers: Vec<(&str, &[u8])> =
            record.headers().into_iter().flatten().map(|(name, value)| (name, value.unwrap_or_default())).collect();
        let seen = Record {
            topic: record.topic,
            partition: record.partition,
            offset: record.offset,
            at_ms: record.timestamp_ms,
            key: record.key,
            headers: &headers,
            value: record.value,
            readable: record.schema().is_some(),
        };
        if record.topic.ends_with(PARKED) {
            return self.fold_parked(&seen, record);
        }
        let schema = self.new_schema(record);
        let dead = record.topic.starts_with(DEAD_LETTERS);
        let folded = self.board.write_last(|view| {
            if let Some(schema) = schema {
                view.note_version(schema, None);
            }
            view.fold(&seen, dead, &AvroBodies(record.decoded()))
        });
        if let Err(later) = folded {
            // AvroBodies never asks for that: the reader has waited for the schema already.
            tracing::error!(position = %record.position(), "record not folded: {later}");
        }
    }
}

/// Opens the body of the record at hand, if its schema is known.
#[derive(Debug, Clone, Copy)]
pub struct AvroBodies<'a>(pub Option<Decoded<'a>>);

impl Bodies for AvroBodies<'_> {
    fn open(&self, _: &[u8]) -> Result<Body, BodyError> {
        let unreadable = |detail: String| BodyError::Unreadable(detail);
        let decoded = self.0.ok_or_else(|| unreadable("its schema is not known".to_owned()))?;
        let Fields(fields) = decoded.record().read().map_err(|error| unreadable(error.to_string()))?;
        Ok(Body { type_name: decoded.schema.full_name.clone(), fields })
    }
}

/// Splits topics into those whose bodies should be readable, and dead letters and what is parked.
pub(crate) fn topics<'a>(names: impl IntoIterator<Item = &'a str>) -> Topics {
    let is_raw = |name: &&str| name.starts_with(DEAD_LETTERS) || name.ends_with(PARKED);
    let (raw, decoded): (Vec<&str>, Vec<&str>) = names.into_iter().partition(is_raw);
    Topics::decoded(decoded).and_raw(raw)
}

/// Every topic the declarations name, in order.
pub(crate) fn declared_topics(view: &View, system: &str) -> Vec<String> {
    let topics: BTreeSet<String> =
        view.declarations().iter().flat_map(|declaration| declaration.topics_in(system)).collect();
    topics.into_iter().collect()
}

/// The readers of one board.
pub(crate) struct Readings {
    config: Config,
    readers: Readers,
    registry: RegistryClient,
    board: Board,
    admin: Admin,
    views: Vec<projection::LiveView<Folder>>,
    topics: Vec<String>,
    /// The question under way: which topics there are.
    asking: Option<JoinHandle<Result<Vec<String>, String>>>,
    /// Why the cluster does not answer, if it does not.
    silent: Option<String>,
    /// Until when the watermark is held back, and where.
    held: Option<(Instant, i64)>,
}

impl Readings {
    /// Starts to read the declared topics.
    pub(crate) fn start(
        config: &Config,
        registry: RegistryClient,
        admin: Admin,
        board: Board,
    ) -> Result<Self, ViewError> {
        let topics = declared_topics(&board.view(), &config.system);
        let mut readings = Self {
            config: config.clone(),
            readers: Readers::new(Arc::new(registry.clone())),
            registry,
            board,
            admin,
            views: Vec::new(),
            topics: Vec::new(),
            asking: None,
            silent: None,
            held: None,
        };
        readings.read(topics)?;
        Ok(readings)
    }

    fn read(&mut self, more: Vec<String>) -> Result<(), ViewError> {
        let purpose = format!("sagas-{}", self.views.len());
        let topics = topics(more.iter().map(String::as_str));
        let folder = Folder::new(self.board.clone(), &self.config.system);
        self.views.push(projection::LiveView::start(&self.config, &purpose, self.readers.clone(), topics, folder)?);
        self.topics.extend(more);
        Ok(())
    }

    /// Commits, looks around, and waits for more, until it is told to end.
    pub(crate) async fn run(mut self, mut ending: watch::Receiver<bool>) {
        let mut ask_at = Instant::now();
        while !*ending.borrow_and_update() {
            if ask_at <= Instant::now() && self.asking.is_none() {
                self.ask();
                ask_at = Instant::now() + ASK_EVERY;
            }
            self.heed_answer().await;
            let mut news = self.news();
            self.commit();
            tokio::select! {
                _ = ending.changed() => return,
                () = tokio::time::sleep(COMMIT_AFTER) => {}
            }
            tokio::select! {
                _ = ending.changed() => return,
                () = any_news(&mut news) => {}
                () = tokio::time::sleep(COMMIT_WHEN_IDLE) => {}
            }
        }
    }

    fn news(&self) -> Vec<watch::Receiver<u64>> {
        self.views.iter().map(projection::LiveView::changes).collect()
    }

    /// Makes what was folded visible, and says how far that is.
    fn commit(&mut self) {
        let health: Vec<projection::ViewHealth> = self.views.iter().map(projection::LiveView::health).collect();
        let caught_up = health.iter().all(|health| health.caught_up);
        let missing: BTreeSet<&str> =
            health.iter().flat_map(|health| &health.missing_topics).map(String::as_str).collect();
        let failed = health.iter().find_map(|health| health.failed.clone());
        let cut_off = health.iter().any(|health| health.is_disconnected).then(|| "no broker answers".to_owned());
        let trouble = failed.or_else(|| self.silent.clone()).or(cut_off).or_else(|| missing_text(&missing));
        let positions: Vec<projection::Positions> = self.views.iter().map(projection::LiveView::positions).collect();
        let newest_ms = self.board.write(View::take_newest);
        let watermark_ms = self.watermark(caught_up && trouble.is_none(), newest_ms);
        self.board.write(|view| {
            for (topic, partition, next) in positions.iter().flat_map(projection::Positions::iter) {
                view.advance(topic, partition, next);
            }
            view.commit(watermark_ms);
        });
        let behind: i64 = health.iter().map(|health| health.behind).sum();
        self.board.set_reading(Reading {
            caught_up,
            lag_records: u64::try_from(behind).unwrap_or_default(),
            trouble,
            topics: self.topics.clone(),
        });
    }

    /// The time up to which everything was read: now, but not while partitions still give records from before.
    fn watermark(&mut self, follows: bool, newest_ms: Option<i64>) -> i64 {
        if !follows {
            // Nobody can say what is not read yet. A watermark never goes back, so this keeps the one there is.
            return 0;
        }
        let now_ms = clock::now_ms();
        if let Some(newest_ms) = newest_ms.filter(|newest_ms| *newest_ms < now_ms) {
            self.held = Some((Instant::now() + HOLDS_BACK, newest_ms));
        }
        match self.held {
            Some((until, newest_ms)) if until > Instant::now() => newest_ms,
            _ => now_ms,
        }
    }

    /// Asks whether the cluster answers and which topics it has, and the registry for the versions of schemas that were met: a
    /// schema is found by its id, and its version is another question. Committing goes on meanwhile.
    fn ask(&mut self) {
        let (admin, registry, board) = (self.admin.clone(), self.registry.clone(), self.board.clone());
        self.asking = Some(tokio::task::spawn_blocking(move || {
            let topics = admin.partition_counts().map_err(|error| error.to_string())?;
            note_versions(&registry, &board);
            Ok(topics.into_keys().collect())
        }));
    }

    /// Takes the answer, if there is one: topics of dead letters and of what is parked that are not read yet are from now on.
    async fn heed_answer(&mut self) {
        let Some(asked) = self.asking.take_if(|asking| asking.is_finished()) else { return };
        let names = match asked.await {
            Ok(Ok(names)) => names,
            Ok(Err(reason)) => return self.note_silence(reason),
            Err(_) => return self.note_silence("the question for topics was broken off".to_owned()),
        };
        if self.silent.take().is_some() {
            tracing::info!("the cluster answers again");
        }
        // Those of the system alone: another one on the same cluster may call its sagas the same.
        let (letters, ours) = (format!("{DEAD_LETTERS}{}.", self.config.system), format!("{}.", self.config.system));
        let is_wanted = |name: &String| name.starts_with(&letters) || name.starts_with(&ours) && name.ends_with(PARKED);
        let new: BTreeSet<String> =
            names.into_iter().filter(|name| is_wanted(name) && !self.topics.contains(name)).collect();
        if new.is_empty() || self.views.len() == READERS_MAX {
            return;
        }
        tracing::info!(topics = ?new, "reading dead letters and what is parked");
        if let Err(error) = self.read(new.into_iter().collect()) {
            tracing::error!(error = %error, "dead letters and what is parked are not read");
        }
    }

    fn note_silence(&mut self, reason: String) {
        if self.silent.is_none() {
            tracing::warn!(reason, "the cluster does not answer: the view stands still until it does");
        }
        self.silent = Some(reason);
    }
}

/// Until a version is told, records are shown without it. Blocks.
fn note_versions(registry: &RegistryClient, board: &Board) {
    let open: Vec<u32> = board.view().unversioned().take(VERSIONS_AT_ONCE).collect();
    for schema in open {
        match registry.usages(schema) {
            Ok(usages) => {
                let version = usages.into_iter().map(|(_, version)| version).max();
                board.write(|view| view.note_version(schema, version));
            }
            Err(error) => return tracing::debug!(%error, schema, "version of a schema not told"),
        }
    }
}

fn missing_text(missing: &BTreeSet<&str>) -> Option<String> {
    if missing.is_empty() {
        return None;
    }
    let names: Vec<&str> = missing.iter().copied().collect();
    Some(format!("topics to read are missing: {}; hint: make them with `dacapo topics create`", names.join(", ")))
}

async fn any_news(news: &mut [watch::Receiver<u64>]) {
    let waits: Vec<_> = news.iter_mut().map(|news| Box::pin(news.changed())).collect();
    FirstOf(waits).await;
}

/// Ready as soon as one of its futures is.
struct FirstOf<F>(Vec<std::pin::Pin<Box<F>>>);

impl<F: Future> Future for FirstOf<F> {
    type Output = ();

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        let ready = self.0.iter_mut().any(|future| future.as_mut().poll(context).is_ready());
        if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    }
}

/// Folds the topics into a view up to exact offsets, and no further. Blocks.
pub(crate) fn fold_to(
    config: &Config,
    readers: Readers,
    view: View,
    positions: &crate::api::Positions,
    patience: Duration,
) -> Result<Board, projection::ReplayError> {
    let mut targets = projection::Positions::default();
    for (topic, partitions) in positions {
        let topic: Arc<str> = topic.as_str().into();
        for (partition, next) in partitions {
            targets.set(&topic, *partition, *next);
        }
    }
    let topics = topics(positions.keys().map(String::as_str));
    let board = Board::new(view);
    let folder = Folder::new(board.clone(), &config.system);
    projection::fold_to(config, "verify-sagas", readers, topics, folder, &targets, patience)?;
    board.write(|view| view.commit(0));
    Ok(board)
}
