//! Compares a registry with a schema catalog and registers what is missing. The plan can be shown before it is applied.
//!
//! Producers never register schemas: an operator or a pipeline does, with this module. It knows the registry only through its client.

use std::fmt;

use apache_avro::Schema;
use avro_compat::Level;

use super::{CatalogRecord, SchemaCatalog, SchemaVersion};
use crate::registry::{RegistryClient, RegistryError};

/// The compatibility level of every subject of a catalog: every version can read every other one.
pub const LEVEL: Level = Level::FullTransitive;

/// One planned change of the registry, or one schema that needs none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryChange {
    /// The subject.
    pub subject: String,
    /// The action for this subject.
    pub action: PlannedAction,
}

/// What applying a plan does to a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlannedAction {
    /// Sets the subject's compatibility level.
    SetLevel {
        /// The subject's own level, if it has one.
        from: Option<String>,
        /// The new level.
        to: String,
    },
    /// The subject does not exist yet.
    NewSubject {
        /// The version in the catalog.
        version: u32,
        /// The schema.
        text: String,
    },
    /// The subject exists without this version.
    NewVersion {
        /// The version in the catalog.
        version: u32,
        /// The schema.
        text: String,
    },
    /// This version is registered.
    AlreadyThere {
        /// The version in the catalog.
        version: u32,
        /// Its id, if the registry returns it.
        id: Option<u32>,
    },
    /// This version is incompatible with the registered ones.
    Refused {
        /// The version in the catalog.
        version: u32,
        /// The reasons.
        reasons: Vec<String>,
    },
}

impl RegistryChange {
    /// True if nothing is to be done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.action, PlannedAction::AlreadyThere { .. })
    }

    /// True if the registry would refuse it.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self.action, PlannedAction::Refused { .. })
    }
}

impl fmt::Display for RegistryChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = &self.subject;
        match &self.action {
            PlannedAction::SetLevel { from: Some(from), to } => {
                write!(f, "{subject}: set compatibility from {from} to {to}")
            }
            PlannedAction::SetLevel { from: None, to } => write!(f, "{subject}: set compatibility to {to}"),
            PlannedAction::NewSubject { version, .. } => write!(f, "{subject}: register v{version}, a new subject"),
            PlannedAction::NewVersion { version, .. } => write!(f, "{subject}: register v{version}, a new version"),
            PlannedAction::AlreadyThere { version, id: Some(id) } => {
                write!(f, "{subject}: v{version} is registered with id {id}")
            }
            PlannedAction::AlreadyThere { version, id: None } => write!(f, "{subject}: v{version} is registered"),
            PlannedAction::Refused { version, reasons } => {
                write!(f, "{subject}: v{version} would be refused: {}", reasons.join("; "))
            }
        }
    }
}

/// A plan that was not applied completely.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The registry would refuse a part of the plan, so nothing was changed.
    #[error("nothing was changed, because {} would be refused; hint: a breaking change needs a new record name", .0.len())]
    Refused(Vec<RegistryChange>),
    /// One change failed. The changes before it are done, and a new plan shows the rest.
    #[error("cannot {change}")]
    Failed {
        /// The change.
        change: Box<RegistryChange>,
        /// The cause.
        source: RegistryError,
    },
}

/// Compares the catalog of a system with a registry. Changes nothing.
///
/// # Errors
/// [`RegistryError`] if the registry cannot be reached.
pub fn plan(
    registry: &RegistryClient,
    catalog: &SchemaCatalog,
    system: &str,
) -> Result<Vec<RegistryChange>, RegistryError> {
    let mut changes = Vec::new();
    for record in catalog.records() {
        changes.extend(plan_subject(registry, record, system)?);
    }
    Ok(changes)
}

/// Applies a plan in its order. Refuses the whole plan if the registry would refuse a part of it.
///
/// # Errors
/// [`ApplyError`].
pub fn apply(registry: &RegistryClient, changes: &[RegistryChange]) -> Result<(), ApplyError> {
    let refused: Vec<RegistryChange> = changes.iter().filter(|change| change.is_refused()).cloned().collect();
    if !refused.is_empty() {
        return Err(ApplyError::Refused(refused));
    }
    for change in changes {
        let done = match &change.action {
            PlannedAction::SetLevel { to, .. } => registry.set_compatibility(&change.subject, to),
            PlannedAction::NewSubject { text, .. } | PlannedAction::NewVersion { text, .. } => {
                registry.register(&change.subject, text).map(|_| ())
            }
            PlannedAction::AlreadyThere { .. } | PlannedAction::Refused { .. } => Ok(()),
        };
        done.map_err(|source| ApplyError::Failed { change: Box::new(change.clone()), source })?;
    }
    Ok(())
}

fn plan_subject(
    registry: &RegistryClient,
    record: &CatalogRecord,
    system: &str,
) -> Result<Vec<RegistryChange>, RegistryError> {
    let subject = record.full_name(system);
    let change = |action| RegistryChange { subject: subject.clone(), action };
    let mut changes = Vec::new();
    let from = registry.compatibility(&subject)?;
    if from.as_deref() != Some(LEVEL.name()) {
        // Before the versions, so that the registry checks each new version against the earlier ones.
        changes.push(change(PlannedAction::SetLevel { from, to: LEVEL.name().to_owned() }));
    }
    let registered = registered_schemas(registry, &subject)?;
    for version in &record.versions {
        changes.push(change(plan_version(registry, &subject, version, system, &registered)?));
    }
    Ok(changes)
}

fn plan_version(
    registry: &RegistryClient,
    subject: &str,
    version: &SchemaVersion,
    system: &str,
    registered: &[Schema],
) -> Result<PlannedAction, RegistryError> {
    let text = version.text_in(system);
    let number = version.number;
    if registered.is_empty() {
        return Ok(PlannedAction::NewSubject { version: number, text });
    }
    match registry.find(subject, &text) {
        Ok(found) => return Ok(PlannedAction::AlreadyThere { version: number, id: found.id }),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    let mut reasons = registry.objections(subject, &text)?;
    if reasons.is_empty() {
        // The registry checks with its current level, which may be laxer than the planned one.
        reasons = objections(&text, registered);
    }
    if reasons.is_empty() {
        Ok(PlannedAction::NewVersion { version: number, text })
    } else {
        Ok(PlannedAction::Refused { version: number, reasons })
    }
}

fn registered_schemas(registry: &RegistryClient, subject: &str) -> Result<Vec<Schema>, RegistryError> {
    let mut schemas = Vec::new();
    for version in registry.versions(subject)? {
        let text = registry.schema_of_version(subject, version)?.text;
        // A schema that this library cannot parse is left to the registry's own check.
        schemas.extend(Schema::parse_str(&text));
    }
    Ok(schemas)
}

fn objections(text: &str, registered: &[Schema]) -> Vec<String> {
    match Schema::parse_str(text) {
        Ok(schema) => match LEVEL.check(&schema, &registered.iter().collect::<Vec<_>>()) {
            Ok(()) => Vec::new(),
            Err(refusal) => refusal.found.into_iter().map(|reason| reason.description).collect(),
        },
        Err(error) => vec![error.to_string()],
    }
}
