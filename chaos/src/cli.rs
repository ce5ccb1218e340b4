//! The command line of chaos.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use dacapo::output;
use runtime::telemetry::log_filter;
use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    environment::{self, EnvironmentSettings},
    infrastructure::{Brokers, Infrastructure},
    plan::{Plan, PlanParameters},
    report::Report,
    run::{self, RunOptions},
};

/// The shortest session that an Apache Kafka allows by default, in milliseconds.
const APACHE_SESSION_MS: u64 = 6_000;
/// The session on the embedded broker, in milliseconds.
const EMBEDDED_SESSION_MS: u64 = 3_000;

/// Run real processes under load with faults drawn from a seed; afterwards everything must settle and the audit must be clean
#[derive(Debug, Clone, Parser)]
#[command(name = "chaos", version)]
pub struct Cli {
    /// Seed of the plan: a seed always gives the same faults [default: from the clock]
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    /// Number of faults
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub faults: usize,
    /// Which brokers to start
    #[arg(long, value_name = "BROKERS", default_value = "embedded", conflicts_with = "bootstrap")]
    pub brokers: Brokers,
    /// External broker: HOST:PORT as it advertises itself. It is not killed
    #[arg(long, value_name = "HOST:PORT", requires = "registry")]
    pub bootstrap: Option<String>,
    /// External schema registry. It is disconnected and not killed
    #[arg(long, value_name = "URL", requires = "bootstrap")]
    pub registry: Option<String>,
    /// Name of the system: the first part of every topic
    #[arg(long, value_name = "NAME", default_value = "musiccorp")]
    pub system: String,
    /// Instances of each service at the start
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub instances: u8,
    /// Partitions of every topic
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..=64))]
    pub partitions: i32,
    /// Orders per second; as many price changes and registrations come with them
    #[arg(long, value_name = "N", default_value_t = 10.0)]
    pub rate: f64,
    /// How long an unresponsive instance keeps its partitions, in milliseconds [default: 3000 on the embedded broker, else 6000]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1_000..=60_000))]
    pub session_ms: Option<u64>,
    /// How long everything may take to settle after the last fault
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    pub settle: u64,
    /// Keep data and logs in this folder [default: a temporary one, kept if a check failed]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Print the plan and end
    #[arg(long)]
    pub plan_only: bool,
    /// The executable that runs as every process [default: this one]
    #[arg(long, value_name = "FILE", hide = true)]
    pub executable: Option<PathBuf>,
}

/// Runs the command. The exit code is 0 if all checks passed, else 1.
#[must_use]
pub fn main(cli: &Cli) -> ExitCode {
    let log = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(std::io::stderr);
    log.finish().with(log_filter(LevelFilter::ERROR)).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ran = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(until_interrupted(cli)));
    match ran {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            output::note(&format!("chaos: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn until_interrupted(cli: &Cli) -> anyhow::Result<bool> {
    tokio::select! {
        ran = command(cli) => ran,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            anyhow::bail!("interrupted; every started process is killed");
        }
    }
}

async fn command(cli: &Cli) -> anyhow::Result<bool> {
    let seed = cli.seed.unwrap_or_else(|| u64::try_from(runtime::clock::now_ms()).unwrap_or_default());
    let parameters = cli.parameters(seed);
    let plan = Plan::draw(&parameters);
    output::line(&format!("seed {seed}: {} faults\n{plan}", plan.faults.len()))?;
    if cli.plan_only {
        return Ok(true);
    }
    let (folder, temporary) = match &cli.data {
        Some(folder) => (environment::folder(folder)?, None),
        None => {
            let folder = tempfile::Builder::new().prefix("dacapo-chaos-").tempdir()?;
            (folder.path().to_path_buf(), Some(folder))
        }
    };
    let ran = cli.run(plan, &parameters, &folder).await;
    let passed = ran.as_ref().is_ok_and(Report::is_clean);
    if let Some(folder) = temporary.filter(|_| !passed) {
        output::note(&format!("data and logs are kept in {}", folder.keep().display()));
    }
    output::line(ran?.render(cli.faults).trim_end())?;
    output::line(&format!("run it again: {}", cli.command_line(seed)))?;
    Ok(passed)
}

impl Cli {
    fn parameters(&self, seed: u64) -> PlanParameters {
        let is_embedded = self.bootstrap.is_none() && self.brokers == Brokers::Embedded;
        let default = if is_embedded { EMBEDDED_SESSION_MS } else { APACHE_SESSION_MS };
        PlanParameters {
            seed,
            faults: self.faults,
            session_ms: self.session_ms.unwrap_or(default),
            instances: self.instances.into(),
            kills_broker: self.bootstrap.is_none(),
        }
    }

    async fn run(&self, plan: Plan, parameters: &PlanParameters, folder: &Path) -> anyhow::Result<Report> {
        let executable = match &self.executable {
            Some(executable) => executable.clone(),
            None => std::env::current_exe().context("this executable cannot be found")?,
        };
        let infrastructure = match (&self.bootstrap, &self.registry, self.brokers) {
            (Some(bootstrap), Some(registry), _) => Infrastructure::external(bootstrap, registry).await?,
            (_, _, Brokers::Embedded) => Infrastructure::embedded(&executable, folder).await?,
            (_, _, Brokers::Apache) => Infrastructure::apache(script(), folder).await?,
        };
        let options = RunOptions {
            plan,
            seed: parameters.seed,
            rate: self.rate,
            settle: Duration::from_secs(self.settle),
            environment: EnvironmentSettings {
                executable,
                folder: folder.to_owned(),
                system: self.system.clone(),
                partitions: self.partitions,
                session_ms: parameters.session_ms,
            },
        };
        run::run(options, infrastructure).await
    }

    /// The command line that runs the same plan.
    fn command_line(&self, seed: u64) -> String {
        let mut command = format!("cargo run --release -p chaos -- --seed {seed} --faults {}", self.faults);
        match (&self.bootstrap, &self.registry, self.brokers) {
            (Some(bootstrap), Some(registry), _) => {
                command.push_str(&format!(" --bootstrap {bootstrap} --registry {registry} --system {}", self.system));
            }
            (_, _, Brokers::Apache) => command.push_str(" --brokers apache"),
            (_, _, Brokers::Embedded) => {}
        }
        let Self { instances, partitions, rate, .. } = self;
        command.push_str(&format!(" --instances {instances} --partitions {partitions} --rate {rate}"));
        if let Some(session_ms) = self.session_ms {
            command.push_str(&format!(" --session-ms {session_ms}"));
        }
        command
    }
}

/// The script that starts an Apache Kafka. Chaos runs in a checkout.
fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/kafka.sh")
}
