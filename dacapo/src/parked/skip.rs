//! `dacapo parked skip`: lets one reader continue behind a batch that it cannot read. And the batches that groups wait in front of.
//!
//! The decision is an event on the operators' topic. The reader takes it from there: a consumer group commits its position behind the
//! batch and keeps the bytes as dead letters, a view reads on behind it, and so does each rebuild of the view.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use runtime::{
    Channel, Config, clock,
    core::unreadable::{BatchSkipped, OPERATOR, OperatorEvent},
    envelope::Position,
    kafka::{CommittedOffset, GroupOffsets, client},
    message::{Message, topic},
    publisher::{Authority, Outgoing, Publisher},
    registry::RegistryClient,
    unreadable::{UnreadableBatch, inspect},
};

use super::act::OperatorArgs;
use crate::{
    output,
    target::{ConnectedSystem, Target},
};

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the group's offset is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Flags of `dacapo parked skip`.
#[derive(Debug, clap::Args)]
pub struct SkipArgs {
    #[command(flatten)]
    target: Target,
    /// The batch: topic/partition/offset, as /readyz and `list` print it
    position: Position,
    /// The consumer group that skips it
    #[arg(long, value_name = "GROUP", required_unless_present = "view", conflicts_with = "view")]
    group: Option<String>,
    /// The view that skips it, as /readyz prints it
    #[arg(long, value_name = "VIEW")]
    view: Option<String>,
    /// The reason; kept with the decision
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Writes the decision, and waits until the group has committed its position behind the batch.
///
/// # Errors
/// The batch can be read, the reader may not skip it, or the group has not acted in time.
pub(super) async fn skip(args: &SkipArgs) -> anyhow::Result<()> {
    let ConnectedSystem { config, partitions } = args.target.connect("dacapo").await?;
    let reader = args.group.as_ref().or(args.view.as_ref()).context("--group or --view names the reader")?;
    tokio::task::block_in_place(|| check(&config, &partitions, args))?;
    let batch = find(&config, &args.position).await?;
    let decision = BatchSkipped {
        position: batch.position().to_string(),
        next_offset: batch.next,
        reader: reader.clone(),
        defect: batch.reason.clone(),
        by: args.operator.by.clone(),
        reason: args.reason.clone(),
        occurred_at: clock::now_ms(),
    };
    publish(&config, decision).await?;
    let (first, next, records) = (batch.position(), batch.next, batch.records);
    output::line(&format!("{reader} skips {first}: {records} records up to offset {}, {}", next - 1, batch.reason))?;
    if args.group.is_none() {
        return Ok(output::line("the view takes the decision within seconds; see its /readyz")?);
    }
    if wait_for_offset(&config, reader, &batch, Duration::from_secs(args.operator.wait)).await? {
        return Ok(output::line(&format!("{reader} continues at offset {next}; the batch is in dlq.{reader}"))?);
    }
    bail!("no instance of {reader} has skipped the batch yet; the decision is kept. Is the service running?")
}

/// Refuses what no reader may skip.
fn check(config: &Config, partitions: &HashMap<String, i32>, args: &SkipArgs) -> anyhow::Result<()> {
    let operators = topic(&config.system, OPERATOR, Channel::Events);
    if !partitions.contains_key(&operators) {
        bail!(
            "there is no topic {operators} for the decisions of operators; `dacapo topics create --apply` creates it"
        );
    }
    let Position { topic: of, partition, .. } = &args.position;
    if !partitions.get(&**of).is_some_and(|count| (0..*count).contains(partition)) {
        bail!("there is no partition {of}/{partition}");
    }
    let Some(group) = &args.group else { return Ok(()) };
    let own = group.strip_prefix(&format!("{}.", config.system));
    if own.is_some_and(|service| **of == topic(&config.system, service, Channel::Events)) {
        bail!(
            "{of} is the log of {group} itself: without a part of it its states are unknown; restore the topic instead"
        );
    }
    if !GroupOffsets::new(config, group)?.exists()? {
        bail!(
            "there is no consumer group {group}; the group of a service is SYSTEM.SERVICE, such as {}.payment",
            config.system
        );
    }
    Ok(())
}

async fn find(config: &Config, position: &Position) -> anyhow::Result<UnreadableBatch> {
    let (config, position) = (config.clone(), position.clone());
    tokio::task::spawn_blocking(move || {
        let Position { topic, partition, offset } = &position;
        let found = inspect(&config, PATIENCE, (topic, *partition, *offset))?;
        match found.filter(|batch| batch.first <= *offset) {
            Some(batch) => Ok(batch),
            None => bail!(
                "no unreadable batch is at {position}; a record that can be read is dropped with `dacapo parked drop`, once its \
                 service has parked it"
            ),
        }
    })
    .await?
}

async fn publish(config: &Config, decision: BatchSkipped) -> anyhow::Result<()> {
    let (registry, system) = (RegistryClient::new(config)?, config.system.clone());
    let found = tokio::task::spawn_blocking(move || registry.writers(&system, OperatorEvent::RECORDS)).await?;
    let writers = found
        .context("the registry does not know operators' decisions; `dacapo schemas register` brings it up to date")?;
    let publisher = Publisher::new(config, Authority::Operator, writers)?;
    let outgoing = Outgoing::<OperatorEvent>::new(decision.position.clone(), OperatorEvent::BatchSkipped(decision));
    publisher.publish([outgoing], PATIENCE).await?;
    Ok(())
}

async fn wait_for_offset(
    config: &Config,
    group: &str,
    batch: &UnreadableBatch,
    patience: Duration,
) -> anyhow::Result<bool> {
    let (offsets, until) = (Arc::new(GroupOffsets::new(config, group)?), Instant::now() + patience);
    loop {
        let (offsets, topic, partition) = (Arc::clone(&offsets), Arc::clone(&batch.topic), batch.partition);
        let committed = tokio::task::spawn_blocking(move || offsets.committed(&topic, partition)).await??;
        if committed.is_some_and(|committed| committed >= batch.next) {
            return Ok(true);
        }
        if Instant::now() >= until {
            return Ok(false);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The batches that the groups of these services wait in front of. Reads the groups' offsets, so no service has to answer.
pub(super) async fn waiting(
    config: &Config,
    services: Vec<&'static str>,
) -> anyhow::Result<Vec<(String, UnreadableBatch)>> {
    let config = config.clone();
    tokio::task::spawn_blocking(move || {
        let mut waiting = Vec::new();
        for service in services {
            let group = client::group(&config.system, service);
            let (inbox, prefix) = (topic(&config.system, service, Channel::Inbox), format!("{}.", config.system));
            for CommittedOffset { topic, partition, next } in GroupOffsets::new(&config, &group)?.lagging(&prefix)? {
                // A group that has consumed nothing of its inbox begins with its first record.
                let Some(next) = next.or((*topic == *inbox).then_some(0)) else { continue };
                match inspect(&config, PATIENCE, (&topic, partition, next)) {
                    Ok(Some(batch)) => waiting.push((group.clone(), batch)),
                    Ok(None) => {}
                    Err(error) => output::note(&format!("{topic}/{partition}: {error}")),
                }
            }
        }
        Ok(waiting)
    })
    .await?
}
