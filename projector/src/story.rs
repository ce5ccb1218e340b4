//! Everything that was heard under one correlation id: a set of rows, the same whatever order they came in.
//!
//! A row is one record, 52 bytes. Repeats (same id, same event) keep the row that comes first by time and place. A story holds
//! the first [`ROWS_MAX`] rows by time and place, and beyond them only the first of each declared event; both rules give the same
//! rows for every order of arrival, so whatever is derived from the rows does too.

use std::cmp::Ordering;

use crate::{
    declaration::EventSet,
    names::{LaneNo, Names, ShapeNo},
};

/// The rows a story keeps whatever they are.
pub(crate) const ROWS_MAX: usize = 512;

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: [u8; 16],
    /// All zero if nothing caused it.
    pub(crate) cause: [u8; 16],
    at_low: u32,
    offset_low: u32,
    /// The entity's sequence number, 0 if it has none.
    pub(crate) sequence: u32,
    at_high: u16,
    offset_high: u16,
    pub(crate) lane: LaneNo,
    pub(crate) shape: ShapeNo,
}

const _: () = assert!(size_of::<Row>() == 52, "a row is paid for once per record of every saga");

impl Row {
    pub(crate) fn new(id: [u8; 16], cause: [u8; 16], at_ms: i64, lane: LaneNo, offset: i64) -> Self {
        let (at_low, at_high) = split(at_ms);
        let (offset_low, offset_high) = split(offset);
        Self { id, cause, at_low, offset_low, sequence: 0, at_high, offset_high, lane, shape: 0 }
    }

    pub(crate) fn at_ms(&self) -> i64 {
        i64::from(self.at_high) << 32 | i64::from(self.at_low)
    }

    pub(crate) fn offset(&self) -> i64 {
        i64::from(self.offset_high) << 32 | i64::from(self.offset_low)
    }

    /// By time, then by place (topic, partition, offset).
    pub(crate) fn compare(&self, other: &Self, names: &Names) -> Ordering {
        self.at_ms().cmp(&other.at_ms()).then_with(|| {
            let places = if self.lane == other.lane {
                Ordering::Equal
            } else {
                names.place(self.lane).cmp(&names.place(other.lane))
            };
            places.then_with(|| self.offset().cmp(&other.offset()))
        })
    }
}

/// 48 bits: times until the year 10889 and 281 million million offsets.
fn split(value: i64) -> (u32, u16) {
    let value = value.clamp(0, (1 << 48) - 1);
    (u32::try_from(value & 0xffff_ffff).unwrap_or(u32::MAX), u16::try_from(value >> 32).unwrap_or(u16::MAX))
}

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Added {
    /// It is new and nothing else changed.
    New,
    /// It changed a row that was there, or made one go: what was shown before cannot be had back from the rows.
    Rewritten,
    /// It changes nothing: a repeat.
    Repeat,
    /// It changes nothing: the story is full.
    Beyond,
}

/// The rows of one correlation id, in the order of time and place.
#[derive(Debug, Default)]
pub(crate) struct Story {
    pub(crate) rows: Vec<Row>,
}

impl Story {
    pub(crate) fn add(&mut self, row: Row, names: &Names) -> Added {
        let mut replaced = false;
        if let Some(known) = self.find(&row, names) {
            if self.rows[known].compare(&row, names) != Ordering::Greater {
                return Added::Repeat;
            }
            self.rows.remove(known);
            replaced = true;
        }
        let place = self.place_of(&row, names);
        if place >= ROWS_MAX && self.is_old_news(place, &row, names) {
            return if replaced { Added::Rewritten } else { Added::Beyond };
        }
        self.make_room();
        self.rows.insert(place, row);
        let forgot = self.forget_beyond(names);
        if replaced || forgot { Added::Rewritten } else { Added::New }
    }

    /// The row of the same event, if it was heard before.
    fn find(&self, row: &Row, names: &Names) -> Option<usize> {
        let shape = names.shape_of(row.shape);
        self.rows.iter().position(|known| {
            known.id == row.id && {
                let other = names.shape_of(known.shape);
                other.event == shape.event
                    && other.dead == shape.dead
                    && (!shape.dead || names.topic_of(known.lane) == names.topic_of(row.lane))
            }
        })
    }

    /// Records come mostly in order, so the search starts at the end.
    fn place_of(&self, row: &Row, names: &Names) -> usize {
        match self.rows.last() {
            Some(last) if last.compare(row, names) == Ordering::Greater => {
                self.rows.partition_point(|known| known.compare(row, names) == Ordering::Less)
            }
            _ => self.rows.len(),
        }
    }

    /// Grows by a quarter: doubling would leave half of a hundred thousand stories empty.
    fn make_room(&mut self) {
        if self.rows.len() == self.rows.capacity() {
            self.rows.reserve_exact((self.rows.len() / 4).max(8));
        }
    }

    /// Whether rows before `place` already are every declared event that `row` is.
    fn is_old_news(&self, place: usize, row: &Row, names: &Names) -> bool {
        is_covered(names.meanings(row.shape), &self.rows[..place], names)
    }

    /// Drops what a full story does not keep. True if a row went.
    fn forget_beyond(&mut self, names: &Names) -> bool {
        let before = self.rows.len();
        let mut index = ROWS_MAX;
        while index < self.rows.len() {
            if is_covered(names.meanings(self.rows[index].shape), &self.rows[..index], names) {
                self.rows.remove(index);
            } else {
                index += 1;
            }
        }
        self.rows.len() < before
    }
}

fn is_covered(asked: &[EventSet], rows: &[Row], names: &Names) -> bool {
    asked.iter().enumerate().all(|(declaration, asked)| {
        let mut open = *asked;
        for row in rows {
            if open == 0 {
                break;
            }
            open &= !names.meanings(row.shape)[declaration];
        }
        open == 0
    })
}
