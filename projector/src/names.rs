//! Names that come again and again, kept once: topics with their partitions, event types, sources, builds.
//!
//! A record's row holds two small numbers instead: its *lane* (topic and partition) and its *shape* (type, source, build, schema
//! and what was asked of its body). Numbers are given in the order of arrival, so nothing that is shown or compared may depend
//! on them.

use std::collections::HashMap;

use crate::declaration::{Declaration, EventSet};

/// Topic and partition, as a number.
pub(crate) type LaneNo = u16;
/// What kind of record, as a number.
pub(crate) type ShapeNo = u16;

/// One partition of one topic.
#[derive(Debug, Clone)]
pub(crate) struct Lane {
    pub(crate) topic: u16,
    pub(crate) partition: i32,
}

/// Everything of a record that many records share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    pub(crate) event: u16,
    /// The fields that a declaration asked for, `kind=ORDER_PAID`; 0 is none.
    pub(crate) label: u16,
    pub(crate) source: u16,
    pub(crate) build: u16,
    pub(crate) schema: u32,
    /// A copy in a dead-letter topic.
    pub(crate) dead: bool,
    /// The record's key is the saga's id, so its sequence is the saga's own.
    pub(crate) entity: bool,
}

/// The tables.
#[derive(Debug, Default)]
pub(crate) struct Names {
    texts: Vec<Box<str>>,
    text_numbers: HashMap<Box<str>, u16>,
    lanes: Vec<Lane>,
    lane_numbers: HashMap<(u16, i32), LaneNo>,
    shapes: Vec<Shape>,
    shape_numbers: HashMap<Shape, ShapeNo>,
    /// Per shape and declaration: the declared events it is.
    meanings: Vec<Box<[EventSet]>>,
}

impl Names {
    pub(crate) fn new() -> Self {
        let mut names = Self::default();
        names.texts.push("".into());
        names.text_numbers.insert("".into(), 0);
        names
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

    pub(crate) fn lane(&mut self, topic: &str, partition: i32) -> Option<LaneNo> {
        let topic = self.intern(topic)?;
        if let Some(number) = self.lane_numbers.get(&(topic, partition)) {
            return Some(*number);
        }
        let number = LaneNo::try_from(self.lanes.len()).ok()?;
        self.lanes.push(Lane { topic, partition });
        self.lane_numbers.insert((topic, partition), number);
        Some(number)
    }

    pub(crate) fn shape(&mut self, shape: Shape, declarations: &[Declaration]) -> Option<ShapeNo> {
        if let Some(number) = self.shape_numbers.get(&shape) {
            return Some(*number);
        }
        let number = ShapeNo::try_from(self.shapes.len()).ok()?;
        let meanings = declarations.iter().map(|declaration| self.meaning(&shape, declaration)).collect();
        self.meanings.push(meanings);
        self.shapes.push(shape);
        self.shape_numbers.insert(shape, number);
        Some(number)
    }

    /// The declared events that records of a shape are. A dead letter is a copy, not a fact.
    fn meaning(&self, shape: &Shape, declaration: &Declaration) -> EventSet {
        if shape.dead {
            return 0;
        }
        let labels: Vec<&str> = self.text(shape.label).split('&').collect();
        let event = self.text(shape.event);
        let selected = declaration.events.iter().enumerate().filter(|(_, selector)| {
            selector.names(event)
                && selector
                    .condition
                    .as_ref()
                    .is_none_or(|asked| labels.contains(&format!("{}={}", asked.path, asked.value).as_str()))
        });
        selected.fold(0, |set, (index, _)| set | 1 << index)
    }

    pub(crate) fn text(&self, number: u16) -> &str {
        self.texts.get(usize::from(number)).map_or("", |text| text)
    }

    /// The topic and partition of a lane. Lanes are only made here, so they are always found.
    pub(crate) fn place(&self, lane: LaneNo) -> (&str, i32) {
        self.lanes.get(usize::from(lane)).map_or(("", 0), |lane| (self.text(lane.topic), lane.partition))
    }

    /// Every lane, in the order of its number.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = (&str, i32)> {
        self.lanes.iter().map(|lane| (self.text(lane.topic), lane.partition))
    }

    pub(crate) fn topic_of(&self, lane: LaneNo) -> u16 {
        self.lanes.get(usize::from(lane)).map_or(0, |lane| lane.topic)
    }

    pub(crate) fn shape_of(&self, shape: ShapeNo) -> &Shape {
        &self.shapes[usize::from(shape)]
    }

    /// The declared events that records of a shape are, per declaration.
    pub(crate) fn meanings(&self, shape: ShapeNo) -> &[EventSet] {
        &self.meanings[usize::from(shape)]
    }
}
