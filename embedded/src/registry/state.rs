//! What the registry knows: schemas by id, versions by subject, levels and modes. Pure: no file, no HTTP, no clock.
//!
//! Every change is a [`Change`]: decided against the state, written to the journal, then applied, so that what is in the file is
//! what a restart finds. Ids are global and never given to another schema, not even after a permanent deletion.

use std::collections::{BTreeMap, HashMap};

use avro_compat::Level;
use serde::{Deserialize, Serialize};

use super::{error::RegistryError, schema::ParsedSchema};

/// One step of a change, as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(super) enum Change {
    /// A schema gets an id.
    Schema { id: u32, schema: String },
    /// A subject gets a version.
    Version { subject: String, version: u32, id: u32 },
    /// Versions are hidden, or removed for good.
    Delete { subject: String, versions: Vec<u32>, permanent: bool },
    /// A level is set, or unset; without a subject the global one.
    Level { subject: Option<String>, level: Option<String> },
    /// A mode is set, or unset; without a subject the global one.
    Mode { subject: Option<String>, mode: Option<Mode> },
}

/// Whether schemas may be registered and deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Mode {
    #[default]
    ReadWrite,
    ReadOnly,
}

impl Mode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Mode::ReadWrite => "READWRITE",
            Mode::ReadOnly => "READONLY",
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, RegistryError> {
        [Mode::ReadWrite, Mode::ReadOnly]
            .into_iter()
            .find(|mode| mode.name().eq_ignore_ascii_case(text))
            .ok_or(RegistryError::InvalidMode)
    }
}

/// Which version a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Latest,
    Number(u32),
}

impl Asked {
    pub(super) fn parse(text: &str) -> Result<Self, RegistryError> {
        if text == "latest" || text == "-1" {
            return Ok(Asked::Latest);
        }
        match text.parse::<u32>() {
            Ok(number) if (1..=i32::MAX as u32).contains(&number) => Ok(Asked::Number(number)),
            _ => Err(RegistryError::InvalidVersion(text.to_owned())),
        }
    }
}

/// One version of a subject, borrowed for an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) subject: &'a str,
    pub(super) version: u32,
    pub(super) id: u32,
    pub(super) schema: &'a ParsedSchema,
}

#[derive(Debug, Default)]
pub(super) struct State {
    schemas: BTreeMap<u32, ParsedSchema>,
    ids: HashMap<String, u32>,
    subjects: BTreeMap<String, Subject>,
    default_level: Level,
    level: Option<Level>,
    levels: BTreeMap<String, Level>,
    mode: Option<Mode>,
    modes: BTreeMap<String, Mode>,
}

#[derive(Debug, Default)]
struct Subject {
    versions: BTreeMap<u32, Version>,
}

#[derive(Debug)]
struct Version {
    id: u32,
    deleted: bool,
}

impl Subject {
    fn visible(&self, deleted: bool) -> impl DoubleEndedIterator<Item = (u32, u32)> {
        self.versions.iter().filter(move |(_, version)| deleted || !version.deleted).map(|(n, v)| (*n, v.id))
    }
}

impl State {
    pub(super) fn new(default_level: Level) -> Self {
        Self { default_level, ..Self::default() }
    }

    /// Applies what was decided here or read from the journal. Fails only on a journal that contradicts itself.
    pub(super) fn apply(&mut self, change: Change) -> Result<(), String> {
        match change {
            Change::Schema { id, schema } => {
                let parsed = ParsedSchema::stored(schema)?;
                if self.schemas.contains_key(&id) || self.ids.contains_key(&parsed.text) {
                    return Err(format!("schema id {id} or its schema is given twice"));
                }
                self.ids.insert(parsed.text.clone(), id);
                self.schemas.insert(id, parsed);
            }
            Change::Version { subject, version, id } => {
                if !self.schemas.contains_key(&id) {
                    return Err(format!("version {version} of '{subject}' has the unknown schema id {id}"));
                }
                let versions = &mut self.subjects.entry(subject.clone()).or_default().versions;
                if versions.insert(version, Version { id, deleted: false }).is_some() {
                    return Err(format!("version {version} of '{subject}' is given twice"));
                }
            }
            Change::Delete { subject, versions, permanent } => self.delete(&subject, &versions, permanent),
            Change::Level { subject, level } => {
                let level = level.map(|name| name.parse::<Level>()).transpose().map_err(|error| error.to_string())?;
                set(&mut self.level, &mut self.levels, subject, level);
            }
            Change::Mode { subject, mode } => set(&mut self.mode, &mut self.modes, subject, mode),
        }
        Ok(())
    }

    fn delete(&mut self, subject: &str, versions: &[u32], permanent: bool) {
        let Some(entry) = self.subjects.get_mut(subject) else { return };
        for number in versions {
            if permanent {
                entry.versions.remove(number);
            } else if let Some(version) = entry.versions.get_mut(number) {
                version.deleted = true;
            }
        }
        if entry.versions.is_empty() {
            self.subjects.remove(subject);
        }
    }

    // What clients ask.

    pub(super) fn subjects(&self, deleted: bool, deleted_only: bool) -> impl Iterator<Item = &str> {
        self.subjects
            .iter()
            .filter(move |(_, subject)| {
                let live = subject.visible(false).next().is_some();
                if deleted_only { !live } else { live || deleted }
            })
            .map(|(name, _)| name.as_str())
    }

    pub(super) fn versions(&self, subject: &str, deleted: bool) -> Result<Vec<Found<'_>>, RegistryError> {
        let not_found = || RegistryError::SubjectNotFound(subject.to_owned());
        let (name, entry) = self.subjects.get_key_value(subject).ok_or_else(not_found)?;
        let found: Vec<_> = entry.visible(deleted).filter_map(|(version, id)| self.found(name, version, id)).collect();
        if found.is_empty() { Err(not_found()) } else { Ok(found) }
    }

    pub(super) fn version(&self, subject: &str, asked: Asked, deleted: bool) -> Result<Found<'_>, RegistryError> {
        let versions = self.versions(subject, deleted)?;
        match asked {
            Asked::Latest => versions.last().copied().ok_or_else(|| RegistryError::SubjectNotFound(subject.to_owned())),
            Asked::Number(number) => {
                versions.into_iter().find(|found| found.version == number).ok_or(RegistryError::VersionNotFound(number))
            }
        }
    }

    pub(super) fn all_versions(&self, deleted: bool) -> impl Iterator<Item = Found<'_>> {
        self.subjects.iter().flat_map(move |(name, subject)| {
            subject.visible(deleted).filter_map(|(version, id)| self.found(name, version, id))
        })
    }

    /// A schema that at least one subject still has, deleted or not: old records must stay readable.
    pub(super) fn by_id(&self, id: u32) -> Option<&ParsedSchema> {
        self.all_versions(true).find(|found| found.id == id).map(|found| found.schema)
    }

    pub(super) fn by_guid(&self, guid: &str) -> Option<(u32, &ParsedSchema)> {
        let guid = uuid::Uuid::parse_str(guid).ok()?;
        self.all_versions(true).find(|found| found.schema.guid() == guid).map(|found| (found.id, found.schema))
    }

    pub(super) fn max_id(&self) -> u32 {
        self.schemas.last_key_value().map_or(0, |(id, _)| *id)
    }

    pub(super) fn look_up(
        &self,
        subject: &str,
        schema: &ParsedSchema,
        deleted: bool,
    ) -> Result<Found<'_>, RegistryError> {
        let versions = self.versions(subject, deleted)?;
        versions.into_iter().rev().find(|found| found.schema.text == schema.text).ok_or(RegistryError::SchemaNotFound)
    }

    pub(super) fn level(&self) -> Level {
        self.level.unwrap_or(self.default_level)
    }

    /// The global level, if a client has set one.
    pub(super) fn configured_level(&self) -> Option<Level> {
        self.level
    }

    pub(super) fn level_of(&self, subject: &str) -> Option<Level> {
        self.levels.get(subject).copied()
    }

    pub(super) fn effective_level(&self, subject: &str) -> Level {
        self.level_of(subject).unwrap_or_else(|| self.level())
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode.unwrap_or_default()
    }

    pub(super) fn mode_of(&self, subject: &str) -> Option<Mode> {
        self.modes.get(subject).copied()
    }

    fn found<'a>(&'a self, subject: &'a str, version: u32, id: u32) -> Option<Found<'a>> {
        self.schemas.get(&id).map(|schema| Found { subject, version, id, schema })
    }

    // What clients change: decided here, applied by the caller once it is in the journal.

    /// The version a schema has or gets under a subject, and what must change for it.
    pub(super) fn register(
        &self,
        subject: &str,
        schema: &ParsedSchema,
    ) -> Result<(u32, u32, Vec<Change>), RegistryError> {
        self.writable(subject)?;
        if let Ok(found) = self.look_up(subject, schema, false) {
            return Ok((found.id, found.version, Vec::new()));
        }
        let earlier = self.versions(subject, false).unwrap_or_default();
        self.compatible(subject, schema, &earlier).map_err(|reasons| {
            RegistryError::Incompatible(format!(
                "Schema being registered is incompatible with an earlier schema for subject \"{subject}\", details: [{}]",
                reasons.join(", ")
            ))
        })?;
        let mut changes = Vec::new();
        let id = self.ids.get(&schema.text).copied().unwrap_or_else(|| {
            let id = self.max_id() + 1;
            changes.push(Change::Schema { id, schema: schema.text.clone() });
            id
        });
        let last = self.subjects.get(subject).and_then(|entry| entry.versions.last_key_value());
        let version = last.map_or(0, |(number, _)| *number) + 1;
        changes.push(Change::Version { subject: subject.to_owned(), version, id });
        Ok((id, version, changes))
    }

    /// Holds a schema against earlier versions at the subject's level. The reasons are in the form that registries answer with.
    pub(super) fn compatible(
        &self,
        subject: &str,
        schema: &ParsedSchema,
        earlier: &[Found<'_>],
    ) -> Result<(), Vec<String>> {
        let level = self.effective_level(subject);
        let schemas: Vec<_> = earlier.iter().map(|found| found.schema.schema.as_ref()).collect();
        level.check(&schema.schema, &schemas).map_err(|refusal| {
            let old = &earlier[refusal.index];
            let mut reasons: Vec<String> = refusal.found.iter().map(ToString::to_string).collect();
            reasons.push(format!("{{oldSchemaVersion: {}}}", old.version));
            reasons.push(format!("{{oldSchema: '{}'}}", old.schema.text));
            reasons.push(format!("{{compatibility: '{level}'}}"));
            reasons
        })
    }

    pub(super) fn delete_subject(
        &self,
        subject: &str,
        permanent: bool,
    ) -> Result<(Vec<u32>, Vec<Change>), RegistryError> {
        self.writable(subject)?;
        let all: Vec<u32> = self.versions(subject, true)?.iter().map(|found| found.version).collect();
        let live: Vec<u32> =
            self.versions(subject, false).unwrap_or_default().iter().map(|found| found.version).collect();
        let versions = match (permanent, live.is_empty()) {
            (false, true) => return Err(RegistryError::SubjectSoftDeleted(subject.to_owned())),
            (true, false) => return Err(RegistryError::SubjectNotSoftDeleted(subject.to_owned())),
            (false, false) => live,
            (true, true) => all,
        };
        let subject = subject.to_owned();
        let mut changes = vec![Change::Delete { subject: subject.clone(), versions: versions.clone(), permanent }];
        // A subject that is deleted loses its own settings with it; one of that name that comes later starts afresh.
        if self.levels.contains_key(&subject) {
            changes.push(Change::Level { subject: Some(subject.clone()), level: None });
        }
        if self.modes.contains_key(&subject) {
            changes.push(Change::Mode { subject: Some(subject), mode: None });
        }
        Ok((versions, changes))
    }

    pub(super) fn delete_version(
        &self,
        subject: &str,
        asked: Asked,
        permanent: bool,
    ) -> Result<(u32, Vec<Change>), RegistryError> {
        self.writable(subject)?;
        let version = self.version(subject, asked, asked != Asked::Latest)?.version;
        let deleted =
            self.subjects.get(subject).and_then(|entry| entry.versions.get(&version)).is_some_and(|v| v.deleted);
        match (permanent, deleted) {
            (false, true) => Err(RegistryError::VersionSoftDeleted(subject.to_owned(), version)),
            (true, false) => Err(RegistryError::VersionNotSoftDeleted(subject.to_owned(), version)),
            _ => {
                let change = Change::Delete { subject: subject.to_owned(), versions: vec![version], permanent };
                Ok((version, vec![change]))
            }
        }
    }

    fn writable(&self, subject: &str) -> Result<(), RegistryError> {
        match self.mode_of(subject).unwrap_or_else(|| self.mode()) {
            Mode::ReadWrite => Ok(()),
            Mode::ReadOnly => Err(RegistryError::NotPermitted(format!("Subject {subject} is in read-only mode"))),
        }
    }
}

fn set<T>(global: &mut Option<T>, by_subject: &mut BTreeMap<String, T>, subject: Option<String>, value: Option<T>) {
    match (subject, value) {
        (None, value) => *global = value,
        (Some(subject), Some(value)) => {
            by_subject.insert(subject, value);
        }
        (Some(subject), None) => {
            by_subject.remove(&subject);
        }
    }
}
