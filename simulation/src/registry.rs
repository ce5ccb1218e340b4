//! The simulated registry: a table of schemas that is unavailable for a while, or does not have a schema yet.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use runtime::{
    codec::{Readers, RegisteredSchema, SchemaRef, SchemaSource, SchemaSourceError, WriterError, Writers},
    message::RecordType,
};

/// Every registered schema, the same for all runs of a thread. Ids count from 1.
#[derive(Debug, Default)]
pub(crate) struct SchemaTable(Mutex<Vec<Arc<str>>>);

impl SchemaTable {
    fn texts(&self) -> MutexGuard<'_, Vec<Arc<str>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn id_of(&self, text: &str) -> u32 {
        let mut texts = self.texts();
        let at = texts.iter().position(|known| **known == *text).unwrap_or_else(|| {
            texts.push(text.into());
            texts.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX - 1) + 1
    }

    /// Writers of these records. A schema that is new is registered.
    pub(crate) fn writers(&self, system: &str, records: &[RecordType]) -> Result<Writers, WriterError> {
        Writers::with_ids(system, records, |_, text| Ok(self.id_of(text)))
    }
}

impl SchemaSource for SchemaTable {
    fn schema(&self, schema: SchemaRef) -> Result<RegisteredSchema, SchemaSourceError> {
        let texts = self.texts();
        let found = match schema {
            SchemaRef::Id(id) => texts.get((id as usize).wrapping_sub(1)).cloned().map(|text| (id, text)),
            SchemaRef::Guid(_) => None,
        };
        match found {
            Some((id, text)) => Ok(RegisteredSchema { id: Some(id), version: Some(1), text }),
            None => Err(not_found(schema)),
        }
    }
}

fn not_found(schema: SchemaRef) -> SchemaSourceError {
    SchemaSourceError::NotFound(format!("there is no schema {schema}").into())
}

#[derive(Debug, Default)]
struct RegistryState {
    now_ms: i64,
    down_until_ms: i64,
    lags_until_ms: BTreeMap<u32, i64>,
}

/// The registry of one run.
#[derive(Debug)]
pub(crate) struct SimulatedRegistry {
    table: Arc<SchemaTable>,
    state: Mutex<RegistryState>,
}

impl SimulatedRegistry {
    pub(crate) fn new(table: &Arc<SchemaTable>) -> Arc<Self> {
        Arc::new(Self { table: Arc::clone(table), state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, RegistryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn at(&self, now_ms: i64) {
        self.state().now_ms = now_ms;
    }

    pub(crate) fn is_down_until(&self, until_ms: i64) {
        self.state().down_until_ms = until_ms;
    }

    /// A schema is missing for a while, and perhaps again later: each time far shorter than the runtime waits before it takes a
    /// missing schema for one that does not exist.
    pub(crate) fn lags_until(&self, schema: u32, until_ms: i64) {
        self.state().lags_until_ms.insert(schema, until_ms);
    }

    pub(crate) fn schemas(&self) -> usize {
        self.table.texts().len()
    }

    pub(crate) fn end_faults(&self) {
        let mut state = self.state();
        state.down_until_ms = 0;
        state.lags_until_ms.clear();
    }
}

/// Readers of one process, which ask this registry.
pub(crate) fn readers(shared: &Readers, registry: &Arc<SimulatedRegistry>) -> Readers {
    shared.asking(Arc::clone(registry) as Arc<dyn SchemaSource>)
}

impl SchemaSource for SimulatedRegistry {
    fn schema(&self, schema: SchemaRef) -> Result<RegisteredSchema, SchemaSourceError> {
        let state = self.state();
        if state.now_ms < state.down_until_ms {
            return Err(SchemaSourceError::Unavailable(format!("the registry is down; schema {schema}").into()));
        }
        if let SchemaRef::Id(id) = schema
            && state.lags_until_ms.get(&id).is_some_and(|until_ms| state.now_ms < *until_ms)
        {
            return Err(not_found(schema));
        }
        drop(state);
        self.table.schema(schema)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.state().now_ms.unsigned_abs())
    }
}
