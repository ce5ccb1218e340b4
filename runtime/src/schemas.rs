//! The schema catalog: the folder `schemas/`, or the same schemas compiled into a program.
//!
//! `<owner>/<events|inbox|state>/<Record>/v<N>.avsc` is version N of a record, and `v<N>.example.json` beside it is an example of
//! that version in plain JSON. This module reads the catalog; [`mod@lint`] has its rules, [`mod@plan`] compares it with a registry, and
//! [`json`] converts bodies for people. None of them knows a particular record.

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

/// A rule that the catalog breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LintFinding {
    /// The file or folder, relative to the catalog's root.
    pub path: String,
    /// What is wrong, and what is expected.
    pub message: String,
}

impl fmt::Display for LintFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// A catalog that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The folder cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The catalog breaks rules.
    #[error("the schema catalog breaks {} rules:\n{}", .0.len(), .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    RulesBroken(Vec<LintFinding>),
}

/// Every record type of a system with all its versions.
#[derive(Debug, Clone)]
pub struct SchemaCatalog {
    records: Vec<CatalogRecord>,
}

/// One record type: a subject in the registry.
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
    /// The file, relative to the catalog's root.
    pub path: String,
    /// The text of the schema, for the default system.
    pub text: String,
    /// The schema, parsed.
    pub schema: Schema,
    /// The example beside it.
    pub example: Option<String>,
}

/// Parses one self-contained schema.
///
/// # Errors
/// The text is no valid Avro schema, or not self-contained.
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
        self.versions.last().expect("a catalog record has at least one version")
    }

    /// Its folder, relative to the catalog's root.
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
    /// Reads a folder. A misplaced file, or one that does not parse, is an error; [`lint()`] checks the rules.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn load(root: &Path) -> Result<Self, CatalogError> {
        let mut files = BTreeMap::new();
        collect(root, "", &mut files)?;
        Self::from_files(files.iter().map(|(path, text)| (path.as_str(), text.as_str())))
    }

    /// Reads a folder and checks every rule.
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

    /// Reads files that were compiled in: pairs of path, relative to the root, and content.
    ///
    /// # Errors
    /// [`CatalogError::RulesBroken`].
    pub fn from_files<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, CatalogError> {
        let mut found = SchemaFiles::default();
        for (path, text) in files {
            found.add(path, text);
        }
        let records = found.into_records();
        records.map(|records| Self { records }).map_err(CatalogError::RulesBroken)
    }

    /// The catalog of compiled-in record types: for each, the distinct schemas that services write.
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

    /// The record with this owner, channel and name.
    #[must_use]
    pub fn find(&self, owner: &str, channel: Channel, name: &str) -> Option<&CatalogRecord> {
        self.records.iter().find(|record| record.owner == owner && record.channel == channel && record.name == name)
    }

    /// The record with this full name in a system.
    #[must_use]
    pub fn find_full_name(&self, full_name: &str, system: &str) -> Option<&CatalogRecord> {
        self.records.iter().find(|record| record.full_name(system) == full_name)
    }
}

/// The namespace of a record in the schema files, which are written for the default system.
fn namespace_of(owner: &str) -> String {
    format!("com.{}.{}", default::SYSTEM, owner.replace('-', "_"))
}

/// Deeper than any valid file; bounds a symbolic link that leads back up.
const MAX_FOLDER_DEPTH: usize = 6;

fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, String>) -> Result<(), CatalogError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CatalogError::Io { path, source }
    };
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let relative = format!("{prefix}{name}");
        // Notes for people and editors' files are not part of the catalog.
        if name.starts_with('.') || name.ends_with(".md") {
            continue;
        }
        if path.is_dir() && prefix.matches('/').count() < MAX_FOLDER_DEPTH {
            collect(&path, &format!("{relative}/"), files)?;
        } else {
            files.insert(relative, fs::read_to_string(&path).map_err(failed(&path))?);
        }
    }
    Ok(())
}

/// Collects schema files by record and version.
#[derive(Default)]
struct SchemaFiles {
    records: BTreeMap<(String, Channel, String), BTreeMap<u32, VersionFiles>>,
    findings: Vec<LintFinding>,
}

#[derive(Default)]
struct VersionFiles {
    schema: Option<(String, String)>,
    example: Option<(String, String)>,
}

impl SchemaFiles {
    fn add(&mut self, path: &str, text: &str) {
        let Some(parsed) = parse_path(path) else {
            return self.violation(
                path,
                "is misplaced; files are <owner>/<events|inbox|state>/<Record>/v<N>.avsc and v<N>.example.json",
            );
        };
        let version = self.records.entry(parsed.record).or_default().entry(parsed.version).or_default();
        let file = Some((path.to_owned(), text.to_owned()));
        if parsed.is_example {
            version.example = file;
        } else {
            version.schema = file;
        }
    }

    fn violation(&mut self, path: &str, message: impl Into<String>) {
        self.findings.push(LintFinding { path: path.to_owned(), message: message.into() });
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
        if self.findings.is_empty() { Ok(records) } else { Err(self.findings) }
    }

    fn version(&mut self, number: u32, files: VersionFiles) -> Option<SchemaVersion> {
        let Some((path, text)) = files.schema else {
            let path = files.example.map(|(path, _)| path).unwrap_or_default();
            self.violation(&path, format!("is the example of v{number}.avsc, which does not exist"));
            return None;
        };
        match Schema::parse_str(&text) {
            Ok(schema) => {
                Some(SchemaVersion { number, path, text, schema, example: files.example.map(|(_, text)| text) })
            }
            Err(error) => {
                self.violation(&path, format!("is no self-contained Avro schema: {}", codec::CodecError::new(error)));
                None
            }
        }
    }
}

struct SchemaFilePath {
    record: (String, Channel, String),
    version: u32,
    is_example: bool,
}

fn parse_path(path: &str) -> Option<SchemaFilePath> {
    let [owner, channel, name, file] = path.split('/').collect::<Vec<_>>().try_into().ok()?;
    let channel = Channel::of_name(channel)?;
    let number = file.strip_prefix('v')?;
    let (number, is_example) = match number.strip_suffix(".avsc") {
        Some(number) => (number, false),
        None => (number.strip_suffix(".example.json")?, true),
    };
    let version: u32 = number.parse().ok().filter(|version| *version >= 1)?;
    // "v01" and "v1" would be two files of one version.
    (version.to_string() == number).then(|| SchemaFilePath {
        record: (owner.to_owned(), channel, name.to_owned()),
        version,
        is_example,
    })
}
