//! Keeps the view of a board up to date from the topics.
//!
//! Folding runs on the threads of the runtime's views, one record at a time. A task beside them commits the folded records,
//! advances the watermark, checks that the cluster is reachable, and adds dead-letter topics and parked topics as they are
//! created. This module owns that loop. The runtime reads records from Kafka and decodes Avro.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use runtime::{
    Config, clock,
    codec::{Decoded, Readers, SchemaRef},
    core::ParkingUpdate,
    health::DegradedPiece,
    kafka::{admin::Admin, client::view_name},
    message::PARKED,
    projection::{self, LogRecord, Projection, Topics, ViewError},
    registry::RegistryClient,
};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    board::{Board, ReadProgress},
    fields::BodyFields,
    record::{BodyDecoder, BodyError, DecodedBody, ProjectedRecord},
    status::OWNER,
    view::SagaView,
};

/// The prefix of dead-letter topics.
const DEAD_LETTERS: &str = "dlq.";
/// The shortest time between two commits, and the longest while no record arrives.
const COMMIT_AFTER: Duration = Duration::from_millis(20);
const COMMIT_WHEN_IDLE: Duration = Duration::from_millis(500);
/// How often the list of topics is refreshed.
const TOPIC_REFRESH: Duration = Duration::from_secs(5);
/// How long the watermark stays back after a partition returned old records.
const WATERMARK_HOLD: Duration = Duration::from_secs(2);
/// The most schemas whose versions are looked up at a time.
const VERSION_LOOKUPS_MAX: usize = 64;
/// The most readers: one for the topics at the start, the others for topics created later.
const READERS_MAX: usize = 32;

/// The name of the view in the projector, under which operators decide what it skips.
const VIEW: &str = "sagas";

/// Folds the records of one reader into a shared view.
pub(crate) struct SagaProjection {
    board: Board,
    system: String,
    schemas: BTreeSet<u32>,
}

impl SagaProjection {
    pub(crate) fn new(board: Board, system: &str) -> Self {
        Self { board, system: system.to_owned(), schemas: BTreeSet::new() }
    }

    /// Folds a record of a parked topic. A record that is not a parked record is skipped.
    fn fold_parked(&self, projected: &ProjectedRecord<'_>, record: &LogRecord<'_>) {
        match record.with_record(|record| ParkingUpdate::read(&self.system, record)) {
            Ok(update) => self.board.write_last(|view| view.fold_parked(projected, update)),
            Err(error) => tracing::warn!(position = %record.position(), %error, "skipped a record of a parked topic"),
        }
    }

    /// The schema id of the record, if this reader sees it for the first time.
    fn new_schema(&mut self, record: &LogRecord<'_>) -> Option<u32> {
        match record.schema()?.schema {
            SchemaRef::Id(id) => self.schemas.insert(id).then_some(id),
            SchemaRef::Guid(_) => None,
        }
    }
}

impl Projection for SagaProjection {
    fn apply(&mut self, record: &LogRecord<'_>) {
        let headers: Vec<(&str, &[u8])> =
            record.headers().into_iter().flatten().map(|(name, value)| (name, value.unwrap_or_default())).collect();
        let projected = ProjectedRecord {
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
            return self.fold_parked(&projected, record);
        }
        let schema = self.new_schema(record);
        let dead_letter = record.topic.starts_with(DEAD_LETTERS);
        let folded = self.board.write_last(|view| {
            if let Some(schema) = schema {
                view.note_version(schema, None);
            }
            view.fold(&projected, dead_letter, &AvroBodyDecoder(record.decoded()))
        });
        if let Err(error) = folded {
            // AvroBodyDecoder never returns this error: the reader waits for the schema before it hands over the record.
            tracing::error!(position = %record.position(), %error, "record not folded");
        }
    }
}

/// Decodes the body of the current record, if its schema is known.
#[derive(Debug, Clone, Copy)]
pub struct AvroBodyDecoder<'a>(pub Option<Decoded<'a>>);

impl BodyDecoder for AvroBodyDecoder<'_> {
    fn decode(&self, _: &[u8]) -> Result<DecodedBody, BodyError> {
        let unreadable = |detail: String| BodyError::Unreadable(detail);
        let decoded = self.0.ok_or_else(|| unreadable("its schema is not known".to_owned()))?;
        let BodyFields(fields) = decoded.record().read().map_err(|error| unreadable(error.to_string()))?;
        Ok(DecodedBody { type_name: decoded.schema.full_name.clone(), fields })
    }
}

/// Splits topics into those whose bodies are decoded, and dead-letter and parked topics.
pub(crate) fn topics<'a>(names: impl IntoIterator<Item = &'a str>) -> Topics {
    let is_raw = |name: &&str| name.starts_with(DEAD_LETTERS) || name.ends_with(PARKED);
    let (raw, decoded): (Vec<&str>, Vec<&str>) = names.into_iter().partition(is_raw);
    Topics::decoded(decoded).and_raw(raw)
}

/// Every topic the declarations name, in order.
pub(crate) fn declared_topics(view: &SagaView, system: &str) -> Vec<String> {
    let topics: BTreeSet<String> =
        view.declarations().iter().flat_map(|declaration| declaration.topics_in(system)).collect();
    topics.into_iter().collect()
}

/// The readers of the topics of one board.
pub(crate) struct TopicReaders {
    config: Config,
    readers: Readers,
    registry: RegistryClient,
    board: Board,
    admin: Admin,
    views: Vec<projection::LiveView<SagaProjection>>,
    topics: Vec<String>,
    /// The pending query for the list of topics.
    topic_query: Option<JoinHandle<Result<Vec<String>, String>>>,
    /// Why the cluster is unreachable, if it is.
    unreachable: Option<String>,
    /// Until when the watermark is watermark_hold back, and at which time.
    watermark_hold: Option<(Instant, i64)>,
}

impl TopicReaders {
    /// Starts to read the declared topics.
    pub(crate) fn start(
        config: &Config,
        registry: RegistryClient,
        admin: Admin,
        board: Board,
    ) -> Result<Self, ViewError> {
        let topics = declared_topics(&board.view(), &config.system);
        let mut topic_readers = Self {
            config: config.clone(),
            readers: Readers::shared(registry.url(), Arc::new(registry.clone())),
            registry,
            board,
            admin,
            views: Vec::new(),
            topics: Vec::new(),
            topic_query: None,
            unreachable: None,
            watermark_hold: None,
        };
        topic_readers.read(topics)?;
        Ok(topic_readers)
    }

    fn read(&mut self, more: Vec<String>) -> Result<(), ViewError> {
        let topics = topics(more.iter().map(String::as_str));
        let projection_of_sagas = SagaProjection::new(self.board.clone(), &self.config.system);
        self.views.push(projection::LiveView::start_part(
            &self.config,
            (VIEW, self.views.len()),
            self.readers.clone(),
            topics,
            projection_of_sagas,
        )?);
        self.topics.extend(more);
        Ok(())
    }

    /// Commits, refreshes the list of topics and waits for records, until `ending` is set.
    pub(crate) async fn run(mut self, mut ending: watch::Receiver<bool>) {
        let mut refresh_at = Instant::now();
        while !*ending.borrow_and_update() {
            if refresh_at <= Instant::now() && self.topic_query.is_none() {
                self.query_cluster();
                refresh_at = Instant::now() + TOPIC_REFRESH;
            }
            self.apply_topic_list().await;
            let mut changes = self.changes();
            self.commit();
            tokio::select! {
                _ = ending.changed() => return,
                () = tokio::time::sleep(COMMIT_AFTER) => {}
            }
            tokio::select! {
                _ = ending.changed() => return,
                () = any_change(&mut changes) => {}
                () = tokio::time::sleep(COMMIT_WHEN_IDLE) => {}
            }
        }
    }

    fn changes(&self) -> Vec<watch::Receiver<u64>> {
        self.views.iter().map(projection::LiveView::changes).collect()
    }

    /// Makes the folded records visible and updates the read progress.
    fn commit(&mut self) {
        let health: Vec<projection::ViewHealth> = self.views.iter().map(projection::LiveView::health).collect();
        let caught_up = health.iter().all(|health| health.caught_up);
        let missing: BTreeSet<&str> =
            health.iter().flat_map(|health| &health.missing_topics).map(String::as_str).collect();
        let failed = health.iter().find_map(|health| health.failed.clone());
        let held: Vec<DegradedPiece> = health.iter().flat_map(|health| health.held.iter().cloned()).collect();
        let unreachable_now =
            health.iter().any(|health| health.is_disconnected).then(|| "no broker answers".to_owned());
        let degraded_reason =
            failed.or_else(|| self.unreachable.clone()).or(unreachable_now).or_else(|| missing_text(&missing));
        let positions: Vec<projection::Positions> = self.views.iter().map(projection::LiveView::positions).collect();
        let newest_ms = self.board.write(SagaView::take_newest);
        let watermark_ms = self.watermark(caught_up && degraded_reason.is_none() && held.is_empty(), newest_ms);
        self.board.write(|view| {
            for (topic, partition, next) in positions.iter().flat_map(projection::Positions::iter) {
                view.advance(topic, partition, next);
            }
            view.commit(watermark_ms);
        });
        let behind: i64 = health.iter().map(|health| health.behind).sum();
        self.board.set_read_progress(ReadProgress {
            caught_up,
            lag_records: u64::try_from(behind).unwrap_or_default(),
            degraded_reason,
            held,
            topics: self.topics.clone(),
        });
    }

    /// The time up to which every record was read: now, or earlier while partitions still return older records.
    fn watermark(&mut self, follows: bool, newest_ms: Option<i64>) -> i64 {
        if !follows {
            // The unread records are unknown. A watermark never goes back, so 0 keeps the current one.
            return 0;
        }
        let now_ms = clock::now_ms();
        if let Some(newest_ms) = newest_ms.filter(|newest_ms| *newest_ms < now_ms) {
            self.watermark_hold = Some((Instant::now() + WATERMARK_HOLD, newest_ms));
        }
        match self.watermark_hold {
            Some((until, newest_ms)) if until > Instant::now() => newest_ms,
            _ => now_ms,
        }
    }

    /// Queries the cluster for its topics, and the registry for the versions of schemas. A schema is found by its id; its
    /// version is a separate query. Commits continue meanwhile.
    fn query_cluster(&mut self) {
        let (admin, registry, board) = (self.admin.clone(), self.registry.clone(), self.board.clone());
        self.topic_query = Some(tokio::task::spawn_blocking(move || {
            let topics = admin.partition_counts().map_err(|error| error.to_string())?;
            note_versions(&registry, &board);
            Ok(topics.into_keys().collect())
        }));
    }

    /// Applies the result of the query, if it is there: starts to read the dead-letter and parked topics that are new.
    async fn apply_topic_list(&mut self) {
        let Some(finished) = self.topic_query.take_if(|topic_query| topic_query.is_finished()) else { return };
        let names = match finished.await {
            Ok(Ok(names)) => names,
            Ok(Err(reason)) => return self.note_unreachable(reason),
            Err(_) => return self.note_unreachable("the query for topics was cancelled".to_owned()),
        };
        if self.unreachable.take().is_some() {
            tracing::info!("the cluster is reachable again");
        }
        // Only topics of this system: another system on the same cluster may use the same saga names.
        let (dead_letters, own) =
            (format!("{DEAD_LETTERS}{}.", self.config.system), format!("{}.", self.config.system));
        let is_wanted =
            |name: &String| name.starts_with(&dead_letters) || name.starts_with(&own) && name.ends_with(PARKED);
        let new: BTreeSet<String> =
            names.into_iter().filter(|name| is_wanted(name) && !self.topics.contains(name)).collect();
        if new.is_empty() || self.views.len() == READERS_MAX {
            return;
        }
        tracing::info!(topics = ?new, "reading new dead-letter and parked topics");
        if let Err(error) = self.read(new.into_iter().collect()) {
            tracing::error!(error = %error, "cannot read new dead-letter and parked topics");
        }
    }

    fn note_unreachable(&mut self, reason: String) {
        if self.unreachable.is_none() {
            tracing::warn!(reason, "the cluster is unreachable: the view does not change until it is reachable again");
        }
        self.unreachable = Some(reason);
    }
}

/// Looks up schema versions. Records are shown without a version until it is known. Blocks.
fn note_versions(registry: &RegistryClient, board: &Board) {
    let open: Vec<u32> = board.view().unversioned().take(VERSION_LOOKUPS_MAX).collect();
    for schema in open {
        match registry.usages(schema) {
            Ok(usages) => {
                let version = usages.into_iter().map(|(_, version)| version).max();
                board.write(|view| view.note_version(schema, version));
            }
            Err(error) => return tracing::debug!(%error, schema, "version of a schema not found"),
        }
    }
}

fn missing_text(missing: &BTreeSet<&str>) -> Option<String> {
    if missing.is_empty() {
        return None;
    }
    let names: Vec<&str> = missing.iter().copied().collect();
    Some(format!("topics to read are missing: {}; hint: create them with `dacapo topics create`", names.join(", ")))
}

async fn any_change(changes: &mut [watch::Receiver<u64>]) {
    let waits: Vec<_> = changes.iter_mut().map(|changes| Box::pin(changes.changed())).collect();
    FirstOf(waits).await;
}

/// Ready as soon as one of its futures is ready.
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
    view: SagaView,
    positions: &crate::api::NextOffsets,
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
    let projection_of_sagas = SagaProjection::new(board.clone(), &config.system);
    // A rebuild skips what the live view skips, whichever program rebuilds it.
    let live = view_name(&config.for_service(OWNER), VIEW);
    let purpose = ("verify-sagas", Some(live.as_str()));
    projection::fold_to(config, purpose, readers, topics, projection_of_sagas, &targets, patience)?;
    board.write(|view| view.commit(0));
    Ok(board)
}
