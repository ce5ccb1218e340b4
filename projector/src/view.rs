//! The saga view: every saga, folded from records in any order.
//!
//! [`SagaView::fold`] adds a record to its correlation id. [`SagaView::commit`] derives the progress of the changed sagas and
//! moves them in the index, once per batch. A bulk read therefore derives each saga once per batch, and readers see whole
//! batches. Queries are in `query`, replies in `present`. This module knows no topic name, no business and no clock.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use runtime::core::ParkingUpdate;

use crate::{
    declaration::{Declaration, DeclarationError, check_together},
    index::{ClassSet, InstanceNo, SagaIndex},
    interner::{Interner, PartitionNo, RecordKind},
    parked::ParkedIndex,
    progress::{SagaFacts, SagaFlag, SagaProgress, record_flags},
    record::{self, BodyDecoder, BodyError, DecodedBody, ProjectedRecord, RecordHeaders, UnplacedReason},
    saga_records::{Insertion, SagaRecord, SagaRecords},
};

/// The most correlation ids in a view.
pub const CORRELATIONS_MAX: usize = 4_000_000;
/// The most schemas whose versions are kept.
const SCHEMAS_MAX: usize = 10_000;
/// The most records in no saga that are listed.
pub const UNPLACED_LISTED_MAX: usize = 200;

/// A record that is in no saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnplacedRecord {
    /// Why.
    pub reason: UnplacedReason,
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp.
    pub at_ms: i64,
    /// Further detail, truncated.
    pub detail: String,
}

/// A required body is not available: fold the same record again later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BodyUnavailable(pub String);

/// The fields that the declarations read from the bodies of one event type.
#[derive(Debug, Clone, Default)]
struct RequiredFields {
    /// The paths of conditions, each with the values that are compared.
    conditions: BTreeMap<String, BTreeSet<String>>,
    /// The field with the correlation id, if no header has it.
    correlation: Option<String>,
}

/// One saga: the records of a correlation id under one declaration.
#[derive(Debug)]
pub(crate) struct SagaInstance {
    pub(crate) correlation: u32,
    pub(crate) declaration: u8,
    pub(crate) classes: ClassSet,
    pub(crate) revision: u64,
    due_ms: Option<i64>,
}

/// The records and sagas of one correlation id.
#[derive(Debug)]
pub(crate) struct Correlation {
    pub(crate) id: Arc<str>,
    pub(crate) records: SagaRecords,
    /// Its sagas, usually one.
    pub(crate) instances: Vec<InstanceNo>,
    dirty: bool,
}

/// The view of every saga.
#[derive(Debug)]
pub struct SagaView {
    pub(crate) declarations: Arc<[Declaration]>,
    pub(crate) interner: Interner,
    pub(crate) correlations: Vec<Correlation>,
    pub(crate) instances: Vec<SagaInstance>,
    pub(crate) indexes: Vec<SagaIndex>,
    pub(crate) parked: ParkedIndex,
    correlation_numbers: HashMap<Arc<str>, u32>,
    headers: Vec<String>,
    required: HashMap<u16, Arc<RequiredFields>>,
    dirty: Vec<u32>,
    due: BTreeSet<(i64, InstanceNo)>,
    positions: Vec<i64>,
    epoch: u64,
    revision: u64,
    watermark_ms: i64,
    /// By partition number, the timestamp of the last record; 0 once [`SagaView::take_newest`] has returned it.
    newest_ms: Vec<i64>,
    /// The versions of schemas; `None` until they are known.
    versions: HashMap<u32, Option<u32>>,
    records: u64,
    rewritten: u64,
    unplaced: VecDeque<UnplacedRecord>,
    unplaced_counts: [u64; UnplacedReason::ALL.len()],
}

impl SagaView {
    /// An empty view. `epoch` identifies this view among its predecessors and must increase with every start.
    ///
    /// # Errors
    /// The declarations conflict.
    pub fn new(declarations: &[Declaration], epoch: u64) -> Result<Self, DeclarationError> {
        check_together(declarations)?;
        let mut headers: Vec<String> = Vec::new();
        for declaration in declarations {
            if !headers.contains(&declaration.header) {
                headers.push(declaration.header.clone());
            }
        }
        Ok(Self {
            indexes: declarations.iter().map(SagaIndex::new).collect(),
            declarations: declarations.into(),
            interner: Interner::new(),
            correlations: Vec::new(),
            instances: Vec::new(),
            parked: ParkedIndex::default(),
            correlation_numbers: HashMap::new(),
            headers,
            required: HashMap::new(),
            dirty: Vec::new(),
            due: BTreeSet::new(),
            positions: Vec::new(),
            epoch,
            revision: 0,
            watermark_ms: 0,
            newest_ms: Vec::new(),
            versions: HashMap::new(),
            records: 0,
            rewritten: 0,
            unplaced: VecDeque::new(),
            unplaced_counts: [0; UnplacedReason::ALL.len()],
        })
    }

    /// Folds one record. A record of a dead-letter topic is shown, but counts as no event.
    ///
    /// # Errors
    /// [`BodyUnavailable`] if a required body is not available. The view is unchanged.
    pub fn fold(
        &mut self,
        record: &ProjectedRecord<'_>,
        dead_letter: bool,
        decoder: &dyn BodyDecoder,
    ) -> Result<(), BodyUnavailable> {
        let placed = self.place(record, dead_letter, decoder);
        let placed = match placed {
            Err(PlacementError::Unavailable(detail)) => return Err(BodyUnavailable(detail)),
            Ok(placed) => Ok(placed),
            Err(PlacementError::Unplaced(reason, detail)) => Err((reason, detail)),
        };
        self.records += 1;
        self.advance(record.topic, record.partition, record.offset.saturating_add(1));
        self.note_timestamp(record);
        if let Err((reason, detail)) = placed.and_then(|(correlation, saga_record)| self.add(&correlation, saga_record))
        {
            self.note_unplaced(record, reason, &detail);
        }
        Ok(())
    }

    /// Folds one record of a service's parked topic. It updates the parked records and counts as no event.
    pub fn fold_parked(&mut self, record: &ProjectedRecord<'_>, update: ParkingUpdate) {
        self.records += 1;
        self.advance(record.topic, record.partition, record.offset.saturating_add(1));
        for saga in self.parked.fold(record.topic, update) {
            let Some(number) = self.correlation_numbers.get(&saga).copied() else { continue };
            if !std::mem::replace(&mut self.correlations[number as usize].dirty, true) {
                self.dirty.push(number);
            }
        }
    }

    /// Notes that a partition was read up to `position`, with or without records.
    pub fn advance(&mut self, topic: &str, partition: i32, position: i64) {
        let Some(partition_no) = self.interner.partition_no(topic, partition).map(usize::from) else { return };
        if self.positions.len() <= partition_no {
            self.positions.resize(partition_no + 1, 0);
        }
        self.positions[partition_no] = position.max(self.positions[partition_no]);
    }

    fn note_timestamp(&mut self, record: &ProjectedRecord<'_>) {
        let Some(partition_no) = self.interner.partition_no(record.topic, record.partition).map(usize::from) else {
            return;
        };
        if self.newest_ms.len() <= partition_no {
            self.newest_ms.resize(partition_no + 1, 0);
        }
        self.newest_ms[partition_no] = record.at_ms;
    }

    /// The timestamp of the last record in the partition that is furthest behind, among those that returned records since the
    /// last call.
    pub fn take_newest(&mut self) -> Option<i64> {
        let oldest = self.newest_ms.iter().copied().filter(|at_ms| *at_ms > 0).min();
        self.newest_ms.fill(0);
        oldest
    }

    /// Sets the version of a schema, to be shown with its records. `None` marks the schema as used with an unknown version.
    pub fn note_version(&mut self, schema: u32, version: Option<u32>) {
        if self.versions.len() < SCHEMAS_MAX {
            let known = self.versions.entry(schema).or_default();
            *known = version.or(*known);
        }
    }

    /// The schemas that are used and whose version is unknown.
    pub fn unversioned(&self) -> impl Iterator<Item = u32> {
        self.versions.iter().filter(|(_, version)| version.is_none()).map(|(schema, _)| *schema)
    }

    /// The version of a schema, if it is known.
    pub(crate) fn version_of(&self, schema: u32) -> Option<u32> {
        self.versions.get(&schema).copied().flatten()
    }

    /// Derives the progress of the changed sagas, and the sagas that are past a deadline now that everything up to
    /// `watermark_ms` was read. Returns the revision that readers see.
    pub fn commit(&mut self, watermark_ms: i64) -> u64 {
        self.watermark_ms = watermark_ms.max(self.watermark_ms);
        for correlation in std::mem::take(&mut self.dirty) {
            self.derive(correlation);
        }
        while let Some((due_ms, instance)) = self.due.first().copied().filter(|(due_ms, _)| *due_ms < self.watermark_ms)
        {
            self.due.remove(&(due_ms, instance));
            self.derive(self.instances[instance as usize].correlation);
        }
        self.revision
    }

    /// The epoch of this view.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The number of changes.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The time up to which every record was read.
    #[must_use]
    pub fn watermark_ms(&self) -> i64 {
        self.watermark_ms
    }

    /// The number of records that were folded, including repeats and records in no saga.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The number of sagas.
    #[must_use]
    pub fn sagas(&self) -> usize {
        self.instances.len()
    }

    /// The declarations of the sagas.
    #[must_use]
    pub fn declarations(&self) -> &[Declaration] {
        &self.declarations
    }

    /// Per topic and partition, the offset of the next record to read.
    #[must_use]
    pub fn positions(&self) -> BTreeMap<String, BTreeMap<i32, i64>> {
        let mut positions: BTreeMap<String, BTreeMap<i32, i64>> = BTreeMap::new();
        for (partition_no, position) in self.positions.iter().enumerate() {
            let (topic, partition) =
                self.interner.topic_partition(PartitionNo::try_from(partition_no).unwrap_or(PartitionNo::MAX));
            positions.entry(topic.to_owned()).or_default().insert(partition, *position);
        }
        positions
    }

    /// How often a visible record was replaced or removed. Such a change cannot be undone by comparing offsets.
    #[must_use]
    pub fn rewritten(&self) -> u64 {
        self.rewritten
    }

    /// The number of records in no saga, per reason.
    #[must_use]
    pub fn unplaced_counts(&self) -> Vec<(UnplacedReason, u64)> {
        UnplacedReason::ALL.into_iter().zip(self.unplaced_counts).collect()
    }

    /// The last records that are in no saga.
    pub fn unplaced(&self) -> impl DoubleEndedIterator<Item = &UnplacedRecord> {
        self.unplaced.iter()
    }

    /// Determines the type of a record and the correlation id it belongs to.
    fn place<'a>(
        &mut self,
        record: &ProjectedRecord<'a>,
        dead_letter: bool,
        decoder: &dyn BodyDecoder,
    ) -> Result<(std::borrow::Cow<'a, str>, SagaRecord), PlacementError> {
        let headers = RecordHeaders::read(record.headers, &self.headers).map_err(PlacementError::plain)?;
        let schema = record::schema_id(record.value);
        if headers.avro && !dead_letter && (schema == 0 || !record.readable) {
            let detail = if schema == 0 { "the value is not framed as Avro" } else { "its schema is not known" };
            return Err(PlacementError::Unplaced(UnplacedReason::UnreadableBody, detail.to_owned()));
        }
        let mut body = LazyBody { record, decoder, body: None };
        let event = match headers.event {
            Some(event) => self.intern(event)?,
            None if schema != 0 => {
                let name = body.decoded()?.type_name.clone();
                self.intern(&name)?
            }
            None => return Err(PlacementError::plain(UnplacedReason::NoType)),
        };
        let required = self.required(event);
        let label = if dead_letter { String::new() } else { label(&required, &mut body)? };
        let correlation = match (headers.correlation, &required.correlation) {
            (Some(id), _) => std::borrow::Cow::Borrowed(id),
            (None, Some(path)) => std::borrow::Cow::Owned(correlation_field(path, &mut body)?),
            (None, None) => return Err(PlacementError::plain(UnplacedReason::NoCorrelation)),
        };
        let kind = RecordKind {
            event,
            label: self.intern(&label)?,
            source: self.intern(headers.source.unwrap_or_default())?,
            build: self.intern(headers.build.unwrap_or_default())?,
            schema,
            dead_letter,
            own_key: record.key == Some(correlation.as_bytes()),
        };
        let id = headers.id.map_or_else(|| record::position_id(record), record::id_bytes);
        let cause = headers.causation.map_or([0; 16], record::id_bytes);
        let partition_no =
            self.interner.partition_no(record.topic, record.partition).ok_or_else(PlacementError::full)?;
        let mut saga_record = SagaRecord::new(id, cause, record.at_ms, partition_no, record.offset);
        saga_record.sequence = headers.sequence;
        saga_record.kind = self.interner.kind_no(kind, &self.declarations).ok_or_else(PlacementError::full)?;
        Ok((correlation, saga_record))
    }

    fn intern(&mut self, text: &str) -> Result<u16, PlacementError> {
        self.interner.intern(text).ok_or_else(PlacementError::full)
    }

    /// The fields that are read from bodies of this type; computed once per type.
    fn required(&mut self, event: u16) -> Arc<RequiredFields> {
        if let Some(required) = self.required.get(&event) {
            return Arc::clone(required);
        }
        let name = self.interner.text(event);
        let mut required = RequiredFields::default();
        for declaration in self.declarations.iter() {
            for selector in declaration.events.iter().filter(|selector| selector.matches(name)) {
                if let Some(condition) = &selector.condition {
                    required.conditions.entry(condition.path.clone()).or_default().insert(condition.value.clone());
                }
            }
            let matches =
                |event: &str| name.strip_suffix(event).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
            if let Some((_, path)) = declaration.fields.iter().find(|(event, _)| matches(event)) {
                required.correlation.get_or_insert_with(|| path.clone());
            }
        }
        let required = Arc::new(required);
        self.required.insert(event, Arc::clone(&required));
        required
    }

    fn add(&mut self, correlation: &str, saga_record: SagaRecord) -> Result<(), (UnplacedReason, String)> {
        let number = match self.correlation_numbers.get(correlation) {
            Some(number) => *number,
            None if self.correlations.len() >= CORRELATIONS_MAX => {
                return Err((UnplacedReason::Full, format!("the view has {CORRELATIONS_MAX} correlation ids")));
            }
            None => self.new_entry(correlation),
        };
        let entry = &mut self.correlations[number as usize];
        match entry.records.add(saga_record, &self.interner) {
            Insertion::Repeat | Insertion::OverLimit => return Ok(()),
            Insertion::Rewritten => self.rewritten += 1,
            Insertion::New => {}
        }
        if !entry.dirty {
            entry.dirty = true;
            self.dirty.push(number);
        }
        Ok(())
    }

    fn new_entry(&mut self, correlation: &str) -> u32 {
        let id: Arc<str> = correlation.into();
        // CORRELATIONS_MAX is far below the end of u32.
        let number = u32::try_from(self.correlations.len()).unwrap_or(u32::MAX);
        self.correlations.push(Correlation {
            id: Arc::clone(&id),
            records: SagaRecords::default(),
            instances: Vec::new(),
            dirty: false,
        });
        self.correlation_numbers.insert(id, number);
        number
    }

    fn note_unplaced(&mut self, record: &ProjectedRecord<'_>, reason: UnplacedReason, detail: &str) {
        self.unplaced_counts[reason as usize] += 1;
        if self.unplaced.len() == UNPLACED_LISTED_MAX {
            self.unplaced.pop_front();
        }
        self.unplaced.push_back(UnplacedRecord {
            reason,
            topic: record.topic.to_owned(),
            partition: record.partition,
            offset: record.offset,
            at_ms: record.at_ms,
            detail: detail.chars().take(record::TEXT_MAX).collect(),
        });
    }

    /// Derives the sagas of one correlation id and moves them in their indexes.
    fn derive(&mut self, correlation: u32) {
        self.correlations[correlation as usize].dirty = false;
        for number in 0..self.declarations.len() {
            let entry = &self.correlations[correlation as usize];
            let known = entry
                .instances
                .iter()
                .copied()
                .find(|instance| usize::from(self.instances[*instance as usize].declaration) == number);
            let facts = SagaFacts::read(&self.declarations[number], number, &entry.records.items, &self.interner);
            if known.is_none() && !facts.any() {
                continue;
            }
            let progress = facts.progress(&entry.records.items);
            let flags = self.flags_of(number, correlation, &progress);
            let classes = self.indexes[number].classes_of(&progress, flags);
            let due_ms = progress.due_ms.filter(|_| flags & SagaFlag::Stuck.bit() == 0);
            if progress.settled {
                // Most sagas are settled and receive no further records.
                self.correlations[correlation as usize].records.items.shrink_to_fit();
            }
            let instance = known.unwrap_or_else(|| self.new_instance(correlation, number));
            self.move_to(instance, number, classes, due_ms);
        }
    }

    /// Every flag of a saga, judged by the watermark where the flag depends on it.
    pub(crate) fn flags_of(&self, declaration: usize, correlation: u32, progress: &SagaProgress) -> u8 {
        let records = &self.correlations[correlation as usize].records.items;
        let mut flags = progress.flags | record_flags(&self.declarations[declaration], records, &self.interner);
        if progress.due_ms.is_some_and(|due_ms| due_ms < self.watermark_ms) {
            flags |= SagaFlag::Stuck.bit();
        }
        if self.parked.has(&self.correlations[correlation as usize].id) {
            flags |= SagaFlag::Parked.bit();
        }
        flags
    }

    fn new_instance(&mut self, correlation: u32, declaration: usize) -> InstanceNo {
        let instance = InstanceNo::try_from(self.instances.len()).unwrap_or(InstanceNo::MAX);
        let declaration = u8::try_from(declaration).unwrap_or(u8::MAX);
        self.instances.push(SagaInstance { correlation, declaration, classes: 0, revision: 0, due_ms: None });
        self.correlations[correlation as usize].instances.push(instance);
        instance
    }

    fn move_to(&mut self, number: InstanceNo, declaration: usize, classes: ClassSet, due_ms: Option<i64>) {
        self.revision += 1;
        let instance = &mut self.instances[number as usize];
        let before = (instance.revision, instance.classes);
        if let Some(due_ms) = instance.due_ms {
            self.due.remove(&(due_ms, number));
        }
        if let Some(due_ms) = due_ms {
            self.due.insert((due_ms, number));
        }
        instance.due_ms = due_ms;
        instance.revision = self.revision;
        instance.classes = classes;
        self.indexes[declaration].update(number, before, (self.revision, classes));
    }

    /// The sagas of a correlation id.
    pub(crate) fn find(&self, id: &str) -> &[InstanceNo] {
        self.correlation_numbers.get(id).map_or(&[], |number| &self.correlations[*number as usize].instances)
    }
}

/// Why a record is not placed in a saga.
enum PlacementError {
    Unplaced(UnplacedReason, String),
    Unavailable(String),
}

impl PlacementError {
    fn plain(reason: UnplacedReason) -> Self {
        Self::Unplaced(reason, String::new())
    }

    fn full() -> Self {
        Self::Unplaced(UnplacedReason::Full, "too many different names".to_owned())
    }
}

/// A body that is decoded at most once, on first use.
struct LazyBody<'a> {
    record: &'a ProjectedRecord<'a>,
    decoder: &'a dyn BodyDecoder,
    body: Option<DecodedBody>,
}

impl LazyBody<'_> {
    fn decoded(&mut self) -> Result<&DecodedBody, PlacementError> {
        if self.body.is_none() {
            let value = self.record.value.unwrap_or_default();
            let body = self.decoder.decode(value).map_err(|error| match error {
                BodyError::Unreadable(detail) => PlacementError::Unplaced(UnplacedReason::UnreadableBody, detail),
                BodyError::Unavailable(detail) => PlacementError::Unavailable(detail),
            })?;
            return Ok(self.body.insert(body));
        }
        self.body.as_ref().ok_or_else(|| PlacementError::plain(UnplacedReason::UnreadableBody))
    }
}

/// The values of the selected fields, such as `kind=ORDER_PAID`. All values that no condition compares with are one.
fn label(required: &RequiredFields, body: &mut LazyBody<'_>) -> Result<String, PlacementError> {
    let mut label = String::new();
    for (path, values) in &required.conditions {
        let value = record::field(&body.decoded()?.fields, path).filter(|value| values.contains(value));
        if !label.is_empty() {
            label.push('&');
        }
        label.push_str(path);
        label.push('=');
        label.push_str(value.as_deref().unwrap_or("(other)"));
    }
    Ok(label)
}

fn correlation_field(path: &str, body: &mut LazyBody<'_>) -> Result<String, PlacementError> {
    let value = record::field(&body.decoded()?.fields, path);
    value
        .filter(|id| !id.is_empty() && id.len() <= record::TEXT_MAX)
        .ok_or_else(|| PlacementError::plain(UnplacedReason::NoCorrelation))
}
