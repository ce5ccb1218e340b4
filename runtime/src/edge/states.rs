//! The state of every entity, folded from the service's events with the decider's `evolve`: for queries, never for decisions.

use std::collections::HashMap;

use crate::{
    codec::Vocabulary,
    decider::Decider,
    projection::{LogRecord, Projection},
};

/// The states of all entities of a service.
#[derive(Debug)]
pub struct EntityStates<D: Decider> {
    decider: D,
    vocabulary: Vocabulary<D::Event>,
    by_entity: HashMap<String, D::State>,
}

impl<D: Decider> EntityStates<D> {
    /// The states in a system, before any event was read.
    #[must_use]
    pub fn new(system: &str, decider: D) -> Self {
        Self { decider, vocabulary: Vocabulary::new(system), by_entity: HashMap::new() }
    }

    /// The state of an entity; `None` if it has no events.
    #[must_use]
    pub fn get(&self, entity: &str) -> Option<&D::State> {
        self.by_entity.get(entity)
    }

    /// Folds one event.
    pub fn apply_event(&mut self, entity: &str, event: &D::Event) {
        let before = self.by_entity.remove(entity).unwrap_or_default();
        self.by_entity.insert(entity.to_owned(), self.decider.evolve(before, event));
    }
}

impl<D: Decider> Projection for EntityStates<D> {
    fn apply(&mut self, record: &LogRecord<'_>) {
        // The view has counted a body that cannot be decoded.
        if let (Some(entity), Some(decoded)) = (record.key_text(), record.decoded())
            && let Ok(Some(event)) = self.vocabulary.read(&decoded)
        {
            self.apply_event(entity, &event);
        }
    }

    fn reset(&mut self) -> bool {
        self.by_entity.clear();
        true
    }
}
