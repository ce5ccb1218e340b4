//! The records that a task appends to a batch: events, commands, forwarded records, dead letters and timers.

use std::sync::Arc;

use super::{DeciderFailure, DecisionContext, failed};
use crate::{
    OutputHeaders, OutputTopic, Record, RuntimeRecord, ServiceContract,
    contract::RecordDefect,
    decider::{Decider, OutgoingCommand, Received, TimerFired, TimestampMs},
    entity::RecentEvent,
    envelope::{Envelope, MAX_VALUE_BYTES, Position, caused_id, derived_id, header},
    limits,
    parking::headers_of_dead_letter,
    partition_of,
    unreadable::{BatchSkipped, SkippedBatch},
};

/// The input of a decision, as the cause of the records that follow.
pub(super) struct Cause<'a, I> {
    pub(super) record: &'a Record<'a>,
    pub(super) envelope: &'a Envelope,
    pub(super) received: &'a Received<I>,
    pub(super) sequence: u64,
}

/// The envelope of a record that follows from a cause.
fn follow<I>(
    contract: &ServiceContract,
    cause: &Cause<'_, I>,
    full_name: &Arc<str>,
    index: usize,
    time_ms: i64,
) -> Envelope {
    let id = caused_id(cause.received.id, full_name, index);
    Envelope {
        correlation_id: cause.envelope.correlation_id.clone(),
        causation_id: Some(cause.received.id),
        cause_position: Some(cause.record.position()),
        origin_position: cause.envelope.origin_position.clone(),
        build: Some(Arc::clone(&contract.build)),
        traceparent: cause.envelope.traceparent.clone(),
        ..Envelope::new(id, Arc::clone(&contract.source), Arc::clone(full_name), time_ms)
    }
}

pub(super) fn append_events<D: Decider>(
    context: &mut DecisionContext<'_, D>,
    partition: i32,
    key: &str,
    cause: &Cause<'_, D::Input>,
    events: &[D::Event],
) -> Result<Vec<RecentEvent>, DeciderFailure> {
    let contract = context.contract;
    let time_ms = context.now_ms.max(cause.received.at_ms);
    let mut recent = Vec::with_capacity(events.len());
    for (index, event) in events.iter().enumerate() {
        let (value, full_name) = context
            .batch
            .put_with(|out| contract.write(event, out))
            .map_err(|e| failed(cause.record, format!("an event cannot be written: {e}"), false))?;
        let digest = crc32c::crc32c(context.batch.bytes(value.clone()));
        let sequence = Some(cause.sequence + 1 + index as u64);
        let envelope = follow(contract, cause, full_name, index, time_ms).about(key);
        let envelope = Envelope { sequence, ..envelope };
        recent.push(RecentEvent { cause: cause.received.id, id: envelope.id, digest });
        let headers = OutputHeaders::Envelope(Box::new(envelope));
        fits(key.len() + value.len(), &headers, contract.limits.events)
            .map_err(|why| failed(cause.record, format!("an event cannot be produced: {why}"), false))?;
        let bytes = (Some(context.batch.put(key.as_bytes())), Some(value));
        context.batch.append(OutputTopic::Events, Some(partition), time_ms, headers, bytes);
    }
    Ok(recent)
}

pub(super) fn append_commands<D: Decider>(
    context: &mut DecisionContext<'_, D>,
    cause: &Cause<'_, D::Input>,
    commands: &[OutgoingCommand<D::Command>],
) -> Result<(), DeciderFailure> {
    let contract = context.contract;
    let time_ms = context.now_ms.max(cause.received.at_ms);
    for (index, OutgoingCommand { key, command }) in commands.iter().enumerate() {
        if key.is_empty() {
            return Err(failed(cause.record, "a command cannot be sent: its key is empty".to_owned(), false));
        }
        let (value, full_name) = context
            .batch
            .put_with(|out| contract.write(command, out))
            .map_err(|e| failed(cause.record, format!("a command cannot be written: {e}"), false))?;
        let envelope = follow(contract, cause, full_name, index, time_ms).about(&**key);
        let headers = OutputHeaders::Envelope(Box::new(Envelope { origin_position: None, ..envelope }));
        fits(key.len() + value.len(), &headers, contract.limits.inbox)
            .map_err(|why| failed(cause.record, format!("a command cannot be sent: {why}"), false))?;
        let bytes = (Some(context.batch.put(key.as_bytes())), Some(value));
        let partition = Some(partition_of(key.as_bytes(), contract.partitions));
        context.batch.append(OutputTopic::Inbox, partition, time_ms, headers, bytes);
    }
    Ok(())
}

/// Checks that the topic takes a record of a decision. A broker would reject it for ever, so the error must name the input before
/// the batch is sent.
pub(super) fn fits(bytes: usize, headers: &OutputHeaders, most: usize) -> Result<(), String> {
    // The subject is the key, and the rest of an envelope is far smaller than this, so most records need no exact size.
    const ENVELOPE_BYTES: usize = 32 << 10;
    if 2 * bytes + ENVELOPE_BYTES <= most {
        return Ok(());
    }
    match limits::size(bytes, headers) {
        size if size <= most => Ok(()),
        size => Err(format!("it has up to {size} bytes, and its topic takes {most}; hint: raise max.message.bytes")),
    }
}

/// Forwards a record to the partition of the own inbox that owns its entity, with the same body, headers, id, cause and
/// correlation. Attributes that the record lacks and that follow from its position are written as headers, because the position
/// changes.
pub(super) fn forward<D: Decider>(
    context: &mut DecisionContext<'_, D>,
    record: &Record<'_>,
    envelope: &Envelope,
    received: &Received<D::Input>,
    (entity, owner): (&str, i32),
) -> Result<(), RecordDefect> {
    let mut headers = verbatim(record);
    let mut ensure = |name: &str, value: &str| {
        let last = headers.iter().rev().find(|(known, _)| known == name);
        if last.and_then(|(_, known)| known.as_deref()) != Some(value.as_bytes()) {
            headers.push((name.to_owned(), Some(value.as_bytes().to_vec())));
        }
    };
    ensure(header::ID, &envelope.id.to_string());
    ensure(header::SUBJECT, &received.key);
    ensure(header::CORRELATION_ID, &envelope.correlation_id);
    if envelope.origin_position.is_none() {
        ensure(header::ORIGIN_POSITION, &record.position().to_string());
    }
    let headers = OutputHeaders::Verbatim(headers);
    let size = limits::size(entity.len() + record.value.map_or(0, <[u8]>::len), &headers);
    let most = context.contract.limits.inbox;
    if size > most {
        let message = format!("forwarded to partition {owner} it has up to {size} bytes, and the inbox takes {most}");
        return Err(RecordDefect { class: "size", message });
    }
    let key = context.batch.put(entity.as_bytes());
    let value = record.value.map(|value| context.batch.put(value));
    context.batch.append(OutputTopic::Inbox, Some(owner), record.timestamp_ms, headers, (Some(key), value));
    Ok(())
}

/// Dead-letters a record: writes its bytes and headers with its position and the reason to the dead-letter topic. If the topic does
/// not take all of it, the dead letter omits the body and says so; the position shows where the body is.
pub(super) fn dead_letter<D>(context: &mut DecisionContext<'_, D>, record: &Record<'_>, defect: &RecordDefect) {
    let DecisionContext { contract, now_ms, .. } = *context;
    let bytes = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
    let mut reason = crate::text::printable(&defect.message, 400).into_owned();
    let (mut key, mut value, at) = (record.key, record.value, record.position());
    let errors = error_headers(contract, &at, defect.class, now_ms, &reason);
    let whole = OutputHeaders::Verbatim([verbatim(record), errors].concat());
    let (size, most) = (limits::size(bytes(key) + bytes(value), &whole), contract.limits.dead_letters);
    let headers = if size <= most {
        whole
    } else {
        let mut kept = verbatim(record);
        let mut omitted = vec!["value"];
        value = None;
        if !limits::trim_headers(&mut kept) {
            omitted.push("headers");
        }
        if bytes(key) > MAX_VALUE_BYTES {
            omitted.push("key");
            key = None;
        }
        let omitted = omitted.join(",");
        reason = format!("{reason} (without its {omitted}: it has up to {size} bytes, and this topic takes {most})");
        kept.extend(error_headers(contract, &at, defect.class, now_ms, &reason));
        kept.push((format!("{}.errors.omitted", contract.system), Some(omitted.into_bytes())));
        OutputHeaders::Verbatim(kept)
    };
    tracing::warn!(position = %record.position(), class = defect.class, %reason, "record dead-lettered");
    let (key, value) = (key.map(|key| context.batch.put(key)), value.map(|value| context.batch.put(value)));
    context.batch.append(OutputTopic::DeadLetters, None, record.timestamp_ms, headers, (key, value));
    // The own log has no trace of it. The tombstone keeps it from being dead-lettered again if the group loses its offsets.
    let position = context.batch.put(record.position().to_string().as_bytes());
    let headers = OutputHeaders::Verbatim(headers_of_dead_letter(&contract.system, now_ms));
    context.batch.append(OutputTopic::Parked, Some(record.partition), now_ms, headers, (Some(position), None));
}

/// Dead-letters a batch that an operator skips: its bytes as the broker stores them, in as many dead letters as the topic needs.
pub(super) fn dead_letter_batch<D>(
    context: &mut DecisionContext<'_, D>,
    first: &Position,
    skipped: SkippedBatch<'_>,
    partition: i32,
) {
    /// What the headers of one of these dead letters take at most.
    const HEADERS_BYTES: usize = 8 << 10;
    let DecisionContext { contract, now_ms, .. } = *context;
    let BatchSkipped { defect, by, reason, next_offset, .. } = skipped.decision;
    let short = |text: &str| crate::text::printable(text, 400).into_owned();
    let message = format!("an operator skipped a batch that cannot be read: {}", short(defect));
    let part = contract.limits.dead_letters.saturating_sub(HEADERS_BYTES).max(1);
    let parts: Vec<&[u8]> = skipped.bytes.chunks(part).collect();
    for (number, bytes) in parts.iter().enumerate() {
        let mut headers = error_headers(contract, first, "batch", now_ms, &message);
        let own = |name: &str, value: String| (format!("{}.errors.{name}", contract.system), Some(value.into_bytes()));
        headers.push(own("next.offset", next_offset.to_string()));
        headers.push(own("part", format!("{}/{}", number + 1, parts.len())));
        headers.push(own("by", short(by)));
        headers.push(own("reason", short(reason)));
        let value = context.batch.put(bytes);
        context.batch.append(
            OutputTopic::DeadLetters,
            None,
            now_ms,
            OutputHeaders::Verbatim(headers),
            (None, Some(value)),
        );
    }
    tracing::warn!(position = %first, next_offset, by, reason, "an operator skips a batch that cannot be read");
    // If the group loses its offsets, the tombstone shows that the input was received up to the end of the batch.
    let last = Position::new(Arc::clone(&first.topic), first.partition, next_offset - 1);
    let position = context.batch.put(last.to_string().as_bytes());
    let headers = OutputHeaders::Verbatim(headers_of_dead_letter(&contract.system, now_ms));
    context.batch.append(OutputTopic::Parked, Some(partition), now_ms, headers, (Some(position), None));
}

/// The headers that a dead letter has besides those of the record: its position and the reason.
fn error_headers(
    contract: &ServiceContract,
    position: &Position,
    class: &str,
    now_ms: TimestampMs,
    reason: &str,
) -> Vec<(String, Option<Vec<u8>>)> {
    let kafka = |name: &str, value: &str| (format!("__dlq.errors.{name}"), Some(value.as_bytes().to_vec()));
    let own = |name: &str, value: &str| (format!("{}.errors.{name}", contract.system), Some(value.as_bytes().to_vec()));
    vec![
        kafka("topic", &position.topic),
        kafka("partition", &position.partition.to_string()),
        kafka("offset", &position.offset.to_string()),
        kafka("group", &contract.group),
        kafka("delivery.count", "1"),
        kafka("message", reason),
        own("class", class),
        own("time", &crate::time::rfc3339(now_ms)),
    ]
}

fn verbatim(record: &Record<'_>) -> Vec<(String, Option<Vec<u8>>)> {
    record.headers.iter().map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec))).collect()
}

pub(super) fn write_timer<D: Decider>(
    context: &mut DecisionContext<'_, D>,
    partition: i32,
    key: &Arc<str>,
    correlation_id: &str,
    due_at: TimestampMs,
) {
    let contract = context.contract;
    let fired = RuntimeRecord::from(TimerFired { due_at });
    let Ok((value, full_name)) = context.batch.put_with(|out| contract.write(&fired, out)) else {
        tracing::error!(entity = %key, "the timer's record cannot be written; the timer does not fire");
        return;
    };
    let id = derived_id(&["timer", contract.service, key, &due_at.to_string()]);
    let time_ms = context.now_ms.max(due_at);
    let envelope = Envelope::new(id, Arc::clone(&contract.source), Arc::clone(full_name), time_ms)
        .about(&**key)
        .correlated(correlation_id);
    let envelope = Envelope { build: Some(Arc::clone(&contract.build)), ..envelope };
    let bytes = (Some(context.batch.put(key.as_bytes())), Some(value));
    context.batch.append(
        OutputTopic::Inbox,
        Some(partition),
        time_ms,
        OutputHeaders::Envelope(Box::new(envelope)),
        bytes,
    );
}
