//! `dacapo schemas`: compares the schemas of this build with a registry, and checks a folder of schemas.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Subcommand;
use runtime::{
    config::Config,
    registry::RegistryClient,
    schemas::{
        SchemaCatalog,
        plan::{self, RegistryChange},
    },
};

use crate::{musiccorp, output, target::Target};

/// Subcommands of `dacapo schemas`.
#[derive(Debug, Subcommand)]
pub enum SchemasCommand {
    /// Show what the registry lacks; with --apply, register it
    Register {
        #[command(flatten)]
        target: Target,
        /// Register; without this flag the changes are only shown
        #[arg(long)]
        apply: bool,
    },
    /// Check a folder of schemas against the rules, without a registry
    Check {
        /// The folder: `<owner>/<events|inbox|state>/<Record>/v<N>.avsc`
        #[arg(value_name = "DIR", default_value = "schemas")]
        folder: PathBuf,
    },
    /// List the record types of this build with their topics
    List {
        /// Name of the system
        #[arg(long, env = "DACAPO_SYSTEM", value_name = "NAME", default_value = runtime::config::default::SYSTEM)]
        system: String,
    },
}

/// Runs a subcommand.
///
/// # Errors
/// The registry cannot be reached or would refuse a schema, or the folder breaks a rule.
pub async fn run(command: &SchemasCommand) -> anyhow::Result<()> {
    match command {
        SchemasCommand::Register { target, apply } => register(&target.registry_alone("dacapo")?, *apply).await,
        SchemasCommand::Check { folder } => {
            let contract = SchemaCatalog::load_and_lint(folder)?;
            let versions: usize = contract.records().iter().map(|record| record.versions.len()).sum();
            output::line(&format!("{} records in {versions} versions keep the rules", contract.records().len()))?;
            Ok(())
        }
        SchemasCommand::List { system } => {
            for record in compiled()?.records() {
                output::line(&format!(
                    "{} v{} on {}",
                    record.full_name(system),
                    record.latest().number,
                    record.topic(system)
                ))?;
            }
            Ok(())
        }
    }
}

async fn register(config: &Config, apply: bool) -> anyhow::Result<()> {
    let changes = plan(config).await?;
    for change in changes.iter().filter(|change| !change.is_done()) {
        output::line(&change.to_string())?;
    }
    let missing = changes.iter().filter(|change| !change.is_done()).count();
    if changes.iter().any(RegistryChange::is_refused) {
        bail!("nothing was changed: the registry would refuse a schema; a breaking change needs a new record name");
    }
    if missing == 0 {
        output::line(&format!("nothing to do: all {} schemas are registered", changes.len()))?;
    } else if apply {
        self::apply(config, changes).await?;
        output::line(&format!("made {missing} changes"))?;
    } else {
        output::line(&format!("would make {missing} changes; --apply does it"))?;
    }
    Ok(())
}

/// The schemas that are compiled in.
///
/// # Errors
/// A compiled schema is not valid.
pub fn compiled() -> anyhow::Result<SchemaCatalog> {
    Ok(SchemaCatalog::from_records(&musiccorp::records())?)
}

/// The changes that bring the registry up to date.
///
/// # Errors
/// The registry cannot be reached.
pub async fn plan(config: &Config) -> anyhow::Result<Vec<RegistryChange>> {
    let (registry, contract, system) = (RegistryClient::new(config)?, compiled()?, config.system.clone());
    let planned = tokio::task::spawn_blocking(move || plan::plan(&registry, &contract, &system)).await?;
    planned.with_context(|| format!("cannot compare the schemas with the registry at {}", config.registry_url))
}

/// Executes a plan.
///
/// # Errors
/// The registry refuses, or cannot be reached.
pub async fn apply(config: &Config, changes: Vec<RegistryChange>) -> anyhow::Result<()> {
    let registry = RegistryClient::new(config)?;
    tokio::task::spawn_blocking(move || plan::apply(&registry, &changes)).await??;
    Ok(())
}
