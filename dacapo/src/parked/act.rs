//! Sends an operator's commands about parked records, and waits for their results.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use projector::render::sentence;
use runtime::{
    Channel, clock,
    codec::Writers,
    core::{ParkedRecord, ParkingCommand},
    envelope::{Envelope, source},
    message::{Message, topic},
    publisher::{Authority, EncodedRecord, Publisher},
    registry::RegistryClient,
};
use uuid::Uuid;

use super::view::{ParkedRecords, ParkedView, ServiceRecord};
use crate::output;

/// How long the broker may take to acknowledge a command.
const PATIENCE: Duration = Duration::from_secs(15);

/// Flags of the commands that act on a record.
#[derive(Debug, clap::Args)]
pub struct OperatorArgs {
    /// The operator's name; kept with the command
    #[arg(long, env = "USER", value_name = "NAME", default_value = "operator")]
    pub(super) by: String,
    /// How long to wait for the result
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(super) wait: u64,
}

/// Sends a command for each record to the inbox of its service, and prints the results.
///
/// # Errors
/// The commands cannot be written, or a record is still parked after `wait` seconds.
pub(super) async fn send(
    view: &ParkedView,
    records: Vec<ServiceRecord>,
    command: impl Fn(&ParkedRecord) -> ParkingCommand,
    wait: u64,
) -> anyhow::Result<()> {
    if records.is_empty() {
        return Ok(output::line("nothing is parked")?);
    }
    let writers = writers(view).await?;
    let publisher = Publisher::new(&view.config, Authority::Operator, Writers::none())?;
    let mut ready = Vec::with_capacity(records.len());
    for (service, parked) in &records {
        ready.push(encode(view, &writers, service, parked, &command(parked))?);
    }
    publisher.send(ready, PATIENCE).await?;
    let until = Instant::now() + Duration::from_secs(wait);
    let mut failed = 0;
    for (service, parked) in &records {
        failed += usize::from(!wait_for_result(view, service, parked, until).await?);
    }
    if failed > 0 {
        bail!("{failed} of {} records are still parked", records.len());
    }
    Ok(())
}

async fn writers(view: &ParkedView) -> anyhow::Result<Writers> {
    let (registry, system) = (RegistryClient::new(&view.config)?, view.config.system.clone());
    let found = tokio::task::spawn_blocking(move || registry.writers(&system, ParkingCommand::RECORDS)).await?;
    found.context("the registry does not know an operator's commands; `dacapo schemas register` brings it up to date")
}

fn encode(
    view: &ParkedView,
    writers: &Writers,
    service: &str,
    parked: &ParkedRecord,
    command: &ParkingCommand,
) -> anyhow::Result<EncodedRecord> {
    let mut value = Vec::new();
    let full_name = Arc::clone(writers.encode(command, &mut value)?);
    let system = &view.config.system;
    let mut envelope = Envelope::new(Uuid::now_v7(), source(system, "operator"), full_name, clock::now_ms())
        .about(&*parked.entity)
        .correlated(parked.correlation_id());
    envelope.build = Some(runtime::telemetry::build());
    let topic = topic(system, service, Channel::Inbox);
    Ok(EncodedRecord { topic, key: parked.entity.to_string(), value, envelope })
}

/// Waits for the result of a command and prints it. Returns whether the record is no longer parked.
async fn wait_for_result(
    view: &ParkedView,
    service: &'static str,
    before: &ParkedRecord,
    until: Instant,
) -> anyhow::Result<bool> {
    let key = (service, before.position.clone());
    let attempts = |parked: &ParkedRecord| parked.failure.as_ref().map_or(0, |failure| failure.attempts);
    let mut changes = view.view.changes();
    loop {
        changes.borrow_and_update();
        let parked = view.now();
        match parked.records.get(&key) {
            None => {
                let rest = rest_of_queue(&parked, service, &before.entity);
                output::line(&format!("{service}: {} is no longer parked; {rest}", before.position))?;
                return Ok(true);
            }
            Some(now) if attempts(now) > attempts(before) => {
                let reason = now.failure.as_ref().map_or("", |failure| failure.reason.as_str());
                let (position, tried) = (&before.position, attempts(now));
                output::line(&format!(
                    "{service}: {position} failed again, tried {tried} times: {}",
                    sentence(reason)
                ))?;
                return Ok(false);
            }
            Some(_) => {}
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || tokio::time::timeout(left, changes.changed()).await.is_err() {
            output::line(&format!(
                "{service}: no instance has acted on {} yet; the command is in the inbox. Is {service} running?",
                before.position
            ))?;
            return Ok(false);
        }
    }
}

/// What still waits of an entity, as text.
fn rest_of_queue(parked: &ParkedRecords, service: &str, entity: &str) -> String {
    let queue = parked.queue(service, entity);
    match queue.first().and_then(|first| first.failure.as_ref().map(|failure| (first, failure))) {
        None if queue.is_empty() => "no record of its entity waits any more".to_owned(),
        None => format!("{} records that waited behind it are being handled", queue.len()),
        Some((first, failure)) => format!(
            "now {} has failed: {} ({} wait behind it)",
            first.position,
            sentence(&failure.reason),
            queue.len() - 1
        ),
    }
}
