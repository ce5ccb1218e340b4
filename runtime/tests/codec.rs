//! Framed bodies: readable ones, permanently unreadable ones, and those whose schema may still appear.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../runtime-core/tests/probe/mod.rs"]
mod probe;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use probe::{Count, Counted};
use runtime::{
    Message,
    codec::{
        DecodeError, Readers, RegisteredSchema, SchemaRef, SchemaSource, SchemaSourceError, Vocabulary, Writers,
        in_system, unframe,
    },
};
use uuid::Uuid;

/// A schema source in memory.
#[derive(Default)]
struct Table {
    schemas: Mutex<HashMap<SchemaRef, String>>,
    is_down: Mutex<bool>,
    asked: AtomicUsize,
    elapsed_ms: AtomicU64,
}

impl Table {
    fn put(&self, schema: SchemaRef, text: &str) {
        self.schemas.lock().unwrap().insert(schema, text.to_owned());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn pass(&self, seconds: u64) {
        self.elapsed_ms.fetch_add(seconds * 1_000, Ordering::SeqCst);
    }
}

impl SchemaSource for Table {
    fn schema(&self, schema: SchemaRef) -> Result<RegisteredSchema, SchemaSourceError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if *self.is_down.lock().unwrap() {
            return Err(SchemaSourceError::Unavailable("it is down".into()));
        }
        match self.schemas.lock().unwrap().get(&schema) {
            Some(text) => Ok(RegisteredSchema { id: None, version: None, text: text.as_str().into() }),
            None => Err(SchemaSourceError::NotFound("no such schema".into())),
        }
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.elapsed_ms.load(Ordering::SeqCst))
    }
}

fn writers(table: &Table, system: &str) -> Writers {
    Writers::with_ids(system, probe::Event::RECORDS, |subject, text| {
        let id = 100 + u32::try_from(subject.len()).unwrap();
        table.put(SchemaRef::Id(id), text);
        Ok(id)
    })
    .unwrap()
}

fn counted(amount: i64) -> probe::Event {
    Counted { amount, occurred_at: 5 }.into()
}

fn encoded(writers: &Writers, event: &probe::Event) -> Vec<u8> {
    let mut out = Vec::new();
    writers.encode(event, &mut out).unwrap();
    out
}

#[test]
fn an_event_round_trips_and_its_schema_is_fetched_once() {
    for system in ["musiccorp", "acme"] {
        let table = Arc::new(Table::default());
        let writers = writers(&table, system);
        let readers = Readers::new(Arc::clone(&table) as Arc<dyn SchemaSource>);
        let vocabulary = Vocabulary::<probe::Event>::new(system);
        for amount in 0..3 {
            let bytes = encoded(&writers, &counted(amount));
            let decoded = readers.decode(Some(&bytes), None).unwrap();
            assert_eq!(decoded.schema.full_name, format!("com.{system}.probe.Counted"));
            assert_eq!(vocabulary.read(&decoded).unwrap(), Some(counted(amount)));
        }
        assert_eq!(table.asked(), 1);
        assert!(Vocabulary::<probe::Command>::new(system).find("com.musiccorp.probe.Counted").is_none());
    }
}

#[test]
fn a_schema_id_may_be_in_a_header() {
    let table = Arc::new(Table::default());
    let bytes = encoded(&writers(&table, "musiccorp"), &counted(7));
    let guid = Uuid::from_u128(7);
    let text = in_system(probe::Event::RECORDS[0].schema.unwrap(), "musiccorp").into_owned();
    table.put(SchemaRef::Guid(guid), &text);
    let readers = Readers::new(table);
    let (SchemaRef::Id(id), body) = unframe(&bytes, None).unwrap() else { panic!("no id") };
    let by_id: Vec<u8> = [0].into_iter().chain(id.to_be_bytes()).collect();
    let by_guid: Vec<u8> = [1].into_iter().chain(*guid.as_bytes()).collect();
    for header in [by_id, by_guid] {
        assert_eq!(readers.decode(Some(body), Some(&header)).unwrap().read::<Counted>().unwrap().amount, 7);
    }
    for odd in [vec![], vec![0, 1], vec![2; 17], vec![1; 16]] {
        assert!(matches!(readers.decode(Some(body), Some(&odd)), Err(DecodeError::NotFramed { .. })));
    }
}

#[test]
fn an_unreadable_body_is_a_permanent_error_with_its_reason() {
    let table = Arc::new(Table::default());
    let bytes = encoded(&writers(&table, "musiccorp"), &counted(i64::MAX));
    table.put(SchemaRef::Id(1), "{\"type\": \"string\"}");
    table.put(SchemaRef::Id(2), "no schema");
    let readers = Readers::new(table);
    let read = |value: Option<&[u8]>| {
        let decoded = readers.decode(value, None)?;
        decoded.read::<Counted>()
    };
    let truncated = &bytes[..bytes.len() - 1];
    let longer = [&bytes[..], &[0]].concat();
    let cases: [(Option<&[u8]>, &str); 7] = [
        (None, "the record has no body"),
        (Some(b""), "found 0 bytes"),
        (Some(b"{\"a\":1}"), "found 7 bytes starting [7b 22"),
        (Some(&[0, 0, 0, 0, 1, 2]), "schema 1 cannot be used"),
        (Some(&[0, 0, 0, 0, 2, 2]), "schema 2 cannot be used"),
        (Some(truncated), "a body of com.musiccorp.probe.Counted cannot be read"),
        (Some(&longer), "a body of com.musiccorp.probe.Counted cannot be read"),
    ];
    for (value, expected) in cases {
        let error = read(value).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!error.is_transient(), "{error}");
    }
}

#[test]
fn a_panic_while_reading_a_body_is_an_error_of_that_record() {
    #[derive(Debug)]
    struct Counted;
    impl<'de> serde::Deserialize<'de> for Counted {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            panic!("a reader's bug")
        }
    }
    let table = Arc::new(Table::default());
    let bytes = encoded(&writers(&table, "musiccorp"), &counted(1));
    let readers = Readers::new(table);
    let error = readers.decode(Some(&bytes), None).unwrap().read::<Counted>().unwrap_err();
    assert!(matches!(error, DecodeError::Body { .. }));
}

#[test]
fn an_unreachable_registry_is_retried() {
    let table = Arc::new(Table::default());
    let bytes = encoded(&writers(&table, "musiccorp"), &counted(1));
    let readers = Readers::new(Arc::clone(&table) as Arc<dyn SchemaSource>);
    *table.is_down.lock().unwrap() = true;
    assert!(readers.decode(Some(&bytes), None).unwrap_err().is_transient());
    *table.is_down.lock().unwrap() = false;
    assert!(readers.decode(Some(&bytes), None).is_ok());
}

#[test]
fn a_missing_schema_is_transient_at_first_and_permanent_later() {
    let table = Arc::new(Table::default());
    let readers = Readers::new(Arc::clone(&table) as Arc<dyn SchemaSource>);
    let ask = || readers.decode(Some(&[0, 0, 0, 0, 9, 0]), None).unwrap_err();
    assert!(ask().is_transient(), "a replica may lag behind the record");
    table.pass(40);
    assert!(ask().is_transient(), "two answers prove nothing about the time between them");
    let error = ask();
    assert!(matches!(error, DecodeError::UnknownSchema { schema: SchemaRef::Id(9) }), "{error}");
    let asked = table.asked();
    assert!(!ask().is_transient());
    assert_eq!(table.asked(), asked, "the result is cached");
    table.pass(61);
    assert!(!ask().is_transient(), "and confirmed");
    assert_eq!(table.asked(), asked + 1);
}

#[test]
fn a_schema_that_was_missing_is_found_at_once_when_it_is_asked_for_anew() {
    let table = Arc::new(Table::default());
    let bytes = encoded(&writers(&table, "musiccorp"), &counted(1));
    let late = std::mem::take(&mut *table.schemas.lock().unwrap());
    let readers = Readers::new(Arc::clone(&table) as Arc<dyn SchemaSource>);
    let (schema, _) = unframe(&bytes, None).unwrap();
    for _ in 0..31 {
        drop(readers.schema(schema));
        table.pass(1);
    }
    assert!(matches!(readers.schema(schema), Err(DecodeError::UnknownSchema { .. })));
    assert!(matches!(readers.schema_anew(schema), Err(DecodeError::UnknownSchema { .. })), "it is still missing");
    *table.schemas.lock().unwrap() = late;
    assert!(readers.schema(schema).is_err(), "the answer is remembered for the records of a stream");
    assert!(readers.schema_anew(schema).is_ok());
    let asked = table.asked();
    assert!(readers.schema(schema).is_ok() && readers.schema_anew(schema).is_ok());
    assert_eq!(table.asked(), asked, "a known schema is not asked for again");
}

#[test]
fn readers_know_what_their_process_writes_and_what_its_other_parts_have_read() {
    let table = Arc::new(Table::default());
    let writers = writers(&table, "musiccorp");
    let bytes = encoded(&writers, &counted(1));
    *table.is_down.lock().unwrap() = true;
    let source = || Arc::clone(&table) as Arc<dyn SchemaSource>;
    assert!(Readers::shared("one", source()).decode(Some(&bytes), None).is_err());
    let worker = Readers::shared("one", source()).with_written("probe", &writers);
    let edge = Readers::shared("one", source());
    for readers in [&worker, &edge] {
        assert_eq!(readers.decode(Some(&bytes), None).unwrap().read::<Counted>().unwrap().amount, 1);
    }
    assert!(Readers::shared("another", source()).decode(Some(&bytes), None).is_err());
    drop((worker, edge));
    assert!(Readers::shared("one", source()).decode(Some(&bytes), None).is_err(), "nobody keeps them");
}

#[test]
fn a_schema_counts_as_missing_only_after_uninterrupted_answers() {
    let table = Arc::new(Table::default());
    let bytes = encoded(&writers(&table, "musiccorp"), &counted(1));
    let late = std::mem::take(&mut *table.schemas.lock().unwrap());
    let readers = Readers::new(Arc::clone(&table) as Arc<dyn SchemaSource>);
    let ask = || readers.decode(Some(&bytes), None);
    for _ in 0..29 {
        assert!(ask().unwrap_err().is_transient());
        table.pass(1);
    }
    let said = ask().unwrap_err().to_string();
    assert!(said.contains("for 29.0s so far") && said.contains("until that is 30s"), "{said}");
    *table.is_down.lock().unwrap() = true;
    assert!(ask().unwrap_err().is_transient());
    *table.is_down.lock().unwrap() = false;
    for _ in 0..30 {
        assert!(ask().unwrap_err().is_transient(), "the time restarts");
        table.pass(1);
    }
    *table.schemas.lock().unwrap() = late;
    assert_eq!(ask().unwrap().read::<Counted>().unwrap().amount, 1);
}

#[test]
fn a_record_without_a_writer_is_refused_and_writes_nothing() {
    let table = Table::default();
    let writers = writers(&table, "musiccorp");
    let mut out = vec![1, 2];
    assert!(writers.encode(&probe::Command::from(Count { amount: 1 }), &mut out).is_err());
    assert_eq!(out, [1, 2]);
}
