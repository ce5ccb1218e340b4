//! `dacapo replay`: rebuilds a projection from the topics and compares it with the live one.

use std::{path::PathBuf, time::Duration};

use anyhow::bail;
use clap::{Subcommand, ValueEnum};
use projector::{Declaration, client::ProjectorClient};

use crate::{output, target::Target};

/// Subcommands of `dacapo replay`.
#[derive(Debug, Subcommand)]
pub enum ReplayCommand {
    /// Rebuild a projection beside the live one, and compare both
    Projection(ProjectionArgs),
}

/// Flags of `dacapo replay projection`.
#[derive(Debug, clap::Args)]
pub struct ProjectionArgs {
    /// The projection to rebuild
    projection: Projection,
    #[command(flatten)]
    target: Target,
    /// Compare both views at the same offsets, and show the first difference; required, because nothing else is done with the result
    #[arg(long, required = true)]
    verify: bool,
    /// Saga declarations; the same files as the live projector's [default: those of MusicCorp]
    #[arg(long = "sagas", value_name = "FILE")]
    declarations: Vec<PathBuf>,
    /// Fail if the topics cannot be read within this time
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    patience: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Projection {
    /// The status of every saga
    Sagas,
}

/// Runs a subcommand.
///
/// # Errors
/// The topics or the projector cannot be read, or the views differ.
pub async fn run(command: &ReplayCommand) -> anyhow::Result<()> {
    let ReplayCommand::Projection(args) = command;
    let Projection::Sagas = args.projection;
    let live = ProjectorClient::new(&args.target.projector_of_brokers()?)?;
    let config = args.target.connect("dacapo-replay").await?.config;
    let declarations = declarations(&args.declarations)?;
    let patience = Duration::from_secs(args.patience);
    let comparison = projector::verify(&config, &live, &declarations, patience).await?;
    let partitions: usize = comparison.positions.values().map(std::collections::BTreeMap::len).sum();
    output::line(&format!(
        "rebuilt {} sagas from {} records of {} topics ({partitions} partitions), up to the offsets of the live view",
        comparison.sagas,
        comparison.records,
        comparison.positions.len()
    ))?;
    if comparison.agrees() {
        output::line(&format!("both views are equal: digest {}", comparison.digest))?;
        return Ok(());
    }
    output::line(&format!(
        "digest of the live view {}, of the rebuilt one {}",
        comparison.live_digest, comparison.digest
    ))?;
    if let Some(first) = &comparison.first {
        let plain = projector::render::plain;
        output::line(&format!(
            "first difference: {} {} {}: live {}, rebuilt {}",
            plain(&first.saga),
            plain(&first.id),
            plain(&first.field),
            plain(&first.live),
            plain(&first.rebuilt)
        ))?;
    }
    bail!("the live view differs from the rebuilt one in {} sagas", comparison.differing)
}

/// The declarations in these files, or those of MusicCorp.
///
/// # Errors
/// A file cannot be read, or is not a valid declaration.
pub fn declarations(files: &[PathBuf]) -> anyhow::Result<Vec<Declaration>> {
    if files.is_empty() {
        return Ok(Declaration::shipped()?);
    }
    Ok(files.iter().map(|file| Declaration::load(file)).collect::<Result<_, _>>()?)
}
