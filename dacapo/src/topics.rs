//! `dacapo topics create`: shows which topics of MusicCorp are missing, and creates them with `--apply`.

use anyhow::bail;
use runtime::kafka::admin::{Admin, TopicPlan, TopicSpec, TopicStep};

use crate::{musiccorp, output, target::Target};

/// Flags of `dacapo topics create`.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    #[command(flatten)]
    target: Target,
    /// Partitions of every topic; the same for all, since a service reads its inputs partition by partition [default: the number
    /// that existing topics have, else 4]
    #[arg(long, env = "DACAPO_PARTITIONS", value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1_000))]
    partitions: Option<i32>,
    /// Replicas of every topic [default: the broker's]
    #[arg(long, env = "DACAPO_REPLICATION", value_name = "N")]
    replication: Option<i32>,
    /// Create the topics; without this flag they are only shown
    #[arg(long)]
    apply: bool,
}

/// Shows the plan, and executes it with `--apply`.
///
/// # Errors
/// The cluster cannot be reached, or existing topics differ from what they must be.
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
            "existing topics differ from what they must be, and are never altered; change them yourself, or choose another --system"
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

/// Every topic of the system: with `partitions` if given, else with the number that its existing topics have, else with
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
        let services =
            musiccorp::SERVICES.iter().flat_map(|service| TopicSpec::of_service(system, service, partitions));
        let operators = TopicSpec::of_operators(system, partitions);
        services.chain([projector::status::topic(system, partitions), operators]).collect()
    };
    if let Some(partitions) = partitions {
        return Ok(of(partitions));
    }
    let client = admin.clone();
    let counts = tokio::task::spawn_blocking(move || client.partition_counts()).await??;
    let specs = of(otherwise);
    match specs.iter().find_map(|spec| counts.get(&spec.name)) {
        Some(partitions) => Ok(of(*partitions)),
        None => Ok(specs),
    }
}
