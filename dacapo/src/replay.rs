//! `dacapo replay`: rebuilds state from the topics and holds it against what is live.

use std::{path::PathBuf, time::Duration};

use anyhow::bail;
use clap::{Subcommand, ValueEnum};
use projector::{Declaration, client::ProjectorClient};

use crate::{output, target::Target};

/// What can be rebuilt.
#[derive(Debug, Subcommand)]
pub enum ReplayCommand {
    /// Rebuild a projection beside the live one
    Projection(ProjectionArgs),
}

/// Flags of `dacapo replay projection`.
#[derive(Debug, clap::Args)]
pub struct ProjectionArgs {
    /// Which one
    projection: Projection,
    #[command(flatten)]
    target: Target,
    /// Compare both at the same offsets and show the first difference
    #[arg(long, required = true)]
    verify: bool,
    /// Declarations of the sagas, as the live projector has them [default: those of MusicCorp]
    #[arg(long = "sagas", value_name = "FILE")]
    declarations: Vec<PathBuf>,
    /// Give up if the topics cannot be read within this time
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    patience: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Projection {
    /// The status of every saga
    Sagas,
}

/// Carries a command out.
///
/// # Errors
/// The topics or the projector cannot be read, or both views differ.
pub async fn run(command: &ReplayCommand) -> anyhow::Result<()> {
    let ReplayCommand::Projection(args) = command;
    let Projection::Sagas = args.projection;
    let live = ProjectorClient::new(&args.target.projector_of_these()?)?;
    let config = args.target.reached("dacapo-replay").await?.config;
    let declarations = declarations(&args.declarations)?;
    let patience = Duration::from_secs(args.patience);
    let verdict = projector::verify(&config, &live, &declarations, patience).await?;
    let partitions: usize = verdict.positions.values().map(std::collections::BTreeMap::len).sum();
    output::line(&format!(
        "rebuilt {} sagas from {} records of {} topics ({partitions} partitions), up to the offsets of the live view",
        verdict.sagas,
        verdict.records,
        verdict.positions.len()
    ))?;
    if verdict.agrees() {
        output::line(&format!("both views are equal: digest {}", verdict.digest))?;
        return Ok(());
    }
    output::line(&format!("digest of the live view {}, of the rebuilt one {}", verdict.live_digest, verdict.digest))?;
    if let Some(first) = &verdict.first {
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
    bail!("the live view differs from what the topics say in {} sagas", verdict.differing)
}

/// The declarations in these files, or those of MusicCorp.
///
/// # Errors
/// A file cannot be read, or is no declaration.
pub fn declarations(files: &[PathBuf]) -> anyhow::Result<Vec<Declaration>> {
    if files.is_empty() {
        return Ok(Declaration::shipped()?);
    }
    Ok(files.iter().map(|file| Declaration::load(file)).collect::<Result<_, _>>()?)
}
