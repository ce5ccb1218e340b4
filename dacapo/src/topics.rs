//! `dacapo topics create`: makes the topics of MusicCorp, after it has shown what it would make.

use anyhow::bail;
use runtime::kafka::admin::{Admin, Step, TopicPlan, TopicSpec};

use crate::{contract, output, target::Target};

/// Flags of `dacapo topics create`.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    #[command(flatten)]
    target: Target,
    /// Partitions of every topic; the same for all, since a service reads its inputs partition by partition
    #[arg(long, env = "DACAPO_PARTITIONS", value_name = "N", default_value_t = runtime::config::default::PARTITIONS)]
    partitions: i32,
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
    let mut config = args.target.config("dacapo")?;
    config.partitions = args.partitions;
    config.replication = args.replication;
    let admin = Admin::new(&config)?;
    let plan = TopicPlan::draw(&admin, &specs(&config.system, config.partitions)).await?;
    output::line(plan.to_string().trim_end())?;
    let missing = plan.steps.iter().filter(|(_, step)| *step == Step::Create).count();
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

/// Every topic of the system.
#[must_use]
pub fn specs(system: &str, partitions: i32) -> Vec<TopicSpec> {
    let mut specs = Vec::new();
    for service in contract::SERVICES {
        specs.extend(TopicSpec::of_service(system, service, partitions));
    }
    specs
}
