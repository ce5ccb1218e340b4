//! `dacapo topics create`: makes the topics of MusicCorp, after it has shown what it would make.

use anyhow::bail;
use runtime::kafka::admin::{Admin, TopicPlan, TopicSpec, TopicStep};

use crate::{contract, output, target::Target};

/// Flags of `dacapo topics create`.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    #[command(flatten)]
    target: Target,
    /// Partitions of every topic; the same for all, since a service reads its inputs partition by partition [default: as many as
    /// the topics that are there have, else 8]
    #[arg(long, env = "DACAPO_PARTITIONS", value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1_000))]
    partitions: Option<i32>,
    /// Replicas of every topic [default: the broker's]
    #[arg(long, env = "DACAPO_REPLICATION", value_name = "N")]
    replication: Option<i32>,
    /// Create them; without this flag they are only shown
    #[arg(long)]
    apply: bool,
}

/// Shows the plan, and carries it out if asked to.
///
/// # Errors
/// The cluster cannot be reached, or existing topics are not as they must be.
pub async fn create(args: &CreateArgs) -> anyhow::Result<()> {
    let mut config = args.target.kafka_alone("dacapo")?;
    config.replication = args.replication;
    let admin = Admin::new(&config)?;
    let specs = specs(&admin, &config.system, args.partitions, config.partitions).await?;
    let plan = TopicPlan::compute(&admin, &specs).await?;
    output::line(plan.to_string().trim_end())?;
    let missing = plan.steps.iter().filter(|(_, step)| *step == TopicStep::Create).count();
    if plan.verify().is_err() {
        bail!(
            "existing topics are not as they must be, and are never altered; change them yourself, or choose another --system"
        );
    }
    if missing == 0 {
        output::line("nothing to do")?;
    } else if args.apply {
        output::line(&format!("created {} topics", plan.apply(&admin).await?))?;
    } else {
        output::line(&format!("would create {missing} topics; --apply does it"))?;
    }
    Ok(())
}

/// Every topic of the system: with `partitions` if a number is asked for, else with as many as its topics have already, else with
/// `otherwise`.
///
/// # Errors
/// The cluster cannot be reached.
pub async fn specs(
    admin: &Admin,
    system: &str,
    partitions: Option<i32>,
    otherwise: i32,
) -> anyhow::Result<Vec<TopicSpec>> {
    let of = |partitions| -> Vec<TopicSpec> {
        let services = contract::SERVICES.iter().flat_map(|service| TopicSpec::of_service(system, service, partitions));
        services.chain([projector::status::topic(system, partitions)]).collect()
    };
    if let Some(partitions) = partitions {
        return Ok(of(partitions));
    }
    let asked = admin.clone();
    let counts = tokio::task::spawn_blocking(move || asked.partition_counts()).await??;
    let specs = of(otherwise);
    match specs.iter().find_map(|spec| counts.get(&spec.name)) {
        Some(partitions) => Ok(of(*partitions)),
        None => Ok(specs),
    }
}
