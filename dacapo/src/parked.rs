//! `dacapo parked`: what waits in the services because a record cannot work, and what an operator does about it.
//!
//! Everything is read from the services' parked topics, so no service needs to answer. An operator's wish is a command in the inbox
//! of the service, under the key of the entity: whichever instance owns it acts on it, and the command stays there as evidence.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Subcommand;
use comfy_table::{Table, presets};
use projector::{
    api::ParkedRecord,
    render::{plain, sentence},
};
use runtime::{
    Channel, clock,
    codec::{Readers, Writers},
    config::Config,
    core::{DropParked, Parked, ParkingCommand, ParkingUpdate, RetryParked},
    envelope::{Envelope, Position, source},
    message::{Message, parked_topic, topic},
    projection::{LiveView, LogRecord, Projection, Topics},
    publisher::{Authority, EncodedRecord, Publisher},
    registry::RegistryClient,
    schemas::json::avro_to_json,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    contract::SERVICES,
    output,
    target::{Reached, Target},
};

/// How long reading the topics, or the broker's answer, may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// What can be done about what is parked.
#[derive(Debug, Subcommand)]
pub enum ParkedCommand {
    /// List the records that cannot work, and how many wait behind each
    List {
        #[command(flatten)]
        whence: Whence,
        /// The records that wait behind another one as well
        #[arg(long)]
        all: bool,
        /// Show the answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one record: its bytes, its headers, why it cannot work, and what waits behind it
    Show {
        #[command(flatten)]
        whence: Whence,
        /// Where it lay when it was heard: topic/partition/offset, as `list` prints it
        place: Position,
        /// Show the answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Have a record tried again, and after it what waits behind it, in order
    Retry {
        #[command(flatten)]
        whence: Whence,
        /// Which: topic/partition/offset, as `list` prints it
        #[arg(required_unless_present = "all")]
        place: Option<Position>,
        /// Every record that cannot work
        #[arg(long, conflicts_with = "place")]
        all: bool,
        #[command(flatten)]
        act: Act,
    },
    /// Give a record up: it is never handled, and what waits behind it goes on, in order
    Drop {
        #[command(flatten)]
        whence: Whence,
        /// Which: topic/partition/offset, as `list` prints it
        place: Position,
        /// Why; kept with the command
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        act: Act,
    },
}

/// Where to look.
#[derive(Debug, clap::Args)]
pub struct Whence {
    #[command(flatten)]
    target: Target,
    /// Only what waits in this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
}

/// How to act.
#[derive(Debug, clap::Args)]
pub struct Act {
    /// Who wants it; kept with the command
    #[arg(long, env = "USER", value_name = "NAME", default_value = "operator")]
    by: String,
    /// How long to wait for what comes of it
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait: u64,
}

/// Carries a command out.
///
/// # Errors
/// The topics cannot be read, nothing is parked there, or what was tried again does not work.
pub async fn run(command: &ParkedCommand) -> anyhow::Result<()> {
    match command {
        ParkedCommand::List { whence, all, json } => list(&whence.board().await?, *all, *json),
        ParkedCommand::Show { whence, place, json } => show(&whence.board().await?, place, *json).await,
        ParkedCommand::Retry { whence, place, act, .. } => {
            let board = whence.board().await?;
            let firsts = match place {
                Some(place) => vec![board.first_at(place)?],
                None => board.firsts(),
            };
            let retry = |parked: &Parked| RetryParked { place: parked.place.to_string(), by: act.by.clone() }.into();
            board.act(firsts, retry, act.wait).await
        }
        ParkedCommand::Drop { whence, place, reason, act } => {
            let board = whence.board().await?;
            let (by, reason) = (act.by.clone(), reason.clone());
            let drop = |parked: &Parked| DropParked {
                place: parked.place.to_string(),
                by: by.clone(),
                reason: reason.clone(),
            };
            board.act(vec![board.one_at(place)?], |parked| drop(parked).into(), act.wait).await
        }
    }
}

/// What waits, by service and place.
#[derive(Debug, Clone, Default)]
struct Waits {
    records: BTreeMap<(&'static str, Position), Parked>,
    services: BTreeMap<Arc<str>, &'static str>,
    system: String,
    /// Records of parked topics that are none: somebody else writes there.
    foreign: u64,
}

impl Projection for Waits {
    fn apply(&mut self, record: &LogRecord<'_>) {
        let Some(service) = self.services.get(record.topic).copied() else { return };
        match record.with_record(|record| ParkingUpdate::read(&self.system, record)) {
            Ok(ParkingUpdate::Parked(parked)) => drop(self.records.insert((service, parked.place.clone()), parked)),
            Ok(ParkingUpdate::Released(left)) => drop(self.records.remove(&(service, left.place))),
            Err(_) => self.foreign += 1,
        }
    }
}

impl Waits {
    /// An entity's records in their order.
    fn queue(&self, service: &str, entity: &str) -> Vec<&Parked> {
        let of_entity = |((of, _), parked): &(&(&str, Position), &Parked)| *of == service && *parked.entity == *entity;
        let mut queue: Vec<&Parked> = self.records.iter().filter(of_entity).map(|(_, parked)| parked).collect();
        queue.sort_by_key(|parked| parked.number);
        queue
    }

    fn behind(&self, service: &str, parked: &Parked) -> usize {
        self.queue(service, &parked.entity).iter().filter(|other| other.number > parked.number).count()
    }
}

/// A record in the service where it waits.
type Found = (&'static str, Parked);

/// The parked topics of a system, read to their ends and followed.
struct Board {
    config: Config,
    view: LiveView<Waits>,
}

impl Whence {
    async fn board(&self) -> anyhow::Result<Board> {
        let services: Vec<&'static str> = match &self.service {
            None => SERVICES.to_vec(),
            Some(name) => match SERVICES.iter().find(|service| *service == name) {
                Some(service) => vec![*service],
                None => bail!("there is no service {name:?} that decides; there are {}", SERVICES.join(", ")),
            },
        };
        let Reached { config, partitions } = self.target.reached("dacapo").await?;
        let topics: BTreeMap<Arc<str>, &'static str> = services
            .into_iter()
            .map(|service| (Arc::from(parked_topic(&config.system, service)), service))
            .filter(|(name, _)| partitions.contains_key(&**name))
            .collect();
        let waits = Waits { services: topics.clone(), system: config.system.clone(), ..Waits::default() };
        let readers = Readers::new(Arc::new(RegistryClient::new(&config)?));
        let raw = Topics::default().and_raw(topics.keys().map(|name| name.to_string()));
        let view = LiveView::start(&config, "parked", readers, raw, waits)?;
        view.wait_until_caught_up(PATIENCE).await?;
        Ok(Board { config, view })
    }
}

impl Board {
    fn now(&self) -> Waits {
        self.view.read(Clone::clone)
    }

    /// The records that cannot work.
    fn firsts(&self) -> Vec<Found> {
        let waits = self.now();
        let firsts = waits.records.iter().filter(|(_, parked)| parked.failure.is_some());
        firsts.map(|((service, _), parked)| (*service, parked.clone())).collect()
    }

    fn one_at(&self, place: &Position) -> anyhow::Result<Found> {
        let waits = self.now();
        let found: Vec<Found> = waits
            .records
            .iter()
            .filter(|((_, at), _)| at == place)
            .map(|((service, _), parked)| (*service, parked.clone()))
            .collect();
        match <[Found; 1]>::try_from(found) {
            Ok([found]) => Ok(found),
            Err(found) if found.is_empty() => bail!("nothing is parked at {place}; `dacapo parked list` shows what is"),
            Err(found) => {
                let services: Vec<&str> = found.iter().map(|(service, _)| *service).collect();
                bail!("{place} waits in {}; say which one you mean with --service", services.join(" and in "))
            }
        }
    }

    fn first_at(&self, place: &Position) -> anyhow::Result<Found> {
        let (service, parked) = self.one_at(place)?;
        let waits = self.now();
        match waits.queue(service, &parked.entity).first() {
            Some(first) if first.place != *place => bail!(
                "{place} waits behind {}, which cannot work; retry or drop that one first: {} of {service} keeps its order",
                first.place,
                plain(&parked.entity)
            ),
            _ => Ok((service, parked)),
        }
    }

    /// Puts a command for each record into the inbox of its service, and tells what comes of it.
    async fn act(
        &self,
        records: Vec<Found>,
        command: impl Fn(&Parked) -> ParkingCommand,
        wait: u64,
    ) -> anyhow::Result<()> {
        if records.is_empty() {
            return Ok(output::line("nothing is parked")?);
        }
        let writers = self.writers().await?;
        let publisher = Publisher::new(&self.config, Authority::Operator, Writers::none())?;
        let mut ready = Vec::with_capacity(records.len());
        for (service, parked) in &records {
            ready.push(self.ready(&writers, service, parked, &command(parked))?);
        }
        publisher.send(ready, PATIENCE).await?;
        let until = Instant::now() + Duration::from_secs(wait);
        let mut failed = 0;
        for (service, parked) in &records {
            failed += usize::from(!self.tell(service, parked, until).await?);
        }
        if failed > 0 {
            bail!("{failed} of {} could not be put right", records.len());
        }
        Ok(())
    }

    async fn writers(&self) -> anyhow::Result<Writers> {
        let (registry, system) = (RegistryClient::new(&self.config)?, self.config.system.clone());
        let asked = tokio::task::spawn_blocking(move || registry.writers(&system, ParkingCommand::RECORDS)).await?;
        asked.context(
            "the registry does not know an operator's commands; `dacapo schemas register` brings it up to date",
        )
    }

    fn ready(
        &self,
        writers: &Writers,
        service: &str,
        parked: &Parked,
        command: &ParkingCommand,
    ) -> anyhow::Result<EncodedRecord> {
        let mut value = Vec::new();
        let full_name = Arc::clone(writers.encode(command, &mut value)?);
        let system = &self.config.system;
        let mut envelope = Envelope::new(Uuid::now_v7(), source(system, "operator"), full_name, clock::now_ms())
            .about(&*parked.entity)
            .correlated(parked.correlation_id());
        envelope.build = Some(runtime::telemetry::build());
        let topic = topic(system, service, Channel::Inbox);
        Ok(EncodedRecord { topic, key: parked.entity.to_string(), value, envelope })
    }

    /// Waits for what comes of a command, and tells it. Answers whether the record is out of the way.
    async fn tell(&self, service: &'static str, before: &Parked, until: Instant) -> anyhow::Result<bool> {
        let key = (service, before.place.clone());
        let attempts = |parked: &Parked| parked.failure.as_ref().map_or(0, |failure| failure.attempts);
        let mut changes = self.view.changes();
        loop {
            changes.borrow_and_update();
            let waits = self.now();
            match waits.records.get(&key) {
                None => {
                    let left = waits.queue(service, &before.entity);
                    let rest =
                        match left.first().and_then(|first| first.failure.as_ref().map(|failure| (first, failure))) {
                            None if left.is_empty() => "nothing of its entity waits any more".to_owned(),
                            None => format!("{} records that waited for it are being handled", left.len()),
                            Some((first, failure)) => format!(
                                "now {} cannot work: {} ({} wait behind it)",
                                first.place,
                                sentence(&failure.reason),
                                left.len() - 1
                            ),
                        };
                    output::line(&format!("{service}: {} is out of the way; {rest}", before.place))?;
                    return Ok(true);
                }
                Some(now) if attempts(now) > attempts(before) => {
                    let reason = now.failure.as_ref().map_or("", |failure| failure.reason.as_str());
                    let (place, tried) = (&before.place, attempts(now));
                    output::line(&format!(
                        "{service}: {place} still cannot work, tried {tried} times: {}",
                        sentence(reason)
                    ))?;
                    return Ok(false);
                }
                Some(_) => {}
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || tokio::time::timeout(left, changes.changed()).await.is_err() {
                output::line(&format!(
                    "{service}: nobody has acted on {} yet; the command lies in its inbox. Is {service} running?",
                    before.place
                ))?;
                return Ok(false);
            }
        }
    }
}

fn list(board: &Board, all: bool, as_json: bool) -> anyhow::Result<()> {
    let waits = board.now();
    if waits.foreign > 0 {
        output::note(&format!("{} records on parked topics are none: somebody else writes there", waits.foreign));
    }
    let mut records: Vec<(&str, &Parked)> = waits
        .records
        .iter()
        .filter(|(_, parked)| all || parked.failure.is_some())
        .map(|((service, _), parked)| (*service, parked))
        .collect();
    records.sort_by_key(|(service, parked)| (*service, Arc::clone(&parked.entity), parked.number));
    if as_json {
        let rows: Vec<Value> = records
            .iter()
            .map(|(service, parked)| {
                let mut row = json!(ParkedRecord::of(service, parked));
                row["behind"] = waits.behind(service, parked).into();
                row
            })
            .collect();
        return Ok(output::line(&serde_json::to_string_pretty(&rows)?)?);
    }
    if records.is_empty() {
        return Ok(output::line("nothing is parked")?);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["SERVICE", "ENTITY", "PLACE", "RECORD", "WHY", "TRIED", "LAST", "BEHIND"]);
    for (service, parked) in records {
        let shown = ParkedRecord::of(service, parked);
        let (why, tried, last) = match &shown.failure {
            Some(failure) => (plain(&failure.class), failure.attempts.to_string(), failure.at.clone()),
            None => ("waits".to_owned(), "-".to_owned(), "-".to_owned()),
        };
        let behind = waits.behind(service, parked).to_string();
        table.add_row([
            service.to_owned(),
            plain(&shown.entity),
            plain(&shown.place),
            plain(shown.what()),
            why,
            tried,
            last,
            behind,
        ]);
    }
    for line in table.lines() {
        output::line(line.trim_end())?;
    }
    Ok(())
}

async fn show(board: &Board, place: &Position, as_json: bool) -> anyhow::Result<()> {
    let (service, parked) = board.one_at(place)?;
    let waits = board.now();
    let queue: Vec<ParkedRecord> = waits
        .queue(service, &parked.entity)
        .into_iter()
        .filter(|other| other.number > parked.number)
        .map(|other| ParkedRecord::of(service, other))
        .collect();
    let body = body(board, &parked).await?;
    let headers: serde_json::Map<String, Value> =
        parked.headers.iter().map(|(name, value)| (name.clone(), value.as_deref().map_or(Value::Null, text))).collect();
    let mut shown = json!(ParkedRecord::of(service, &parked));
    shown["correlation_id"] = parked.correlation_id().into();
    shown["key"] = parked.key.as_deref().map_or(Value::Null, text);
    shown["headers"] = headers.into();
    shown["body"] = body;
    shown["behind"] = json!(queue);
    if as_json {
        return Ok(output::line(&serde_json::to_string_pretty(&shown)?)?);
    }
    let record = ParkedRecord::of(service, &parked);
    output::line(&format!("{} for {} of {service}", plain(record.what()), plain(&record.entity)))?;
    output::line(&format!("place       {}", plain(&record.place)))?;
    output::line(&format!("saga        {}", plain(parked.correlation_id())))?;
    match &record.failure {
        Some(failure) => {
            output::line(&format!("cannot work {}: {}", plain(&failure.class), sentence(&failure.reason)))?;
            output::line(&format!("tried       {} times, last {}", failure.attempts, failure.at))?;
        }
        None => output::line("waits       behind a record of the same entity that cannot work")?,
    }
    for (name, value) in shown["headers"].as_object().into_iter().flatten() {
        output::line(&format!("header      {} = {}", plain(name), sentence(&bare(value))))?;
    }
    output::line(&format!("body        {}", sentence(&shown["body"].to_string())))?;
    for behind in &queue {
        output::line(&format!("behind it   {} at {}", plain(behind.what()), plain(&behind.place)))?;
    }
    let act = "retry it: dacapo parked retry PLACE; give it up: dacapo parked drop PLACE --reason TEXT";
    Ok(output::line(&act.replace("PLACE", &plain(&record.place)))?)
}

/// The body as JSON if its schema can be had, else in hexadecimal.
async fn body(board: &Board, parked: &Parked) -> anyhow::Result<Value> {
    let Some(value) = parked.value.clone() else { return Ok(Value::Null) };
    let registry = RegistryClient::new(&board.config)?;
    let decoded = tokio::task::spawn_blocking(move || {
        let readers = Readers::new(Arc::new(registry));
        let decoded = readers.decode(Some(&value), None).ok();
        let fields = decoded.and_then(|decoded| avro_to_json(decoded.schema.avro, decoded.body).ok());
        fields.unwrap_or_else(|| text(&value))
    });
    Ok(decoded.await?)
}

/// Text, or what is no text in hexadecimal, cut.
fn text(bytes: &[u8]) -> Value {
    const SHOWN: usize = 1_024;
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.into(),
        _ => {
            json!({ "hex": bytes.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect::<String>(), "bytes": bytes.len() })
        }
    }
}

fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
