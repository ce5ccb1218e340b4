//! The contract as data: the folder `schemas/`, or the same compiled into a program.
//!
//! `<owner>/<events|inbox|state>/<Record>/v<N>.avsc` is version N of a record, `v<N>.example.json` beside it is one such record as a
//! person would write it. This module knows the form; [`mod@lint`] knows the rules, [`mod@plan`] what a registry still lacks, [`json`] how
//! people read and write bodies. None of them knows any one record.

pub mod json;
pub mod lint;
pub mod plan;

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use apache_avro::Schema;

use crate::{
    codec,
    config::default,
    message::{Channel, RecordType, topic},
};

pub use self::{
    json::{JsonError, avro_to_json, json_to_avro},
    lint::lint,
    plan::{PlannedAction, RegistryChange, apply, plan},
};

/// Something wrong with the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LintFinding {
    /// The file or folder, seen from the contract's root.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for LintFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// A contract that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The folder cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// What could not be read.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The rules are broken.
    #[error("the contract has {} faults:\n{}", .0.len(), .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    RulesBroken(Vec<LintFinding>),
}

/// Every record of a system, each with all its versions.
#[derive(Debug, Clone)]
pub struct SchemaCatalog {
    records: Vec<CatalogRecord>,
}

/// One record: a subject in the registry.
#[derive(Debug, Clone)]
pub struct CatalogRecord {
    /// The service that owns it.
    pub owner: String,
    /// The topic kind it travels on.
    pub channel: Channel,
    /// Its short name.
    pub name: String,
    /// Its versions, oldest first; at least one.
    pub versions: Vec<SchemaVersion>,
}

/// One version of a record.
#[derive(Debug, Clone)]
pub struct SchemaVersion {
    /// 1, 2, ….
    pub number: u32,
    /// The file, seen from the contract's root.
    pub path: String,
    /// The schema as written, for the default system.
    pub text: String,
    /// The schema, parsed.
    pub schema: Schema,
    /// The example beside it.
    pub example: Option<String>,
}

/// Parses one self-contained schema.
///
/// # Errors
/// It is none.
pub fn parse(text: &str) -> Result<Schema, codec::CodecError> {
    Schema::parse_str(text).map_err(codec::CodecError::new)
}

impl CatalogRecord {
    /// The Avro full name, registry subject and event type in a system.
    #[must_use]
    pub fn full_name(&self, system: &str) -> String {
        format!("com.{system}.{}.{}", self.owner.replace('-', "_"), self.name)
    }

    /// The topic it travels on in a system.
    #[must_use]
    pub fn topic(&self, system: &str) -> String {
        topic(system, &self.owner, self.channel)
    }

    /// The newest version.
    #[must_use]
    pub fn latest(&self) -> &SchemaVersion {
        self.versions.last().expect("a record is made with at least one version")
    }

    /// Its folder, seen from the contract's root.
    #[must_use]
    pub fn folder(&self) -> String {
        format!("{}/{}/{}", self.owner, self.channel.name(), self.name)
    }
}

impl SchemaVersion {
    /// The schema's text in a system.
    #[must_use]
    pub fn text_in(&self, system: &str) -> String {
        codec::in_system(&self.text, system).into_owned()
    }
}

impl SchemaCatalog {
    /// Reads a folder. What lies at wrong places or does not parse is a fault; the rules are [`lint()`]'s.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn load(root: &Path) -> Result<Self, CatalogError> {
        let mut files = BTreeMap::new();
        collect(root, "", &mut files)?;
        Self::from_files(files.iter().map(|(path, text)| (path.as_str(), text.as_str())))
    }

    /// Reads a folder and holds it against every rule.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn load_and_lint(root: &Path) -> Result<Self, CatalogError> {
        let catalog = Self::load(root)?;
        match lint(&catalog) {
            findings if findings.is_empty() => Ok(catalog),
            findings => Err(CatalogError::RulesBroken(findings)),
        }
    }

    /// The same from texts that were compiled in: pairs of path, seen from the root, and content.
    ///
    /// # Errors
    /// [`CatalogError::RulesBroken`].
    pub fn from_files<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, CatalogError> {
        let mut found = Files::default();
        for (path, text) in files {
            found.add(path, text);
        }
        let records = found.into_records();
        records.map(|records| Self { records }).map_err(CatalogError::RulesBroken)
    }

    /// What services were compiled with: per record, each different schema they write it with.
    ///
    /// # Errors
    /// [`CatalogError::RulesBroken`] if one does not parse.
    pub fn from_records<'a>(records: impl IntoIterator<Item = &'a RecordType>) -> Result<Self, CatalogError> {
        let mut texts: BTreeMap<(&str, &str, &str), Vec<&str>> = BTreeMap::new();
        for record in records {
            if let Some(text) = record.schema {
                let versions = texts.entry((record.owner, record.channel.name(), record.name)).or_default();
                if !versions.contains(&text) {
                    versions.push(text);
                }
            }
        }
        let mut files = Vec::new();
        for ((owner, channel, name), versions) in texts {
            for (index, text) in versions.into_iter().enumerate() {
                files.push((format!("{owner}/{channel}/{name}/v{}.avsc", index + 1), text));
            }
        }
        Self::from_files(files.iter().map(|(path, text)| (path.as_str(), *text)))
    }

    /// Every record, by owner, channel and name.
    #[must_use]
    pub fn records(&self) -> &[CatalogRecord] {
        &self.records
    }

    /// One record by its place.
    #[must_use]
    pub fn find(&self, owner: &str, channel: Channel, name: &str) -> Option<&CatalogRecord> {
        self.records.iter().find(|record| record.owner == owner && record.channel == channel && record.name == name)
    }

    /// One record by its full name in a system.
    #[must_use]
    pub fn find_full_name(&self, full_name: &str, system: &str) -> Option<&CatalogRecord> {
        self.records.iter().find(|record| record.full_name(system) == full_name)
    }
}

/// The namespace of a record in the files, which are written for the default system.
fn namespace_of(owner: &str) -> String {
    format!("com.{}.{}", default::SYSTEM, owner.replace('-', "_"))
}

/// Deeper than the deepest legal file; a link that leads back up ends here.
const MAX_FOLDER_DEPTH: usize = 6;

fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, String>) -> Result<(), CatalogError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CatalogError::Io { path, source }
    };
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let place = format!("{prefix}{name}");
        // Notes for people, and what editors leave behind, are no part of the contract.
        if name.starts_with('.') || name.ends_with(".md") {
            continue;
        }
        if path.is_dir() && prefix.matches('/').count() < MAX_FOLDER_DEPTH {
            collect(&path, &format!("{place}/"), files)?;
        } else {
            files.insert(place, fs::read_to_string(&path).map_err(failed(&path))?);
        }
    }
    Ok(())
}

/// Files on their way to records.
#[derive(Default)]
struct Files {
    records: BTreeMap<(String, Channel, String), BTreeMap<u32, VersionFiles>>,
    faults: Vec<LintFinding>,
}

#[derive(Default)]
struct VersionFiles {
    schema: Option<(String, String)>,
    example: Option<(String, String)>,
}

impl Files {
    fn add(&mut self, path: &str, text: &str) {
        let Some(place) = parse_place(path) else {
            return self.fault(
                path,
                "has no place here; files are <owner>/<events|inbox|state>/<Record>/v<N>.avsc and v<N>.example.json",
            );
        };
        let version = self.records.entry(place.record).or_default().entry(place.version).or_default();
        let file = Some((path.to_owned(), text.to_owned()));
        if place.is_example {
            version.example = file;
        } else {
            version.schema = file;
        }
    }

    fn fault(&mut self, path: &str, message: impl Into<String>) {
        self.faults.push(LintFinding { path: path.to_owned(), message: message.into() });
    }

    fn into_records(mut self) -> Result<Vec<CatalogRecord>, Vec<LintFinding>> {
        let mut records = Vec::new();
        for ((owner, channel, name), files) in std::mem::take(&mut self.records) {
            let versions: Vec<SchemaVersion> =
                files.into_iter().filter_map(|(number, files)| self.version(number, files)).collect();
            if !versions.is_empty() {
                records.push(CatalogRecord { owner, channel, name, versions });
            }
        }
        if self.faults.is_empty() { Ok(records) } else { Err(self.faults) }
    }

    fn version(&mut self, number: u32, files: VersionFiles) -> Option<SchemaVersion> {
        let Some((path, text)) = files.schema else {
            let path = files.example.map(|(path, _)| path).unwrap_or_default();
            self.fault(&path, format!("is the example of v{number}.avsc, which does not exist"));
            return None;
        };
        match Schema::parse_str(&text) {
            Ok(schema) => {
                Some(SchemaVersion { number, path, text, schema, example: files.example.map(|(_, text)| text) })
            }
            Err(error) => {
                self.fault(&path, format!("is no self-contained Avro schema: {}", codec::CodecError::new(error)));
                None
            }
        }
    }
}

struct FilePlace {
    record: (String, Channel, String),
    version: u32,
    is_example: bool,
}

fn parse_place(path: &str) -> Option<FilePlace> {
    let [owner, channel, name, file] = path.split('/').collect::<Vec<_>>().try_into().ok()?;
    let channel = Channel::of_name(channel)?;
    let number = file.strip_prefix('v')?;
    let (number, is_example) = match number.strip_suffix(".avsc") {
        Some(number) => (number, false),
        None => (number.strip_suffix(".example.json")?, true),
    };
    let version: u32 = number.parse().ok().filter(|version| *version >= 1)?;
    // "v01" and "v1" would be two files of one version.
    (version.to_string() == number).then(|| FilePlace {
        record: (owner.to_owned(), channel, name.to_owned()),
        version,
        is_example,
    })
}
