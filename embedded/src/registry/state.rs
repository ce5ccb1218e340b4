//! The registry's state: schemas by id, versions by subject, levels and modes. Pure: no file, no HTTP, no clock.
//!
//! Every change is a [`RegistryChange`]: decided against the state, written to the journal, then applied. A restart therefore
//! restores exactly what the file holds. Ids are global. An id never moves to another schema, not even after a permanent deletion.

use std::collections::{BTreeMap, HashMap};

use avro_compat::Level;
use serde::{Deserialize, Serialize};

use super::{error::RegistryApiError, schema::ParsedSchema};

/// One step of a change, as the journal stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(super) enum RegistryChange {
    /// Assigns an id to a schema.
    Schema { id: u32, schema: String },
    /// Adds a version to a subject.
    Version { subject: String, version: u32, id: u32 },
    /// Hides versions, or removes them permanently.
    Delete { subject: String, versions: Vec<u32>, permanent: bool },
    /// Sets or removes a level: the subject's, or without a subject the global one.
    Level { subject: Option<String>, level: Option<String> },
    /// Sets or removes a mode: the subject's, or without a subject the global one.
    Mode { subject: Option<String>, mode: Option<SubjectMode> },
}

/// Whether schemas may be registered and deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum SubjectMode {
    #[default]
    ReadWrite,
    ReadOnly,
}

impl SubjectMode {
    pub(super) fn name(self) -> &'static str {
        match self {
            SubjectMode::ReadWrite => "READWRITE",
            SubjectMode::ReadOnly => "READONLY",
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, RegistryApiError> {
        [SubjectMode::ReadWrite, SubjectMode::ReadOnly]
            .into_iter()
            .find(|mode| mode.name().eq_ignore_ascii_case(text))
            .ok_or(RegistryApiError::InvalidMode)
    }
}

/// The version that a client requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VersionSelector {
    Latest,
    Number(u32),
}

impl VersionSelector {
    pub(super) fn parse(text: &str) -> Result<Self, RegistryApiError> {
        if text == "latest" || text == "-1" {
            return Ok(VersionSelector::Latest);
        }
        match text.parse::<u32>() {
            Ok(number) if (1..=i32::MAX as u32).contains(&number) => Ok(VersionSelector::Number(number)),
            _ => Err(RegistryApiError::InvalidVersion(text.to_owned())),
        }
    }
}

/// One version of a subject, borrowed for a response.
#[derive(Debug, Clone, Copy)]
pub(super) struct SubjectVersion<'a> {
    pub(super) subject: &'a str,
    pub(super) version: u32,
    pub(super) id: u32,
    pub(super) schema: &'a ParsedSchema,
}

#[derive(Debug, Default)]
pub(super) struct RegistryState {
    schemas: BTreeMap<u32, ParsedSchema>,
    ids: HashMap<String, u32>,
    subjects: BTreeMap<String, SubjectVersions>,
    default_level: Level,
    level: Option<Level>,
    levels: BTreeMap<String, Level>,
    mode: Option<SubjectMode>,
    modes: BTreeMap<String, SubjectMode>,
}

#[derive(Debug, Default)]
struct SubjectVersions {
    versions: BTreeMap<u32, StoredVersion>,
}

#[derive(Debug)]
struct StoredVersion {
    id: u32,
    deleted: bool,
}

impl SubjectVersions {
    fn visible(&self, deleted: bool) -> impl DoubleEndedIterator<Item = (u32, u32)> {
        self.versions.iter().filter(move |(_, version)| deleted || !version.deleted).map(|(n, v)| (*n, v.id))
    }
}

impl RegistryState {
    pub(super) fn new(default_level: Level) -> Self {
        Self { default_level, ..Self::default() }
    }

    /// Applies a change that was decided here or read from the journal. Fails only when the journal contradicts itself.
    pub(super) fn apply(&mut self, change: RegistryChange) -> Result<(), String> {
        match change {
            RegistryChange::Schema { id, schema } => {
                let parsed = ParsedSchema::stored(schema)?;
                if self.schemas.contains_key(&id) || self.ids.contains_key(&parsed.text) {
                    return Err(format!("schema id {id} or its schema appears twice"));
                }
                self.ids.insert(parsed.text.clone(), id);
                self.schemas.insert(id, parsed);
            }
            RegistryChange::Version { subject, version, id } => {
                if !self.schemas.contains_key(&id) {
                    return Err(format!("version {version} of '{subject}' has the unknown schema id {id}"));
                }
                let versions = &mut self.subjects.entry(subject.clone()).or_default().versions;
                if versions.insert(version, StoredVersion { id, deleted: false }).is_some() {
                    return Err(format!("version {version} of '{subject}' appears twice"));
                }
            }
            RegistryChange::Delete { subject, versions, permanent } => self.delete(&subject, &versions, permanent),
            RegistryChange::Level { subject, level } => {
                let level = level.map(|name| name.parse::<Level>()).transpose().map_err(|error| error.to_string())?;
                set(&mut self.level, &mut self.levels, subject, level);
            }
            RegistryChange::Mode { subject, mode } => set(&mut self.mode, &mut self.modes, subject, mode),
        }
        Ok(())
    }

    fn delete(&mut self, subject: &str, versions: &[u32], permanent: bool) {
        let Some(subject_versions) = self.subjects.get_mut(subject) else { return };
        for number in versions {
            if permanent {
                subject_versions.versions.remove(number);
            } else if let Some(version) = subject_versions.versions.get_mut(number) {
                version.deleted = true;
            }
        }
        if subject_versions.versions.is_empty() {
            self.subjects.remove(subject);
        }
    }

    // Queries.

    pub(super) fn subjects(&self, deleted: bool, deleted_only: bool) -> impl Iterator<Item = &str> {
        self.subjects
            .iter()
            .filter(move |(_, subject)| {
                let live = subject.visible(false).next().is_some();
                if deleted_only { !live } else { live || deleted }
            })
            .map(|(name, _)| name.as_str())
    }

    pub(super) fn versions(&self, subject: &str, deleted: bool) -> Result<Vec<SubjectVersion<'_>>, RegistryApiError> {
        let not_found = || RegistryApiError::SubjectNotFound(subject.to_owned());
        let (name, subject_versions) = self.subjects.get_key_value(subject).ok_or_else(not_found)?;
        let visible: Vec<_> =
            subject_versions.visible(deleted).filter_map(|(version, id)| self.version_of(name, version, id)).collect();
        if visible.is_empty() { Err(not_found()) } else { Ok(visible) }
    }

    pub(super) fn version(
        &self,
        subject: &str,
        selector: VersionSelector,
        deleted: bool,
    ) -> Result<SubjectVersion<'_>, RegistryApiError> {
        let versions = self.versions(subject, deleted)?;
        match selector {
            VersionSelector::Latest => {
                versions.last().copied().ok_or_else(|| RegistryApiError::SubjectNotFound(subject.to_owned()))
            }
            VersionSelector::Number(number) => versions
                .into_iter()
                .find(|version| version.version == number)
                .ok_or(RegistryApiError::VersionNotFound(number)),
        }
    }

    pub(super) fn all_versions(&self, deleted: bool) -> impl Iterator<Item = SubjectVersion<'_>> {
        self.subjects.iter().flat_map(move |(name, subject)| {
            subject.visible(deleted).filter_map(|(version, id)| self.version_of(name, version, id))
        })
    }

    /// Finds a schema while at least one subject has it. A soft-deleted version counts: old records must stay readable.
    pub(super) fn schema_by_id(&self, id: u32) -> Option<&ParsedSchema> {
        self.all_versions(true).find(|version| version.id == id).map(|version| version.schema)
    }

    pub(super) fn schema_by_guid(&self, guid: &str) -> Option<(u32, &ParsedSchema)> {
        let guid = uuid::Uuid::parse_str(guid).ok()?;
        self.all_versions(true)
            .find(|version| version.schema.guid() == guid)
            .map(|version| (version.id, version.schema))
    }

    pub(super) fn max_id(&self) -> u32 {
        self.schemas.last_key_value().map_or(0, |(id, _)| *id)
    }

    pub(super) fn look_up(
        &self,
        subject: &str,
        schema: &ParsedSchema,
        deleted: bool,
    ) -> Result<SubjectVersion<'_>, RegistryApiError> {
        let versions = self.versions(subject, deleted)?;
        versions
            .into_iter()
            .rev()
            .find(|version| version.schema.text == schema.text)
            .ok_or(RegistryApiError::SchemaNotFound)
    }

    pub(super) fn level(&self) -> Level {
        self.level.unwrap_or(self.default_level)
    }

    /// The level that a client has set for the subject, or globally.
    pub(super) fn configured_level(&self, subject: Option<&str>) -> Option<Level> {
        match subject {
            Some(subject) => self.levels.get(subject).copied(),
            None => self.level,
        }
    }

    fn effective_level(&self, subject: &str) -> Level {
        self.configured_level(Some(subject)).unwrap_or_else(|| self.level())
    }

    pub(super) fn mode(&self) -> SubjectMode {
        self.mode.unwrap_or_default()
    }

    /// The mode that a client has set for the subject, or globally.
    pub(super) fn configured_mode(&self, subject: Option<&str>) -> Option<SubjectMode> {
        match subject {
            Some(subject) => self.modes.get(subject).copied(),
            None => self.mode,
        }
    }

    fn version_of<'a>(&'a self, subject: &'a str, version: u32, id: u32) -> Option<SubjectVersion<'a>> {
        self.schemas.get(&id).map(|schema| SubjectVersion { subject, version, id, schema })
    }

    // Changes: decided here. The caller applies them once they are in the journal.

    /// The id and version that a schema has or receives under a subject, and the changes that this needs.
    pub(super) fn register(
        &self,
        subject: &str,
        schema: &ParsedSchema,
    ) -> Result<(u32, u32, Vec<RegistryChange>), RegistryApiError> {
        self.check_writable(subject)?;
        if let Ok(version) = self.look_up(subject, schema, false) {
            return Ok((version.id, version.version, Vec::new()));
        }
        let earlier = self.versions(subject, false).unwrap_or_default();
        self.check_compatibility(subject, schema, &earlier).map_err(|reasons| {
            RegistryApiError::Incompatible(format!(
                "Schema being registered is incompatible with an earlier schema for subject \"{subject}\", details: [{}]",
                reasons.join(", ")
            ))
        })?;
        let mut changes = Vec::new();
        let id = self.ids.get(&schema.text).copied().unwrap_or_else(|| {
            let id = self.max_id() + 1;
            changes.push(RegistryChange::Schema { id, schema: schema.text.clone() });
            id
        });
        let last = self.subjects.get(subject).and_then(|subject_versions| subject_versions.versions.last_key_value());
        let version = last.map_or(0, |(number, _)| *number) + 1;
        changes.push(RegistryChange::Version { subject: subject.to_owned(), version, id });
        Ok((id, version, changes))
    }

    /// Compares a schema with earlier versions at the subject's level. The reasons have the format of Confluent's registry.
    pub(super) fn check_compatibility(
        &self,
        subject: &str,
        schema: &ParsedSchema,
        earlier: &[SubjectVersion<'_>],
    ) -> Result<(), Vec<String>> {
        let level = self.effective_level(subject);
        let schemas: Vec<_> = earlier.iter().map(|version| version.schema.schema.as_ref()).collect();
        level.check(&schema.schema, &schemas).map_err(|incompatible| {
            let old = &earlier[incompatible.index];
            let mut reasons: Vec<String> = incompatible.found.iter().map(ToString::to_string).collect();
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
    ) -> Result<(Vec<u32>, Vec<RegistryChange>), RegistryApiError> {
        self.check_writable(subject)?;
        let all: Vec<u32> = self.versions(subject, true)?.iter().map(|version| version.version).collect();
        let live: Vec<u32> =
            self.versions(subject, false).unwrap_or_default().iter().map(|version| version.version).collect();
        let versions = match (permanent, live.is_empty()) {
            (false, true) => return Err(RegistryApiError::SubjectSoftDeleted(subject.to_owned())),
            (true, false) => return Err(RegistryApiError::SubjectNotSoftDeleted(subject.to_owned())),
            (false, false) => live,
            (true, true) => all,
        };
        let subject = subject.to_owned();
        let mut changes =
            vec![RegistryChange::Delete { subject: subject.clone(), versions: versions.clone(), permanent }];
        // A deletion also removes the subject's settings: a later subject of the same name must not inherit them.
        if self.levels.contains_key(&subject) {
            changes.push(RegistryChange::Level { subject: Some(subject.clone()), level: None });
        }
        if self.modes.contains_key(&subject) {
            changes.push(RegistryChange::Mode { subject: Some(subject), mode: None });
        }
        Ok((versions, changes))
    }

    pub(super) fn delete_version(
        &self,
        subject: &str,
        selector: VersionSelector,
        permanent: bool,
    ) -> Result<(u32, Vec<RegistryChange>), RegistryApiError> {
        self.check_writable(subject)?;
        let version = self.version(subject, selector, selector != VersionSelector::Latest)?.version;
        let deleted = self
            .subjects
            .get(subject)
            .and_then(|subject_versions| subject_versions.versions.get(&version))
            .is_some_and(|v| v.deleted);
        match (permanent, deleted) {
            (false, true) => Err(RegistryApiError::VersionSoftDeleted(subject.to_owned(), version)),
            (true, false) => Err(RegistryApiError::VersionNotSoftDeleted(subject.to_owned(), version)),
            _ => {
                let change = RegistryChange::Delete { subject: subject.to_owned(), versions: vec![version], permanent };
                Ok((version, vec![change]))
            }
        }
    }

    fn check_writable(&self, subject: &str) -> Result<(), RegistryApiError> {
        match self.configured_mode(Some(subject)).unwrap_or_else(|| self.mode()) {
            SubjectMode::ReadWrite => Ok(()),
            SubjectMode::ReadOnly => {
                Err(RegistryApiError::NotPermitted(format!("Subject {subject} is in read-only mode")))
            }
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
