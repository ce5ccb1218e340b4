//! Prints parked records: as a list, or one with everything about it.

use std::sync::Arc;

use comfy_table::{Table, presets};
use projector::{
    api,
    render::{plain, sentence},
};
use runtime::{
    codec::Readers, core::ParkedRecord, envelope::Position, registry::RegistryClient, schemas::json::avro_to_json,
    unreadable::UnreadableBatch,
};
use serde_json::{Map, Value, json};

use super::view::{ParkedRecords, ParkedView};
use crate::output;

/// Prints the parked records that have failed, with `all` also the records that wait behind them, and the batches that groups wait
/// in front of.
pub(super) fn list(
    view: &ParkedView,
    waiting: &[(String, UnreadableBatch)],
    all: bool,
    as_json: bool,
) -> anyhow::Result<()> {
    let parked = view.now();
    if parked.foreign > 0 {
        let foreign = parked.foreign;
        output::note(&format!(
            "{foreign} records on parked topics are not parked records: another program writes there"
        ));
    }
    let mut records: Vec<(&str, &ParkedRecord)> = parked
        .records
        .iter()
        .filter(|(_, parked)| all || parked.failure.is_some())
        .map(|((service, _), parked)| (*service, parked))
        .collect();
    records.sort_by_key(|(service, parked)| (*service, Arc::clone(&parked.entity), parked.number));
    if as_json {
        let mut rows: Vec<Value> = records.iter().map(|(service, record)| row(&parked, service, record)).collect();
        rows.extend(waiting.iter().map(|(group, batch)| batch_row(group, batch)));
        return Ok(output::line(&serde_json::to_string_pretty(&rows)?)?);
    }
    match records.is_empty() {
        true if waiting.is_empty() => output::line("nothing is parked")?,
        true => {}
        false => {
            for line in table(&parked, &records).lines() {
                output::line(line.trim_end())?;
            }
        }
    }
    for (group, batch) in waiting {
        let (position, records, reason) = (batch.position(), batch.records, plain(&batch.reason));
        output::line(&format!(
            "{group} waits in front of {position}: a batch of {records} records cannot be read: {reason}"
        ))?;
        output::line(&format!("skip it: dacapo parked skip {position} --group {group} --reason TEXT"))?;
    }
    Ok(())
}

/// A batch that cannot be read has no service's record; it is a row with the group that waits.
fn batch_row(group: &str, batch: &UnreadableBatch) -> Value {
    json!({
        "group": group,
        "place": batch.position().to_string(),
        "unreadable": batch.reason,
        "records": batch.records,
        "next_offset": batch.next,
    })
}

fn row(parked: &ParkedRecords, service: &str, record: &ParkedRecord) -> Value {
    let mut row = json!(api::ParkedRecord::of(service, record));
    row["behind"] = parked.behind(service, record).len().into();
    row
}

fn table(parked: &ParkedRecords, records: &[(&str, &ParkedRecord)]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["SERVICE", "ENTITY", "POSITION", "RECORD", "WHY", "TRIED", "LAST", "BEHIND"]);
    for (service, record) in records {
        let shown = api::ParkedRecord::of(service, record);
        let (why, tried, last) = match &shown.failure {
            Some(failure) => (plain(&failure.class), failure.attempts.to_string(), failure.at.clone()),
            None => ("waits".to_owned(), "-".to_owned(), "-".to_owned()),
        };
        let behind = parked.behind(service, record).len().to_string();
        table.add_row([
            (*service).to_owned(),
            plain(&shown.entity),
            plain(&shown.place),
            plain(shown.what()),
            why,
            tried,
            last,
            behind,
        ]);
    }
    table
}

/// Prints one record.
pub(super) async fn show(view: &ParkedView, position: &Position, as_json: bool) -> anyhow::Result<()> {
    let (service, parked) = view.at(position)?;
    let body = body(view, &parked).await?;
    let records = view.now();
    let queue = records.behind(service, &parked).into_iter().map(|other| api::ParkedRecord::of(service, other));
    let queue: Vec<api::ParkedRecord> = queue.collect();
    let headers: Map<String, Value> = parked
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), value.as_deref().map_or(Value::Null, text_or_hex)))
        .collect();
    if as_json {
        let mut shown = json!(api::ParkedRecord::of(service, &parked));
        shown["correlation_id"] = parked.correlation_id().into();
        shown["key"] = parked.key.as_deref().map_or(Value::Null, text_or_hex);
        shown["headers"] = headers.into();
        shown["body"] = body;
        shown["behind"] = json!(queue);
        return Ok(output::line(&serde_json::to_string_pretty(&shown)?)?);
    }
    for line in lines(service, &parked, &headers, &body, &queue) {
        output::line(&line)?;
    }
    Ok(())
}

fn lines(
    service: &str,
    parked: &ParkedRecord,
    headers: &Map<String, Value>,
    body: &Value,
    queue: &[api::ParkedRecord],
) -> Vec<String> {
    let record = api::ParkedRecord::of(service, parked);
    let mut lines = vec![
        format!("{} for {} of {service}", plain(record.what()), plain(&record.entity)),
        format!("position    {}", plain(&record.place)),
        format!("saga        {}", plain(parked.correlation_id())),
    ];
    match &record.failure {
        Some(failure) => {
            lines.push(format!("failed      {}: {}", plain(&failure.class), sentence(&failure.reason)));
            lines.push(format!("tried       {} times, last {}", failure.attempts, failure.at));
        }
        None => lines.push("waits       behind a failed record of the same entity".to_owned()),
    }
    for (name, value) in headers {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        lines.push(format!("header      {} = {}", plain(name), sentence(&value)));
    }
    lines.push(format!("body        {}", sentence(&body.to_string())));
    for behind in queue {
        lines.push(format!("behind it   {} at {}", plain(behind.what()), plain(&behind.place)));
    }
    let commands = "retry it: dacapo parked retry POSITION; drop it: dacapo parked drop POSITION --reason TEXT";
    lines.push(commands.replace("POSITION", &plain(&record.place)));
    lines
}

/// The body as JSON if its schema is known, else in hexadecimal.
async fn body(view: &ParkedView, parked: &ParkedRecord) -> anyhow::Result<Value> {
    let Some(value) = parked.value.clone() else { return Ok(Value::Null) };
    let registry = RegistryClient::new(&view.config)?;
    let decoded = tokio::task::spawn_blocking(move || {
        let readers = Readers::new(Arc::new(registry));
        let decoded = readers.decode(Some(&value), None).ok();
        let fields = decoded.and_then(|decoded| avro_to_json(decoded.schema.avro, decoded.body).ok());
        fields.unwrap_or_else(|| text_or_hex(&value))
    });
    Ok(decoded.await?)
}

/// Text as it is; other bytes in hexadecimal, truncated.
fn text_or_hex(bytes: &[u8]) -> Value {
    const SHOWN: usize = 1_024;
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.into(),
        _ => {
            let hex: String = bytes.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect();
            json!({ "hex": hex, "bytes": bytes.len() })
        }
    }
}
