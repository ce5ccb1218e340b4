//! Interns values that repeat across records: topics with their partitions, event types, sources, builds.
//!
//! A saga record holds two small numbers instead: its *partition number* (topic and partition) and its *kind number* (type,
//! source, build, schema and the selected fields of its body). Numbers are assigned in order of arrival, so no reply and no
//! comparison may depend on them.

use std::collections::HashMap;

use crate::declaration::{Declaration, EventSet};

/// The number of a topic and partition.
pub(crate) type PartitionNo = u16;
/// The number of a record kind.
pub(crate) type KindNo = u16;

/// One partition of one topic.
#[derive(Debug, Clone)]
pub(crate) struct TopicPartition {
    pub(crate) topic: u16,
    pub(crate) partition: i32,
}

/// The attributes that many records share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RecordKind {
    pub(crate) event: u16,
    /// The body fields that a declaration selects by, such as `kind=ORDER_PAID`; 0 is none.
    pub(crate) label: u16,
    pub(crate) source: u16,
    pub(crate) build: u16,
    pub(crate) schema: u32,
    /// True for a copy in a dead-letter topic.
    pub(crate) dead_letter: bool,
    /// True if the key of the record is the correlation id, so its sequence number counts the events of the saga.
    pub(crate) own_key: bool,
}

/// The tables of interned values.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    texts: Vec<Box<str>>,
    text_numbers: HashMap<Box<str>, u16>,
    partitions: Vec<TopicPartition>,
    partition_numbers: HashMap<(u16, i32), PartitionNo>,
    kinds: Vec<RecordKind>,
    kind_numbers: HashMap<RecordKind, KindNo>,
    /// Per kind and declaration: the declared events that a record of the kind is.
    declared_events: Vec<Box<[EventSet]>>,
}

impl Interner {
    pub(crate) fn new() -> Self {
        let mut interner = Self::default();
        interner.texts.push("".into());
        interner.text_numbers.insert("".into(), 0);
        interner
    }

    /// The number of a text; `None` if the table is full.
    pub(crate) fn intern(&mut self, text: &str) -> Option<u16> {
        if let Some(number) = self.text_numbers.get(text) {
            return Some(*number);
        }
        let number = u16::try_from(self.texts.len()).ok()?;
        self.texts.push(text.into());
        self.text_numbers.insert(text.into(), number);
        Some(number)
    }

    /// The number of a topic and partition; `None` if the table is full.
    pub(crate) fn partition_no(&mut self, topic: &str, partition: i32) -> Option<PartitionNo> {
        let topic = self.intern(topic)?;
        if let Some(number) = self.partition_numbers.get(&(topic, partition)) {
            return Some(*number);
        }
        let number = PartitionNo::try_from(self.partitions.len()).ok()?;
        self.partitions.push(TopicPartition { topic, partition });
        self.partition_numbers.insert((topic, partition), number);
        Some(number)
    }

    /// The number of a record kind; `None` if the table is full.
    pub(crate) fn kind_no(&mut self, kind: RecordKind, declarations: &[Declaration]) -> Option<KindNo> {
        if let Some(number) = self.kind_numbers.get(&kind) {
            return Some(*number);
        }
        let number = KindNo::try_from(self.kinds.len()).ok()?;
        let declared_events = declarations.iter().map(|declaration| self.events_of(&kind, declaration)).collect();
        self.declared_events.push(declared_events);
        self.kinds.push(kind);
        self.kind_numbers.insert(kind, number);
        Some(number)
    }

    /// The declared events that records of a kind are. A dead letter is a copy and counts as none.
    fn events_of(&self, kind: &RecordKind, declaration: &Declaration) -> EventSet {
        if kind.dead_letter {
            return 0;
        }
        let labels: Vec<&str> = self.text(kind.label).split('&').collect();
        let event = self.text(kind.event);
        let selected = declaration.events.iter().enumerate().filter(|(_, selector)| {
            selector.matches(event)
                && selector
                    .condition
                    .as_ref()
                    .is_none_or(|required| labels.contains(&format!("{}={}", required.path, required.value).as_str()))
        });
        selected.fold(0, |set, (index, _)| set | 1 << index)
    }

    pub(crate) fn text(&self, number: u16) -> &str {
        self.texts.get(usize::from(number)).map_or("", |text| text)
    }

    /// The topic and partition of a number. Numbers are assigned only here, so the lookup always succeeds.
    pub(crate) fn topic_partition(&self, number: PartitionNo) -> (&str, i32) {
        self.partitions.get(usize::from(number)).map_or(("", 0), |known| (self.text(known.topic), known.partition))
    }

    /// Every topic and partition, in order of its number.
    pub(crate) fn topic_partitions(&self) -> impl Iterator<Item = (&str, i32)> {
        self.partitions.iter().map(|known| (self.text(known.topic), known.partition))
    }

    pub(crate) fn topic_of(&self, number: PartitionNo) -> u16 {
        self.partitions.get(usize::from(number)).map_or(0, |known| known.topic)
    }

    pub(crate) fn kind_of(&self, kind: KindNo) -> &RecordKind {
        &self.kinds[usize::from(kind)]
    }

    /// The declared events that records of a kind are, per declaration.
    pub(crate) fn declared_events(&self, kind: KindNo) -> &[EventSet] {
        &self.declared_events[usize::from(kind)]
    }
}
