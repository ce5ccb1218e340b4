//! Formats sagas for a terminal: pure functions from replies to text.
//!
//! Everything in a reply may come from an event and is untrusted. Characters that could move the cursor, change a colour or
//! change the direction of writing are shown as their code.

use comfy_table::{Table, presets};

use crate::api::{
    AsOf, CountsReply, NodeProgress, ParkedFailure, ParkedRecord, SagaChange, SagaList, SagaReply, SagaSummary,
    TimelineRecord,
};

/// The longest text in one cell.
const CELL_MAX: usize = 96;

/// The longest text on a line of its own.
const SENTENCE_MAX: usize = 600;

/// External text, safe to print in a cell.
#[must_use]
pub fn plain(text: &str) -> String {
    truncate(text, CELL_MAX)
}

/// External text, safe to print on a line of its own.
#[must_use]
pub fn sentence(text: &str) -> String {
    truncate(text, SENTENCE_MAX)
}

fn truncate(text: &str, most: usize) -> String {
    let mut plain = String::with_capacity(text.len());
    for (count, c) in text.chars().enumerate() {
        if count == most {
            plain.push('…');
            break;
        }
        if c.is_control() || is_invisible(c) {
            plain.extend(c.escape_unicode());
        } else {
            plain.push(c);
        }
    }
    plain
}

/// Characters that change how their neighbours are shown: direction marks and overrides, joiners, separators, tags.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// `dacapo sagas list`.
#[must_use]
pub fn list(reply: &SagaList) -> String {
    if reply.items.is_empty() {
        return format!("no saga matches\n{}", as_of(&reply.as_of));
    }
    let mut table = table(&["ID", "SAGA", "STATE", "OUTCOME", "WAITING FOR", "FLAGS", "UPDATED"]);
    for saga in &reply.items {
        table.add_row([
            plain(&saga.id),
            plain(&saga.saga),
            plain(&saga.state),
            plain(saga.outcome.as_deref().unwrap_or("-")),
            waits_for(saga),
            plain(&or_dash(&saga.flags.join(","))),
            plain(&saga.updated_at),
        ]);
    }
    let more = if reply.next.is_some() { "there are more\n" } else { "" };
    format!("{}{more}{}", text(&table), as_of(&reply.as_of))
}

/// `dacapo sagas show`.
#[must_use]
pub fn show(reply: &SagaReply) -> String {
    let detail = &reply.saga;
    let saga = &detail.saga;
    let mut shown = format!("{}  {}  {}", plain(&saga.saga), plain(&saga.id), plain(&saga.state));
    if let Some(outcome) = &saga.outcome {
        shown.push_str(&format!(" ({}{})", plain(outcome), if saga.settled { "" } else { ", not settled" }));
    }
    if !saga.flags.is_empty() {
        shown.push_str(&format!("  [{}]", plain(&saga.flags.join(", "))));
    }
    shown.push_str(&format!("\n{}\n", sentence(&saga.sentence)));
    shown.push_str(&format!("started {}, last record {}", plain(&saga.started_at), plain(&saga.updated_at)));
    if let (Some(ended_at), Some(took_ms)) = (&saga.ended_at, saga.took_ms) {
        shown.push_str(&format!(", ended {} after {}", plain(ended_at), duration(took_ms)));
    }
    shown.push('\n');
    for waiting in &saga.waiting {
        shown.push_str(&format!(
            "waiting for {} ({}) since {}, due {}\n",
            plain(&waiting.owner),
            plain(&waiting.step),
            plain(&waiting.since),
            plain(&waiting.due_at)
        ));
    }
    shown.push_str(&parked(&detail.parked));
    shown.push('\n');
    shown.push_str(&nodes(&detail.nodes));
    if detail.compensations.iter().any(|node| !matches!(node.status.as_str(), "ahead" | "skipped")) {
        shown.push('\n');
        shown.push_str(&nodes(&detail.compensations));
    }
    shown.push('\n');
    shown.push_str(&timeline(&detail.timeline));
    if detail.timeline_next.is_some() {
        shown.push_str("the timeline has more records\n");
    }
    shown.push_str(&as_of(&reply.as_of));
    shown
}

/// One line of `dacapo sagas watch`.
#[must_use]
pub fn change(change: &SagaChange) -> String {
    match change {
        SagaChange::Left { saga, id, .. } => format!("{}  {}  no longer matches\n", plain(saga), plain(id)),
        SagaChange::Upsert { saga } => {
            let flags =
                if saga.flags.is_empty() { String::new() } else { format!("  [{}]", plain(&saga.flags.join(","))) };
            format!(
                "{}  {}  {}  {}{flags}\n",
                plain(&saga.updated_at),
                plain(&saga.id),
                plain(&saga.state),
                plain(&saga.sentence)
            )
        }
    }
}

/// The counts, one saga after the other.
#[must_use]
pub fn counts(reply: &CountsReply) -> String {
    let mut shown = String::new();
    for counts in &reply.sagas {
        let mut table = table(&["", "COUNT"]);
        table.add_row([plain(&counts.saga), counts.total.to_string()]);
        for (kind, parts) in [
            ("", &counts.states),
            ("ended: ", &counts.outcomes),
            ("waiting for: ", &counts.waiting),
            ("flag: ", &counts.flags),
        ] {
            for (name, count) in parts.iter().filter(|(_, count)| **count > 0) {
                table.add_row([format!("  {kind}{}", plain(name)), count.to_string()]);
            }
        }
        shown.push_str(&text(&table));
    }
    for (reason, count) in reply.unplaced.iter().filter(|(_, count)| **count > 0) {
        shown.push_str(&format!("records in no saga: {count} ({})\n", plain(reason)));
    }
    shown.push_str(&as_of(&reply.as_of));
    shown
}

fn nodes(nodes: &[NodeProgress]) -> String {
    let mut table = table(&["STEP", "OWNER", "STATUS", "OWED SINCE", "DONE", "NOTE"]);
    for node in nodes {
        let note = match (&node.failed_at, &node.undone_at, node.late) {
            (_, Some(at), _) => format!("undone {at}"),
            (Some(at), ..) => format!("failed {at}"),
            (.., true) => "late".to_owned(),
            _ => String::new(),
        };
        table.add_row([
            plain(&node.title),
            plain(&node.owner),
            plain(&node.status),
            plain(node.since.as_deref().unwrap_or("-")),
            plain(node.done_at.as_deref().unwrap_or("-")),
            plain(&note),
        ]);
    }
    text(&table)
}

fn parked(records: &[ParkedRecord]) -> String {
    let mut shown = String::new();
    for record in records {
        let (service, event, place) = (plain(&record.service), plain(record.what()), plain(&record.place));
        shown.push_str(&match &record.failure {
            Some(ParkedFailure { class, reason, attempts, at }) => format!(
                "parked in {service}: {event} at {place} ({}, tried {attempts} times, last {}): {}\n",
                plain(class),
                plain(at),
                sentence(reason)
            ),
            None => {
                let first = record.behind.as_deref().map_or_else(|| "-".to_owned(), plain);
                format!("parked in {service} behind {first}: {event} at {place}\n")
            }
        });
    }
    let first = records.iter().find_map(|record| match record.failure {
        Some(_) => Some(&record.place),
        None => record.behind.as_ref(),
    });
    if let Some(first) = first {
        shown.push_str(&format!("to resolve: dacapo parked show {}; then retry or drop it\n", plain(first)));
    }
    shown
}

fn timeline(rows: &[TimelineRecord]) -> String {
    let mut table = table(&["AT", "EVENT", "SOURCE", "POSITION", "CAUSE", "SCHEMA", "BUILD"]);
    for row in rows {
        let mut event = plain(row.event.rsplit('.').next().unwrap_or_default());
        if let Some(label) = &row.label {
            event.push_str(&format!(" [{}]", plain(label)));
        }
        if row.dead_letter {
            event.push_str(" (dead letter)");
        } else if !row.declared {
            event.push_str(" (not declared)");
        }
        let cause = match (&row.cause_event, &row.cause) {
            (Some(event), _) => plain(event.rsplit('.').next().unwrap_or_default()),
            (None, Some(id)) => plain(id.get(..8).unwrap_or(id)),
            (None, None) => "-".to_owned(),
        };
        let schema = match (row.schema_id, row.schema_version) {
            (Some(id), Some(version)) => format!("v{version} (#{id})"),
            (Some(id), None) => format!("#{id}"),
            _ => "-".to_owned(),
        };
        table.add_row([
            plain(&row.at),
            event,
            plain(row.source.rsplit('/').next().unwrap_or_default()),
            format!("{}/{}/{}", plain(&row.topic), row.partition, row.offset),
            cause,
            schema,
            plain(row.build.as_deref().unwrap_or("-")),
        ]);
    }
    text(&table)
}

fn waits_for(saga: &SagaSummary) -> String {
    let owed: Vec<String> =
        saga.waiting.iter().map(|waiting| format!("{}: {}", plain(&waiting.owner), plain(&waiting.step))).collect();
    or_dash(&owed.join(", "))
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// The read progress in one line, and a line for each partition that waits.
#[must_use]
pub fn as_of(as_of: &AsOf) -> String {
    let read = as_of.watermark.as_deref().map_or_else(|| "nothing".to_owned(), |at| format!("up to {}", plain(at)));
    let behind = if as_of.caught_up { String::new() } else { format!(", {} records behind", as_of.lag_records) };
    let held = as_of.held.iter().map(|held| format!("waits at {}: {}\n", plain(&held.place), sentence(&held.reason)));
    format!("read {read}{behind}\n{}", held.collect::<String>())
}

fn duration(took_ms: i64) -> String {
    format!("{}.{:03} s", took_ms / 1_000, took_ms.rem_euclid(1_000))
}

fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head);
    table
}

/// The text of a table without trailing blanks.
fn text(table: &Table) -> String {
    table.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
