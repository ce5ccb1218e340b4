//! `dacapo send` and `dacapo publish`: write one record from the command line, after it was checked against its schema.

use std::{io::Read, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use runtime::{
    Channel, clock,
    codec::Writers,
    config::Config,
    envelope::{Envelope, source},
    message::{parked_topic, topic},
    publisher::{Authority, EncodedRecord, Publisher},
    registry::RegistryClient,
    schemas::{CatalogRecord, json::json_to_avro},
};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    musiccorp::SERVICES,
    output, schemas,
    target::{ConnectedSystem, Target},
};

/// How long the broker may take to acknowledge.
const PATIENCE: Duration = Duration::from_secs(15);

/// Flags of `dacapo send`.
#[derive(Debug, clap::Args)]
pub struct SendArgs {
    #[command(flatten)]
    target: Target,
    /// The service whose inbox receives the command
    service: String,
    /// The command, as `dacapo schemas list` names it
    command: String,
    /// The entity: an order, a customer or a sku
    #[arg(long, value_name = "KEY")]
    key: String,
    /// The command's fields as a JSON object; `-` reads standard input
    #[arg(value_name = "JSON")]
    body: String,
    #[command(flatten)]
    identity: RecordIdentity,
}

/// Flags of `dacapo publish`.
#[derive(Debug, clap::Args)]
pub struct PublishArgs {
    #[command(flatten)]
    target: Target,
    /// The topic, which no service may own
    topic: String,
    /// The event's full name, which is its subject in the registry; the newest version is used
    record: String,
    /// The record's key: the entity that the event is about
    #[arg(long, value_name = "KEY")]
    key: String,
    /// The event's fields as a JSON object; `-` reads standard input
    #[arg(value_name = "JSON")]
    body: String,
    #[command(flatten)]
    identity: RecordIdentity,
}

#[derive(Debug, clap::Args)]
struct RecordIdentity {
    /// The record's id; two records with one id are duplicates [default: a new id]
    #[arg(long, value_name = "UUID")]
    id: Option<Uuid>,
    /// The saga that the record belongs to [default: the key]
    #[arg(long, value_name = "ID")]
    correlation: Option<String>,
}

/// Sends a command to an inbox.
///
/// # Errors
/// There is no such command, the fields do not match its schema, or the broker refuses the record.
pub async fn send(args: &SendArgs) -> anyhow::Result<()> {
    let contract = schemas::compiled()?;
    let record = contract
        .find(&args.service, Channel::Inbox, &args.command)
        .with_context(|| unknown_command(contract.records(), &args.service, &args.command))?;
    let version = record.latest();
    let json = parse(&args.body)?;
    let body = json_to_avro(&version.schema, &json)
        .with_context(|| format!("the fields do not match {} v{}", args.command, version.number))?;
    let config = args.target.connect("dacapo").await?.config;
    let (subject, text) = (record.full_name(&config.system), version.text_in(&config.system));
    let registry = RegistryClient::new(&config)?;
    let wanted = subject.clone();
    let found = tokio::task::spawn_blocking(move || registry.find(&wanted, &text)).await?;
    let found = found
        .context("the registry does not know this build's schema; `dacapo schemas register` brings it up to date")?;
    let ready = AvroRecord { topic: record.topic(&config.system), full_name: subject, schema_id: found.id, body };
    write(&config, &args.key, &args.identity, ready).await?;
    let saga = args.identity.correlation.as_deref().unwrap_or(&args.key);
    output::note(&format!("follow it with: dacapo events tail --correlation {saga}"));
    Ok(())
}

/// Writes an event to a topic that no service owns.
///
/// # Errors
/// A service owns the topic, the registry does not know the record, the fields do not match its schema, or the broker refuses the
/// record.
pub async fn publish(args: &PublishArgs) -> anyhow::Result<()> {
    let ConnectedSystem { config, partitions } = args.target.connect("dacapo").await?;
    refuse_owned(&config.system, &args.topic)?;
    if !partitions.contains_key(&args.topic) {
        bail!("there is no topic {} at {}; writing to a topic never creates it", args.topic, config.bootstrap);
    }
    let (registry, subject) = (RegistryClient::new(&config)?, args.record.clone());
    let newest = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let versions = registry.versions(&subject)?;
        let newest = versions.last().with_context(|| format!("the registry has no version of {subject}"))?;
        Ok(registry.schema_of_version(&subject, *newest)?)
    });
    let newest = newest.await?.with_context(|| format!("cannot find {} in the registry", args.record))?;
    let schema = runtime::schemas::parse(&newest.text)?;
    let body = json_to_avro(&schema, &parse(&args.body)?)
        .with_context(|| format!("the fields do not match {}", args.record))?;
    let record = AvroRecord { topic: args.topic.clone(), full_name: args.record.clone(), schema_id: newest.id, body };
    write(&config, &args.key, &args.identity, record).await
}

fn refuse_owned(system: &str, name: &str) -> anyhow::Result<()> {
    for service in SERVICES {
        if name == topic(system, service, Channel::Events) {
            bail!(
                "an operator may not write to {name}: an events topic is written by its owner only; \
                 `dacapo send {service} COMMAND` asks {service} to decide"
            );
        }
        if name == parked_topic(system, service) {
            bail!(
                "an operator may not write to {name}: {service} keeps parked records there; `dacapo parked` retries or drops them"
            );
        }
        if name == topic(system, service, Channel::Inbox) {
            bail!("{name} takes commands: `dacapo send {service} COMMAND` sends one");
        }
    }
    if name == topic(system, projector::status::OWNER, Channel::State) {
        bail!("an operator may not write to {name}: the projector derives it from the events");
    }
    Ok(())
}

struct AvroRecord {
    topic: String,
    full_name: String,
    schema_id: Option<u32>,
    body: Vec<u8>,
}

async fn write(config: &Config, key: &str, identity: &RecordIdentity, record: AvroRecord) -> anyhow::Result<()> {
    let Some(schema_id) = record.schema_id else { bail!("the registry gave no id for {}", record.full_name) };
    let id = identity.id.unwrap_or_else(Uuid::now_v7);
    let mut value = vec![runtime::codec::MAGIC_ID];
    value.extend_from_slice(&schema_id.to_be_bytes());
    value.extend_from_slice(&record.body);
    let mut envelope =
        Envelope::new(id, source(&config.system, "operator"), Arc::from(record.full_name), clock::now_ms())
            .about(key)
            .correlated(identity.correlation.as_deref().unwrap_or(key));
    envelope.build = Some(runtime::telemetry::build());
    let publisher = Publisher::new(config, Authority::Operator, Writers::none())?;
    let ready = EncodedRecord { topic: record.topic, key: key.to_owned(), value, envelope };
    let positions = publisher.send(vec![ready], PATIENCE).await?;
    for position in positions {
        output::line(&format!("{position} {id}"))?;
    }
    Ok(())
}

fn parse(body: &str) -> anyhow::Result<Value> {
    let mut text = body.to_owned();
    if body == "-" {
        text.clear();
        std::io::stdin().lock().read_to_string(&mut text).context("cannot read standard input")?;
    }
    serde_json::from_str(&text).context("the fields are not JSON")
}

fn unknown_command(records: &[CatalogRecord], service: &str, command: &str) -> String {
    let of_service = |record: &&CatalogRecord| record.channel == Channel::Inbox && record.owner == service;
    let known: Vec<&str> = records.iter().filter(of_service).map(|record| record.name.as_str()).collect();
    if known.is_empty() {
        format!("there is no service {service:?} with an inbox; the services are {}", SERVICES.join(", "))
    } else {
        format!("{service} takes no command {command:?}; it takes {}", known.join(", "))
    }
}
