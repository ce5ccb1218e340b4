//! `dacapo events tail`: prints records of topics as JSON, one a line.

use std::{sync::Arc, time::Duration};

use anyhow::bail;
use clap::Subcommand;
use runtime::{
    Channel,
    codec::Readers,
    message::topic,
    projection::{LiveView, LogRecord, Projection, Topics},
    registry::RegistryClient,
    schemas::json::avro_to_json,
    unreadable::OPERATOR,
};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use crate::{
    musiccorp::SERVICES,
    output,
    target::{ConnectedSystem, Target},
};

/// How many lines may wait for standard output.
const QUEUED_LINES: usize = 1_000;

/// Subcommands of `dacapo events`.
#[derive(Debug, Subcommand)]
pub enum EventsCommand {
    /// Print records as JSON, one a line; only records of one partition keep their order
    Tail(TailArgs),
}

/// Flags of `dacapo events tail`.
#[derive(Debug, clap::Args)]
pub struct TailArgs {
    #[command(flatten)]
    target: Target,
    /// Topic to read; may be repeated [default: every events topic of the system]
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// Also read the inboxes
    #[arg(long)]
    inboxes: bool,
    /// Only records of this type, by short or full name
    #[arg(long = "type", value_name = "NAME")]
    record_type: Option<String>,
    /// Only records of this saga
    #[arg(long, value_name = "ID")]
    correlation: Option<String>,
    /// Only records with this key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Continue with new records when the end is reached
    #[arg(long, short)]
    follow: bool,
}

/// Runs a subcommand.
///
/// # Errors
/// The topics or the registry cannot be read.
pub async fn run(command: &EventsCommand) -> anyhow::Result<()> {
    let EventsCommand::Tail(args) = command;
    tail(args).await
}

impl TailArgs {
    fn topics(&self, system: &str) -> Vec<String> {
        let mut topics = self.topics.clone();
        if topics.is_empty() {
            let owners = SERVICES.into_iter().chain([OPERATOR]);
            topics.extend(owners.map(|owner| topic(system, owner, Channel::Events)));
        }
        if self.inboxes {
            topics.extend(SERVICES.map(|service| topic(system, service, Channel::Inbox)));
        }
        topics
    }
}

async fn tail(args: &TailArgs) -> anyhow::Result<()> {
    output::end_on_interrupt()?;
    let ConnectedSystem { config, partitions } = args.target.connect("dacapo-tail").await?;
    let topics = args.topics(&config.system);
    let missing: Vec<&str> = topics.iter().map(String::as_str).filter(|name| !partitions.contains_key(*name)).collect();
    if !missing.is_empty() && !args.follow {
        bail!("there is no topic {} at {}; --follow waits for it", missing.join(", "), config.bootstrap);
    }
    let readers = Readers::new(Arc::new(RegistryClient::new(&config)?));
    let (lines, mut printed) = mpsc::channel(QUEUED_LINES);
    let printer = Printer {
        lines,
        record_type: args.record_type.clone(),
        correlation: args.correlation.clone(),
        key: args.key.clone(),
    };
    let view = LiveView::start(&config, "tail", readers, Topics::default().and_raw(topics), printer)?;
    let mut at_end = false;
    loop {
        tokio::select! {
            biased;
            line = printed.recv() => match line {
                Some(line) => output::line(&line)?,
                None => break,
            },
            done = view.wait_until_caught_up(Duration::from_secs(3_600)), if !at_end && !args.follow => {
                done?;
                output::note_held(&view.health());
                at_end = true;
            }
            () = std::future::ready(()), if at_end => break,
        }
    }
    drop(printed);
    tokio::task::spawn_blocking(move || drop(view)).await?;
    Ok(())
}

struct Printer {
    lines: mpsc::Sender<String>,
    record_type: Option<String>,
    correlation: Option<String>,
    key: Option<String>,
}

impl Projection for Printer {
    fn apply(&mut self, record: &LogRecord<'_>) {
        let name = record.schema().map_or("", |schema| schema.full_name.as_str());
        let short = name.rsplit('.').next().unwrap_or(name);
        let is_wanted = |wanted: &Option<String>, found: &[&str]| match wanted {
            Some(wanted) => found.contains(&wanted.as_str()),
            None => true,
        };
        let correlation = record.header("ce_correlationid").and_then(|id| std::str::from_utf8(id).ok()).unwrap_or("");
        if is_wanted(&self.record_type, &[name, short])
            && is_wanted(&self.correlation, &[correlation])
            && is_wanted(&self.key, &[record.key_text().unwrap_or("")])
            && self.lines.blocking_send(shown(record)).is_err()
        {
            tracing::trace!("the printer has stopped");
        }
    }
}

/// A record as one line of JSON. Bytes that cannot be decoded are printed in hexadecimal.
fn shown(record: &LogRecord<'_>) -> String {
    let mut headers = Map::new();
    for (name, value) in record.headers().into_iter().flatten() {
        headers.insert(name.to_owned(), value.map_or(Value::Null, text_or_hex));
    }
    let value = match (record.decoded(), record.value) {
        (Some(decoded), _) => avro_to_json(decoded.schema.avro, decoded.body)
            .unwrap_or_else(|error| json!({ "undecodable": error.to_string(), "hex": hex(decoded.body) })),
        (None, Some(value)) => json!({ "hex": hex(value) }),
        (None, None) => Value::Null,
    };
    json!({
        "topic": &**record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "key": record.key.map(text_or_hex),
        "type": record.schema().map(|schema| schema.full_name.as_str()),
        "headers": headers,
        "value": value,
    })
    .to_string()
}

fn text_or_hex(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({ "hex": hex(bytes) }),
    }
}

fn hex(bytes: &[u8]) -> String {
    const SHOWN: usize = 1_024;
    let mut text: String = bytes.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect();
    if bytes.len() > SHOWN {
        text.push('…');
    }
    text
}
