//! `dacapo prepare`: creates the topics and registers the schemas that services need, and loads the sample data with
//! `--sample-data`.
//!
//! It does what `dacapo topics create --apply` and `dacapo schemas register --apply` do, and waits for a broker and a registry that
//! are still starting. `dacapo up` does the same before it starts a service.

use std::time::{Duration, Instant};

use anyhow::Context;
use runtime::{
    config::Config,
    kafka::{Admin, AdminError, TopicPlan},
    registry::{RegistryClient, RegistryError},
};

use crate::{load_sample_data, output, schemas, target::Target, topics};

/// How long to wait for the broker and the registry.
const PATIENCE: Duration = Duration::from_secs(120);
/// The pause between two attempts.
const RETRY: Duration = Duration::from_millis(500);

/// Flags of `dacapo prepare`.
#[derive(Debug, clap::Args)]
pub struct PrepareArgs {
    #[command(flatten)]
    target: Target,
    /// Partitions of every topic that is created [default: the number that existing topics have, else 4]
    #[arg(long, env = "DACAPO_PARTITIONS", value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1_000))]
    partitions: Option<i32>,
    /// Replicas of every topic that is created [default: the broker's]
    #[arg(long, env = "DACAPO_REPLICATION", value_name = "N", value_parser = clap::value_parser!(i32).range(1..=16))]
    replication: Option<i32>,
    /// Also send MusicCorp's sample albums, goods and customers to the inboxes; repeating this has no effect
    #[arg(long)]
    sample_data: bool,
}

/// Prepares the broker and the registry, and prints what was done.
///
/// # Errors
/// Existing topics or schemas differ from what they must be, or the broker or the registry did not answer for two minutes.
pub async fn run(args: &PrepareArgs) -> anyhow::Result<()> {
    let mut config = args.target.config("dacapo")?;
    config.replication = args.replication;
    prepare(&config, args.partitions).await?;
    output::line("topics and schemas exist")?;
    if args.sample_data {
        let registry = RegistryClient::new(&config)?;
        load_sample_data::load(&config.for_service("operator"), &registry).await?;
        output::line("sample albums, goods and customers are in the inboxes")?;
    }
    Ok(())
}

/// Registers missing schemas and creates missing topics. Existing ones are never altered. Transient failures are retried.
///
/// # Errors
/// Existing topics or schemas differ from what they must be, or transient failures lasted for two minutes.
pub async fn prepare(config: &Config, partitions: Option<i32>) -> anyhow::Result<()> {
    let (deadline, mut noted) = (Instant::now() + PATIENCE, String::new());
    loop {
        match attempt(config, partitions).await {
            Err(error) if is_transient(&error) && Instant::now() < deadline => {
                let reason = format!("waiting: {error:#}");
                if reason != noted {
                    output::note(&reason);
                    noted = reason;
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
    schemas::apply(config, changes).await.context("cannot register the schemas")?;
    let admin = Admin::new(config)?;
    let specs = topics::specs(&admin, &config.system, partitions, config.partitions).await?;
    let plan = TopicPlan::compute(&admin, &specs).await?;
    let created = plan.apply(&admin).await.context("cannot create the topics")?;
    tracing::info!(created, "topics exist");
    Ok(())
}
