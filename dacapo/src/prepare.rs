//! `dacapo prepare`: what must be there before any service starts: the topics and the schemas, and MusicCorp's seed if asked for.
//!
//! What `dacapo topics create --apply` and `dacapo schemas register --apply` do, once a broker and a registry that are still
//! starting have come up. `dacapo up` does the same before it starts anything.

use std::time::{Duration, Instant};

use anyhow::Context;
use runtime::{
    config::Config,
    kafka::{Admin, AdminError, TopicPlan},
    registry::{RegistryClient, RegistryError},
};

use crate::{output, schemas, seeding, target::Target, topics};

/// How long a broker and a registry are waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// The pause before they are asked again.
const RETRY: Duration = Duration::from_millis(500);

/// Flags of `dacapo prepare`.
#[derive(Debug, clap::Args)]
pub struct PrepareArgs {
    #[command(flatten)]
    target: Target,
    /// Partitions of every topic that is created [default: as many as the topics that are there have, else 8]
    #[arg(long, env = "DACAPO_PARTITIONS", value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1_000))]
    partitions: Option<i32>,
    /// Replicas of every topic that is created [default: the broker's]
    #[arg(long, env = "DACAPO_REPLICATION", value_name = "N", value_parser = clap::value_parser!(i32).range(1..=16))]
    replication: Option<i32>,
    /// Also put MusicCorp's albums, goods and customers into the inboxes; what was put in before is not put in twice
    #[arg(long)]
    seed: bool,
}

/// Prepares, and says what was done.
///
/// # Errors
/// What exists is not as it must be, or broker and registry did not answer for two minutes.
pub async fn run(args: &PrepareArgs) -> anyhow::Result<()> {
    let mut config = args.target.config("dacapo")?;
    config.replication = args.replication;
    prepare(&config, args.partitions).await?;
    output::line("topics and schemas are there")?;
    if args.seed {
        let registry = RegistryClient::new(&config)?;
        seeding::seed(&config.for_service("operator"), &registry).await?;
        output::line("albums, goods and customers are in the inboxes")?;
    }
    Ok(())
}

/// Registers the schemas and creates the topics that are missing. What exists is never altered. A broker or a registry that cannot
/// be reached yet, or is slow to answer, is asked again.
///
/// # Errors
/// What exists is not as it must be, or nobody answered for two minutes.
pub async fn prepare(config: &Config, partitions: Option<i32>) -> anyhow::Result<()> {
    let (deadline, mut told) = (Instant::now() + PATIENCE, String::new());
    loop {
        match attempt(config, partitions).await {
            Err(error) if is_transient(&error) && Instant::now() < deadline => {
                let reason = format!("waiting: {error:#}");
                if reason != told {
                    output::note(&reason);
                    told = reason;
                }
                tokio::time::sleep(RETRY).await;
            }
            done => return done,
        }
    }
}

fn is_transient(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<AdminError>().is_some_and(AdminError::is_transient)
            || cause.downcast_ref::<RegistryError>().is_some_and(RegistryError::is_transient)
    })
}

async fn attempt(config: &Config, partitions: Option<i32>) -> anyhow::Result<()> {
    let changes = schemas::plan(config).await?;
    schemas::carry_out(config, changes).await.context("cannot register the schemas")?;
    let admin = Admin::new(config)?;
    let specs = topics::specs(&admin, &config.system, partitions, config.partitions).await?;
    let plan = TopicPlan::compute(&admin, &specs).await?;
    let created = plan.apply(&admin).await.context("cannot create the topics")?;
    tracing::info!(created, "topics are there");
    Ok(())
}
