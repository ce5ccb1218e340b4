//! One entity in memory: its state, its sequence number and its recent events. And the same as bytes, for checkpoints.

use std::{collections::VecDeque, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{guard::guarded, state, timers::Wake};

/// For how many recent events an entity keeps the ids of the causes. A repeated input is dropped if it caused one of them. For
/// older inputs a decider must be idempotent by its state.
pub const HANDLED_CAUSES: usize = 32;

/// A recent event: the id of its cause, its id, and the checksum of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecentEvent {
    pub(crate) cause: Uuid,
    pub(crate) id: Uuid,
    pub(crate) digest: u32,
}

/// One entity.
#[derive(Debug)]
pub(crate) struct Entity<S> {
    pub(crate) state: S,
    /// The sequence number of its last event; 0 if it has none.
    pub(crate) sequence: u64,
    /// The saga of its last event.
    pub(crate) correlation_id: Box<str>,
    pub(crate) wake: Option<Wake>,
    /// The keys of its pending effects.
    pub(crate) effects: Vec<Arc<str>>,
    /// Its index among the entities that the open batch has changed.
    pub(crate) touched: Option<usize>,
    /// True while it is in the list of entities for the next checkpoint.
    pub(crate) unsaved: bool,
    recent: VecDeque<RecentEvent>,
}

/// A checkpoint that cannot be used. It is only a cache, so the log is read instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("checkpoint of an entity is malformed: {0}")]
pub struct MalformedCheckpoint(pub(crate) String);

impl<S: Default> Default for Entity<S> {
    fn default() -> Self {
        Self {
            state: S::default(),
            sequence: 0,
            correlation_id: Box::default(),
            wake: None,
            effects: Vec::new(),
            touched: None,
            unsaved: false,
            recent: VecDeque::new(),
        }
    }
}

impl<S> Entity<S> {
    /// True if this cause led to a recent event.
    pub(crate) fn has_handled(&self, cause: Uuid) -> bool {
        self.recent.iter().any(|recent| recent.cause == cause)
    }

    /// The checksum of the recent event with this id.
    pub(crate) fn digest_of(&self, id: Uuid) -> Option<u32> {
        self.recent.iter().find(|recent| recent.id == id).map(|recent| recent.digest)
    }

    /// Adds an event, and forgets the oldest if there are too many.
    pub(crate) fn remember(&mut self, event: RecentEvent) {
        if self.recent.len() >= HANDLED_CAUSES {
            self.recent.pop_front();
        }
        self.recent.push_back(event);
    }
}

impl<S: Serialize + DeserializeOwned> Entity<S> {
    /// The entity as a checkpoint has it.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, MalformedCheckpoint> {
        let mut out = Vec::with_capacity(64 + self.recent.len() * 36);
        out.extend_from_slice(&self.sequence.to_le_bytes());
        let malformed = |e: String| MalformedCheckpoint(e);
        let correlation = u32::try_from(self.correlation_id.len()).map_err(|e| malformed(e.to_string()))?;
        out.extend_from_slice(&correlation.to_le_bytes());
        out.extend_from_slice(self.correlation_id.as_bytes());
        out.push(u8::try_from(self.recent.len()).map_err(|e| malformed(e.to_string()))?);
        for event in &self.recent {
            out.extend_from_slice(event.cause.as_bytes());
            out.extend_from_slice(event.id.as_bytes());
            out.extend_from_slice(&event.digest.to_le_bytes());
        }
        out.extend_from_slice(&state::to_bytes(&self.state).map_err(|e| malformed(e.to_string()))?);
        Ok(out)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, MalformedCheckpoint>
    where
        S: Default,
    {
        let mut rest = bytes;
        let sequence = u64::from_le_bytes(take(&mut rest)?);
        let correlation = usize::try_from(u32::from_le_bytes(take(&mut rest)?)).unwrap_or(usize::MAX);
        let correlation_id = std::str::from_utf8(take_slice(&mut rest, correlation)?)
            .map_err(|e| MalformedCheckpoint(e.to_string()))?
            .into();
        let [count] = take::<1>(&mut rest)?;
        let mut recent = VecDeque::with_capacity(usize::from(count));
        for _ in 0..count {
            let cause = Uuid::from_bytes(take(&mut rest)?);
            let id = Uuid::from_bytes(take(&mut rest)?);
            recent.push_back(RecentEvent { cause, id, digest: u32::from_le_bytes(take(&mut rest)?) });
        }
        let state = state::from_bytes(rest).map_err(|e| MalformedCheckpoint(e.to_string()))?;
        let unknown = guarded("State::default", Self::default).map_err(MalformedCheckpoint)?;
        Ok(Self { state, sequence, correlation_id, recent, ..unknown })
    }
}

fn take_slice<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], MalformedCheckpoint> {
    let (head, tail) =
        rest.split_at_checked(length).ok_or_else(|| MalformedCheckpoint("it ends too early".to_owned()))?;
    *rest = tail;
    Ok(head)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], MalformedCheckpoint> {
    let head = take_slice(rest, N)?;
    head.try_into().map_err(|_| MalformedCheckpoint("it ends too early".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: u128) -> RecentEvent {
        RecentEvent { cause: Uuid::from_u128(n), id: Uuid::from_u128(n + 1_000), digest: 7 }
    }

    #[test]
    fn only_the_last_causes_are_remembered() {
        let mut entity = Entity::<u8>::default();
        for n in 0..=HANDLED_CAUSES as u128 {
            entity.remember(event(n));
        }
        assert!(!entity.has_handled(Uuid::from_u128(0)));
        assert!(entity.has_handled(Uuid::from_u128(1)));
        assert_eq!(entity.digest_of(Uuid::from_u128(1_001)), Some(7));
    }

    #[test]
    fn an_entity_survives_its_bytes() {
        let mut entity = Entity { state: vec!["a".to_owned()], sequence: 9, ..Entity::default() };
        entity.correlation_id = "saga-1".into();
        entity.remember(event(1));
        let bytes = entity.to_bytes().expect("plain data");
        let back = Entity::<Vec<String>>::from_bytes(&bytes).expect("just written");
        assert_eq!((&back.state, back.sequence, &back.correlation_id), (&entity.state, 9, &entity.correlation_id));
        assert_eq!(back.recent, entity.recent);
    }

    #[test]
    fn malformed_bytes_are_an_error_at_every_length() {
        let mut entity = Entity { state: "text".to_owned(), sequence: 1, ..Entity::default() };
        entity.remember(event(1));
        let bytes = entity.to_bytes().expect("plain data");
        for length in 0..bytes.len() {
            assert!(Entity::<String>::from_bytes(&bytes[..length]).is_err(), "{length}");
        }
    }
}
