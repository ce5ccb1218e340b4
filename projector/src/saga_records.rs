//! The records of one correlation id, independent of their order of arrival.
//!
//! A record takes 52 bytes. Of repeats (same id, same event) the record that is first by time and position is kept. The first
//! [`RECORDS_MAX`] records by time and position are kept, and beyond them only the first of each declared event. Both rules
//! give the same records for every order of arrival, so everything derived from them is the same too.

use std::cmp::Ordering;

use crate::{
    declaration::EventSet,
    interner::{Interner, KindNo, PartitionNo},
};

/// The number of records that are kept regardless of their type.
pub(crate) const RECORDS_MAX: usize = 512;

/// One record of a saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SagaRecord {
    pub(crate) id: [u8; 16],
    /// All zero if no record caused it.
    pub(crate) cause: [u8; 16],
    at_low: u32,
    offset_low: u32,
    /// The sequence number of the entity, 0 if it has none.
    pub(crate) sequence: u32,
    at_high: u16,
    offset_high: u16,
    pub(crate) partition_no: PartitionNo,
    pub(crate) kind: KindNo,
}

const _: () =
    assert!(size_of::<SagaRecord>() == 52, "the memory of the projector grows by this size with every record");

impl SagaRecord {
    pub(crate) fn new(id: [u8; 16], cause: [u8; 16], at_ms: i64, partition_no: PartitionNo, offset: i64) -> Self {
        let (at_low, at_high) = split(at_ms);
        let (offset_low, offset_high) = split(offset);
        Self { id, cause, at_low, offset_low, sequence: 0, at_high, offset_high, partition_no, kind: 0 }
    }

    pub(crate) fn at_ms(&self) -> i64 {
        i64::from(self.at_high) << 32 | i64::from(self.at_low)
    }

    pub(crate) fn offset(&self) -> i64 {
        i64::from(self.offset_high) << 32 | i64::from(self.offset_low)
    }

    /// Orders by time, then by position (topic, partition, offset).
    pub(crate) fn compare(&self, other: &Self, interner: &Interner) -> Ordering {
        self.at_ms().cmp(&other.at_ms()).then_with(|| {
            let partitions = if self.partition_no == other.partition_no {
                Ordering::Equal
            } else {
                interner.topic_partition(self.partition_no).cmp(&interner.topic_partition(other.partition_no))
            };
            partitions.then_with(|| self.offset().cmp(&other.offset()))
        })
    }
}

/// 48 bits: times until the year 10889, and 281 trillion offsets.
fn split(value: i64) -> (u32, u16) {
    let value = value.clamp(0, (1 << 48) - 1);
    (u32::try_from(value & 0xffff_ffff).unwrap_or(u32::MAX), u16::try_from(value >> 32).unwrap_or(u16::MAX))
}

/// The result of an insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Insertion {
    /// The record is new; nothing else changed.
    New,
    /// The record replaced or removed another one: an earlier state cannot be derived from the records any more.
    Rewritten,
    /// A repeat: nothing changed.
    Repeat,
    /// The limit is reached: nothing changed.
    OverLimit,
}

/// The records of one correlation id, in the order of time and index.
#[derive(Debug, Default)]
pub(crate) struct SagaRecords {
    pub(crate) items: Vec<SagaRecord>,
}

impl SagaRecords {
    pub(crate) fn add(&mut self, record: SagaRecord, interner: &Interner) -> Insertion {
        let mut replaced = false;
        if let Some(known) = self.find(&record, interner) {
            if self.items[known].compare(&record, interner) != Ordering::Greater {
                return Insertion::Repeat;
            }
            self.items.remove(known);
            replaced = true;
        }
        let index = self.position_of(&record, interner);
        if index >= RECORDS_MAX && self.adds_nothing(index, &record, interner) {
            return if replaced { Insertion::Rewritten } else { Insertion::OverLimit };
        }
        self.make_room();
        self.items.insert(index, record);
        let trimmed = self.trim(interner);
        if replaced || trimmed { Insertion::Rewritten } else { Insertion::New }
    }

    /// The record of the same event, if there is one.
    fn find(&self, record: &SagaRecord, interner: &Interner) -> Option<usize> {
        let kind = interner.kind_of(record.kind);
        self.items.iter().position(|known| {
            known.id == record.id && {
                let other = interner.kind_of(known.kind);
                other.event == kind.event
                    && other.dead_letter == kind.dead_letter
                    && (!kind.dead_letter
                        || interner.topic_of(known.partition_no) == interner.topic_of(record.partition_no))
            }
        })
    }

    /// Records come mostly in order, so the search starts at the end.
    fn position_of(&self, record: &SagaRecord, interner: &Interner) -> usize {
        match self.items.last() {
            Some(last) if last.compare(record, interner) == Ordering::Greater => {
                self.items.partition_point(|known| known.compare(record, interner) == Ordering::Less)
            }
            _ => self.items.len(),
        }
    }

    /// Grows by a quarter: doubling would leave half the memory of a hundred thousand sagas unused.
    fn make_room(&mut self) {
        if self.items.len() == self.items.capacity() {
            self.items.reserve_exact((self.items.len() / 4).max(8));
        }
    }

    /// True if the records before `index` already include every declared event that `record` is.
    fn adds_nothing(&self, index: usize, record: &SagaRecord, interner: &Interner) -> bool {
        are_covered(interner.declared_events(record.kind), &self.items[..index], interner)
    }

    /// Removes records beyond the limit. True if one was removed.
    fn trim(&mut self, interner: &Interner) -> bool {
        let before = self.items.len();
        let mut index = RECORDS_MAX;
        while index < self.items.len() {
            if are_covered(interner.declared_events(self.items[index].kind), &self.items[..index], interner) {
                self.items.remove(index);
            } else {
                index += 1;
            }
        }
        self.items.len() < before
    }
}

fn are_covered(events: &[EventSet], records: &[SagaRecord], interner: &Interner) -> bool {
    events.iter().enumerate().all(|(declaration, events)| {
        let mut open = *events;
        for record in records {
            if open == 0 {
                break;
            }
            open &= !interner.declared_events(record.kind)[declaration];
        }
        open == 0
    })
}
