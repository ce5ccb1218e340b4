//! The view: every saga, folded from records in any order.
//!
//! [`View::fold`] adds a record to its story and does no more; [`View::commit`] derives where the changed sagas stand and moves
//! them in the index, once per batch. So a bulk read pays for deriving once per saga and batch, and readers see whole batches.
//! What a reader may ask is `query`, what it is shown is `present`. This module knows no topic's name, no business, no clock.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use runtime::core::ParkingUpdate;

use crate::{
    declaration::{Declaration, DeclarationError, check_together},
    index::{ClassSet, Index, InstanceNo},
    names::{LaneNo, Names, Shape},
    parked::ParkedRecords,
    record::{self, Bodies, Body, BodyError, Envelope, Record, Unplaced},
    standing::{Facts, Flag, Standing, row_flags},
    story::{Added, Row, Story},
};

/// How many correlation ids a view holds.
pub const STORIES_MAX: usize = 4_000_000;
/// How many schemas have their versions kept.
const SCHEMAS_MAX: usize = 10_000;
/// How many of the records that are in no saga are listed.
pub const UNPLACED_LISTED_MAX: usize = 200;

/// A record that is in no saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnplacedRecord {
    /// Why.
    pub reason: Unplaced,
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp.
    pub at_ms: i64,
    /// More words, cut.
    pub detail: String,
}

/// A body that is needed cannot be had now: fold the same record again later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TryAgain(pub String);

/// What must be read from the bodies of one event type.
#[derive(Debug, Clone, Default)]
struct Wanted {
    /// Field paths of conditions, each with the values that are asked for.
    conditions: BTreeMap<String, BTreeSet<String>>,
    /// The field that holds the saga's id, if no header does.
    correlation: Option<String>,
}

/// One saga: a story as one declaration sees it.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) story: u32,
    pub(crate) declaration: u8,
    pub(crate) classes: ClassSet,
    pub(crate) revision: u64,
    due_ms: Option<i64>,
}

/// One correlation id.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: Arc<str>,
    pub(crate) story: Story,
    /// Its sagas; mostly one.
    pub(crate) instances: Vec<InstanceNo>,
    dirty: bool,
}

/// Every saga.
#[derive(Debug)]
pub struct View {
    pub(crate) declarations: Arc<[Declaration]>,
    pub(crate) names: Names,
    pub(crate) entries: Vec<Entry>,
    pub(crate) instances: Vec<Instance>,
    pub(crate) indexes: Vec<Index>,
    pub(crate) parked: ParkedRecords,
    numbers: HashMap<Arc<str>, u32>,
    headers: Vec<String>,
    wanted: HashMap<u16, Arc<Wanted>>,
    dirty: Vec<u32>,
    due: BTreeSet<(i64, InstanceNo)>,
    positions: Vec<i64>,
    epoch: u64,
    revision: u64,
    watermark_ms: i64,
    /// Per lane, the timestamp of its last record; 0 once [`View::take_newest`] has told it.
    newest_ms: Vec<i64>,
    /// The versions of schemas: `None` until they are told.
    versions: HashMap<u32, Option<u32>>,
    records: u64,
    rewritten: u64,
    unplaced: VecDeque<UnplacedRecord>,
    unplaced_counts: [u64; Unplaced::ALL.len()],
}

impl View {
    /// An empty view. `epoch` names this view among those that served before it; it must grow from start to start.
    ///
    /// # Errors
    /// The declarations do not go together.
    pub fn new(declarations: &[Declaration], epoch: u64) -> Result<Self, DeclarationError> {
        check_together(declarations)?;
        let mut headers: Vec<String> = Vec::new();
        for declaration in declarations {
            if !headers.contains(&declaration.header) {
                headers.push(declaration.header.clone());
            }
        }
        Ok(Self {
            indexes: declarations.iter().map(Index::new).collect(),
            declarations: declarations.into(),
            names: Names::new(),
            entries: Vec::new(),
            instances: Vec::new(),
            parked: ParkedRecords::default(),
            numbers: HashMap::new(),
            headers,
            wanted: HashMap::new(),
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
            unplaced_counts: [0; Unplaced::ALL.len()],
        })
    }

    /// Adds one record. `dead` says that it was read from a dead-letter topic: it is shown, and is no fact.
    ///
    /// # Errors
    /// [`TryAgain`] if a body that must be opened cannot be had now. Nothing was changed.
    pub fn fold(&mut self, record: &Record<'_>, dead: bool, bodies: &dyn Bodies) -> Result<(), TryAgain> {
        let placed = self.place(record, dead, bodies);
        let placed = match placed {
            Err(Refused::Later(detail)) => return Err(TryAgain(detail)),
            Ok(placed) => Ok(placed),
            Err(Refused::Never(reason, detail)) => Err((reason, detail)),
        };
        self.records += 1;
        self.advance(record.topic, record.partition, record.offset.saturating_add(1));
        self.note_time(record);
        if let Err((reason, detail)) = placed.and_then(|(correlation, row)| self.add(&correlation, row)) {
            self.note_unplaced(record, reason, &detail);
        }
        Ok(())
    }

    /// Adds one record of a service's parked topic: it says what waits there, and is no fact.
    pub fn fold_parked(&mut self, record: &Record<'_>, news: ParkingUpdate) {
        self.records += 1;
        self.advance(record.topic, record.partition, record.offset.saturating_add(1));
        for saga in self.parked.fold(record.topic, news) {
            let Some(number) = self.numbers.get(&saga).copied() else { continue };
            if !std::mem::replace(&mut self.entries[number as usize].dirty, true) {
                self.dirty.push(number);
            }
        }
    }

    /// Notes that everything of a partition before `position` was read, records or not.
    pub fn advance(&mut self, topic: &str, partition: i32, position: i64) {
        let Some(lane) = self.names.lane(topic, partition).map(usize::from) else { return };
        if self.positions.len() <= lane {
            self.positions.resize(lane + 1, 0);
        }
        self.positions[lane] = position.max(self.positions[lane]);
    }

    fn note_time(&mut self, record: &Record<'_>) {
        let Some(lane) = self.names.lane(record.topic, record.partition).map(usize::from) else { return };
        if self.newest_ms.len() <= lane {
            self.newest_ms.resize(lane + 1, 0);
        }
        self.newest_ms[lane] = record.at_ms;
    }

    /// Of the partitions that gave records since this was last asked, the one that is furthest behind: its last record's time.
    pub fn take_newest(&mut self) -> Option<i64> {
        let oldest = self.newest_ms.iter().copied().filter(|at_ms| *at_ms > 0).min();
        self.newest_ms.fill(0);
        oldest
    }

    /// Tells the version of a schema, to be shown with the records that were written with it. `None` says that it is used and
    /// nobody has told its version yet.
    pub fn note_version(&mut self, schema: u32, version: Option<u32>) {
        if self.versions.len() < SCHEMAS_MAX {
            let known = self.versions.entry(schema).or_default();
            *known = version.or(*known);
        }
    }

    /// Schemas that are used and whose version nobody has told.
    pub fn unversioned(&self) -> impl Iterator<Item = u32> {
        self.versions.iter().filter(|(_, version)| version.is_none()).map(|(schema, _)| *schema)
    }

    /// The version of a schema, if it was told.
    pub(crate) fn version_of(&self, schema: u32) -> Option<u32> {
        self.versions.get(&schema).copied().flatten()
    }

    /// Derives where the changed sagas stand, and which are past a deadline now that everything up to `watermark_ms` was read.
    /// Returns the revision that readers see from here on.
    pub fn commit(&mut self, watermark_ms: i64) -> u64 {
        self.watermark_ms = watermark_ms.max(self.watermark_ms);
        for story in std::mem::take(&mut self.dirty) {
            self.derive(story);
        }
        while let Some((due_ms, instance)) = self.due.first().copied().filter(|(due_ms, _)| *due_ms < self.watermark_ms)
        {
            self.due.remove(&(due_ms, instance));
            self.derive(self.instances[instance as usize].story);
        }
        self.revision
    }

    /// The id of this view among those that served before it.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many changes were made.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The time up to which everything was read.
    #[must_use]
    pub fn watermark_ms(&self) -> i64 {
        self.watermark_ms
    }

    /// How many records were folded, repeats and unplaced ones too.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// How many sagas there are.
    #[must_use]
    pub fn sagas(&self) -> usize {
        self.instances.len()
    }

    /// What sagas are declared.
    #[must_use]
    pub fn declarations(&self) -> &[Declaration] {
        &self.declarations
    }

    /// Per topic and partition, the offset of the next record to read.
    #[must_use]
    pub fn positions(&self) -> BTreeMap<String, BTreeMap<i32, i64>> {
        let mut positions: BTreeMap<String, BTreeMap<i32, i64>> = BTreeMap::new();
        for (lane, position) in self.positions.iter().enumerate() {
            let (topic, partition) = self.names.place(LaneNo::try_from(lane).unwrap_or(LaneNo::MAX));
            positions.entry(topic.to_owned()).or_default().insert(partition, *position);
        }
        positions
    }

    /// How often a row that was shown has been replaced or forgotten: such a change cannot be undone by looking at offsets.
    #[must_use]
    pub fn rewritten(&self) -> u64 {
        self.rewritten
    }

    /// How many records are in no saga, per reason.
    #[must_use]
    pub fn unplaced_counts(&self) -> Vec<(Unplaced, u64)> {
        Unplaced::ALL.into_iter().zip(self.unplaced_counts).collect()
    }

    /// The last records that are in no saga.
    pub fn unplaced(&self) -> impl DoubleEndedIterator<Item = &UnplacedRecord> {
        self.unplaced.iter()
    }

    /// What a record is, and which saga it belongs to.
    fn place<'a>(
        &mut self,
        record: &Record<'a>,
        dead: bool,
        bodies: &dyn Bodies,
    ) -> Result<(std::borrow::Cow<'a, str>, Row), Refused> {
        let envelope = Envelope::read(record.headers, &self.headers).map_err(Refused::plain)?;
        let schema = record::schema_id(record.value);
        if envelope.avro && !dead && (schema == 0 || !record.readable) {
            let detail = if schema == 0 { "the value is not framed as Avro" } else { "its schema is not known" };
            return Err(Refused::Never(Unplaced::UnreadableBody, detail.to_owned()));
        }
        let mut opened = Opened { record, bodies, body: None };
        let event = match envelope.event {
            Some(event) => self.intern(event)?,
            None if schema != 0 => {
                let name = opened.body()?.type_name.clone();
                self.intern(&name)?
            }
            None => return Err(Refused::plain(Unplaced::NoType)),
        };
        let wanted = self.wanted(event);
        let label = if dead { String::new() } else { label(&wanted, &mut opened)? };
        let correlation = match (envelope.correlation, &wanted.correlation) {
            (Some(id), _) => std::borrow::Cow::Borrowed(id),
            (None, Some(path)) => std::borrow::Cow::Owned(correlation_field(path, &mut opened)?),
            (None, None) => return Err(Refused::plain(Unplaced::NoCorrelation)),
        };
        let shape = Shape {
            event,
            label: self.intern(&label)?,
            source: self.intern(envelope.source.unwrap_or_default())?,
            build: self.intern(envelope.build.unwrap_or_default())?,
            schema,
            dead,
            entity: record.key == Some(correlation.as_bytes()),
        };
        let id = envelope.id.map_or_else(|| record::place_id(record), record::id_bytes);
        let cause = envelope.causation.map_or([0; 16], record::id_bytes);
        let lane = self.names.lane(record.topic, record.partition).ok_or_else(Refused::full)?;
        let mut row = Row::new(id, cause, record.at_ms, lane, record.offset);
        row.sequence = envelope.sequence;
        row.shape = self.names.shape(shape, &self.declarations).ok_or_else(Refused::full)?;
        Ok((correlation, row))
    }

    fn intern(&mut self, text: &str) -> Result<u16, Refused> {
        self.names.intern(text).ok_or_else(Refused::full)
    }

    /// What must be read from bodies of this type; worked out once per type.
    fn wanted(&mut self, event: u16) -> Arc<Wanted> {
        if let Some(wanted) = self.wanted.get(&event) {
            return Arc::clone(wanted);
        }
        let name = self.names.text(event);
        let mut wanted = Wanted::default();
        for declaration in self.declarations.iter() {
            for asked in declaration.events.iter().filter(|selector| selector.names(name)) {
                if let Some(condition) = &asked.condition {
                    wanted.conditions.entry(condition.path.clone()).or_default().insert(condition.value.clone());
                }
            }
            let is_it =
                |event: &str| name.strip_suffix(event).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
            if let Some((_, path)) = declaration.fields.iter().find(|(event, _)| is_it(event)) {
                wanted.correlation.get_or_insert_with(|| path.clone());
            }
        }
        let wanted = Arc::new(wanted);
        self.wanted.insert(event, Arc::clone(&wanted));
        wanted
    }

    fn add(&mut self, correlation: &str, row: Row) -> Result<(), (Unplaced, String)> {
        let number = match self.numbers.get(correlation) {
            Some(number) => *number,
            None if self.entries.len() >= STORIES_MAX => {
                return Err((Unplaced::Full, format!("{STORIES_MAX} correlation ids are held")));
            }
            None => self.new_entry(correlation),
        };
        let entry = &mut self.entries[number as usize];
        match entry.story.add(row, &self.names) {
            Added::Repeat | Added::Beyond => return Ok(()),
            Added::Rewritten => self.rewritten += 1,
            Added::New => {}
        }
        if !entry.dirty {
            entry.dirty = true;
            self.dirty.push(number);
        }
        Ok(())
    }

    fn new_entry(&mut self, correlation: &str) -> u32 {
        let id: Arc<str> = correlation.into();
        // STORIES_MAX is far below the end of u32.
        let number = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.entries.push(Entry { id: Arc::clone(&id), story: Story::default(), instances: Vec::new(), dirty: false });
        self.numbers.insert(id, number);
        number
    }

    fn note_unplaced(&mut self, record: &Record<'_>, reason: Unplaced, detail: &str) {
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

    /// Derives the sagas of one story and moves them in their indexes.
    fn derive(&mut self, story: u32) {
        self.entries[story as usize].dirty = false;
        for number in 0..self.declarations.len() {
            let entry = &self.entries[story as usize];
            let known = entry
                .instances
                .iter()
                .copied()
                .find(|instance| usize::from(self.instances[*instance as usize].declaration) == number);
            let facts = Facts::read(&self.declarations[number], number, &entry.story.rows, &self.names);
            if known.is_none() && !facts.any() {
                continue;
            }
            let standing = facts.standing(&entry.story.rows);
            let flags = self.flags_of(number, story, &standing);
            let classes = self.indexes[number].classes_of(&standing, flags);
            let due_ms = standing.due_ms.filter(|_| flags & Flag::Stuck.bit() == 0);
            if standing.settled {
                // Most sagas are settled, and nothing more comes of them.
                self.entries[story as usize].story.rows.shrink_to_fit();
            }
            let instance = known.unwrap_or_else(|| self.new_instance(story, number));
            self.move_to(instance, number, classes, due_ms);
        }
    }

    /// Every flag of a saga, judged by the watermark where it takes one.
    pub(crate) fn flags_of(&self, declaration: usize, story: u32, standing: &Standing) -> u8 {
        let rows = &self.entries[story as usize].story.rows;
        let mut flags = standing.flags | row_flags(&self.declarations[declaration], rows, &self.names);
        if standing.due_ms.is_some_and(|due_ms| due_ms < self.watermark_ms) {
            flags |= Flag::Stuck.bit();
        }
        if self.parked.has(&self.entries[story as usize].id) {
            flags |= Flag::Parked.bit();
        }
        flags
    }

    fn new_instance(&mut self, story: u32, declaration: usize) -> InstanceNo {
        let instance = InstanceNo::try_from(self.instances.len()).unwrap_or(InstanceNo::MAX);
        let declaration = u8::try_from(declaration).unwrap_or(u8::MAX);
        self.instances.push(Instance { story, declaration, classes: 0, revision: 0, due_ms: None });
        self.entries[story as usize].instances.push(instance);
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
        self.numbers.get(id).map_or(&[], |number| &self.entries[*number as usize].instances)
    }
}

/// Why a record got no row.
enum Refused {
    Never(Unplaced, String),
    Later(String),
}

impl Refused {
    fn plain(reason: Unplaced) -> Self {
        Self::Never(reason, String::new())
    }

    fn full() -> Self {
        Self::Never(Unplaced::Full, "too many different names".to_owned())
    }
}

/// A body that is opened at most once, and only if somebody asks.
struct Opened<'a> {
    record: &'a Record<'a>,
    bodies: &'a dyn Bodies,
    body: Option<Body>,
}

impl Opened<'_> {
    fn body(&mut self) -> Result<&Body, Refused> {
        if self.body.is_none() {
            let value = self.record.value.unwrap_or_default();
            let body = self.bodies.open(value).map_err(|error| match error {
                BodyError::Unreadable(detail) => Refused::Never(Unplaced::UnreadableBody, detail),
                BodyError::Unavailable(detail) => Refused::Later(detail),
            })?;
            return Ok(self.body.insert(body));
        }
        self.body.as_ref().ok_or_else(|| Refused::plain(Unplaced::UnreadableBody))
    }
}

/// What the conditions of an event type are answered by this body: `kind=ORDER_PAID`. Values that nobody asked for are one.
fn label(wanted: &Wanted, opened: &mut Opened<'_>) -> Result<String, Refused> {
    let mut label = String::new();
    for (path, values) in &wanted.conditions {
        let value = record::field(&opened.body()?.fields, path).filter(|value| values.contains(value));
        if !label.is_empty() {
            label.push('&');
        }
        label.push_str(path);
        label.push('=');
        label.push_str(value.as_deref().unwrap_or("(other)"));
    }
    Ok(label)
}

fn correlation_field(path: &str, opened: &mut Opened<'_>) -> Result<String, Refused> {
    let value = record::field(&opened.body()?.fields, path);
    value
        .filter(|id| !id.is_empty() && id.len() <= record::TEXT_MAX)
        .ok_or_else(|| Refused::plain(Unplaced::NoCorrelation))
}
