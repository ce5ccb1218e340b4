//! The simulated registry: a table of schemas that is away for a while, or does not have a schema yet.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use runtime::{
    codec::{Readers, RegisteredSchema, SchemaRef, SchemaSource, WriterError, Writers},
    message::RecordType,
    registry::RegistryError,
};

/// Every schema that was registered, whoever asks. Ids count from 1.
#[derive(Debug, Default)]
pub(crate) struct Table(Mutex<Vec<Arc<str>>>);

impl Table {
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

    /// Writers of records, each registered if it is new.
    pub(crate) fn writers(&self, system: &str, records: &[RecordType]) -> Result<Writers, WriterError> {
        Writers::with_ids(system, records, |_, text| Ok(self.id_of(text)))
    }
}

impl SchemaSource for Table {
    fn schema(&self, schema: SchemaRef) -> Result<RegisteredSchema, RegistryError> {
        let texts = self.texts();
        let found = match schema {
            SchemaRef::Id(id) => texts.get((id as usize).wrapping_sub(1)).cloned().map(|text| (id, text)),
            SchemaRef::Guid(_) => None,
        };
        match found {
            Some((id, text)) => Ok(RegisteredSchema { id: Some(id), version: Some(1), text }),
            None => Err(refused(schema)),
        }
    }
}

fn refused(schema: SchemaRef) -> RegistryError {
    RegistryError::Refused {
        url: "simulated".to_owned(),
        operation: format!("find schema {schema}"),
        code: 40_403,
        message: "no such schema".to_owned(),
    }
}

#[derive(Debug, Default)]
struct Moment {
    now_ms: i64,
    down_until_ms: i64,
    lags_until_ms: BTreeMap<u32, i64>,
}

/// The registry of one history.
#[derive(Debug)]
pub(crate) struct Registry {
    table: Arc<Table>,
    moment: Mutex<Moment>,
}

impl Registry {
    pub(crate) fn new(table: &Arc<Table>) -> Arc<Self> {
        Arc::new(Self { table: Arc::clone(table), moment: Mutex::default() })
    }

    fn moment(&self) -> MutexGuard<'_, Moment> {
        self.moment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn at(&self, now_ms: i64) {
        self.moment().now_ms = now_ms;
    }

    pub(crate) fn is_down_until(&self, until_ms: i64) {
        self.moment().down_until_ms = until_ms;
    }

    /// A schema is not found for a while, and perhaps again later: each time far shorter than the runtime waits before it takes a
    /// schema that is not found for one that does not exist.
    pub(crate) fn lags_until(&self, schema: u32, until_ms: i64) {
        self.moment().lags_until_ms.insert(schema, until_ms);
    }

    pub(crate) fn schemas(&self) -> usize {
        self.table.texts().len()
    }

    pub(crate) fn heal(&self) {
        let mut moment = self.moment();
        moment.down_until_ms = 0;
        moment.lags_until_ms.clear();
    }
}

/// The registry as one process sees it.
pub(crate) fn readers(shared: &Readers, registry: &Arc<Registry>) -> Readers {
    shared.asking(Arc::clone(registry) as Arc<dyn SchemaSource>)
}

impl SchemaSource for Registry {
    fn schema(&self, schema: SchemaRef) -> Result<RegisteredSchema, RegistryError> {
        let moment = self.moment();
        if moment.now_ms < moment.down_until_ms {
            return Err(RegistryError::Unavailable {
                url: "simulated".to_owned(),
                operation: format!("find schema {schema}"),
                reason: "it is down".to_owned(),
            });
        }
        if let SchemaRef::Id(id) = schema
            && moment.lags_until_ms.get(&id).is_some_and(|until_ms| moment.now_ms < *until_ms)
        {
            return Err(refused(schema));
        }
        drop(moment);
        self.table.schema(schema)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.moment().now_ms.unsigned_abs())
    }
}
