//! `dacapo schemas`: the contract compiled into this build, compared with a registry or checked in a folder.

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

use crate::{contract, output, target::Target};

/// What can be done with schemas.
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
    /// Check a folder of schemas against the rules of the contract, without a registry
    Check {
        /// The folder: `<owner>/<events|inbox|state>/<Record>/v<N>.avsc`
        #[arg(value_name = "DIR", default_value = "schemas")]
        folder: PathBuf,
    },
    /// Show the records of this build with their topics
    List {
        /// Name of the system
        #[arg(long, env = "DACAPO_SYSTEM", value_name = "NAME", default_value = runtime::config::default::SYSTEM)]
        system: String,
    },
}

/// Carries a command out.
///
/// # Errors
/// The registry cannot be asked or would refuse; the folder breaks a rule.
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
        bail!("nothing was changed: the registry would refuse a part of it; a breaking change needs a new record name");
    }
    if missing == 0 {
        output::line(&format!("nothing to do: all {} schemas are registered", changes.len()))?;
    } else if apply {
        carry_out(config, changes).await?;
        output::line(&format!("made {missing} changes"))?;
    } else {
        output::line(&format!("would make {missing} changes; --apply does it"))?;
    }
    Ok(())
}

/// The contract that is compiled in.
///
/// # Errors
/// A schema that a service was built with is none.
pub fn compiled() -> anyhow::Result<SchemaCatalog> {
    Ok(SchemaCatalog::from_records(&contract::records())?)
}

/// What the registry lacks of the contract.
///
/// # Errors
/// The registry cannot be asked.
pub async fn plan(config: &Config) -> anyhow::Result<Vec<RegistryChange>> {
    let (registry, contract, system) = (RegistryClient::new(config)?, compiled()?, config.system.clone());
    let planned = tokio::task::spawn_blocking(move || plan::plan(&registry, &contract, &system)).await?;
    planned.with_context(|| format!("cannot compare the schemas with the registry at {}", config.registry_url))
}

/// Registers what a plan says.
///
/// # Errors
/// The registry refuses, or cannot be asked.
pub async fn carry_out(config: &Config, changes: Vec<RegistryChange>) -> anyhow::Result<()> {
    let registry = RegistryClient::new(config)?;
    tokio::task::spawn_blocking(move || plan::apply(&registry, &changes)).await??;
    Ok(())
}
