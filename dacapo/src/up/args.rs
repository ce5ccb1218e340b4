//! The flags of `dacapo up`, and what they set.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use embedded::broker::Fsync;
use runtime::{
    config::{Args, Config},
    telemetry::log_filter,
};
use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt, util::SubscriberInitExt};

use super::{instances::InstanceCount, place_orders::OrderSource, system::Embedded};
use crate::{orders::OrderMixArgs, stubs::StubFaultArgs, target::DEFAULT_DATA};

/// Milliseconds between two syncs of `--fsync interval`.
const FSYNC_INTERVAL_MS: u64 = 500;

/// Flags of `dacapo up`.
#[derive(Debug, clap::Args)]
pub struct UpArgs {
    /// Data folder: broker, registry, stores, mail, and endpoints.json, by which other commands find the system
    #[arg(long, env = "DACAPO_DATA", value_name = "DIR", default_value = DEFAULT_DATA)]
    pub data: PathBuf,
    /// Keep nothing: all data is in memory and temporary files. endpoints.json is in --data until the process ends
    #[arg(long)]
    pub ephemeral: bool,
    /// Place the orders of a file, one JSON object a line (docs/orders.md); `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "orders")]
    pub orders_from: Option<PathBuf>,
    /// Place this many generated orders
    #[arg(long, value_name = "N")]
    pub orders: Option<u64>,
    /// Orders per second [default: as fast as the responses come]
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
    #[command(flatten)]
    pub mix: OrderMixArgs,
    /// End when every saga has ended: print the outcomes of the orders, audit the topics, and fail if the audit has findings
    #[arg(long)]
    pub until_settled: bool,
    /// With --until-settled: fail when nothing has changed for this long
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub patience: u64,
    /// Kafka bootstrap servers, instead of the embedded broker
    #[arg(long, value_name = "HOST:PORT,...", requires = "registry")]
    pub bootstrap: Option<String>,
    /// Schema registry, instead of the embedded one
    #[arg(long, value_name = "URL", requires = "bootstrap")]
    pub registry: Option<String>,
    /// Name of the system: the first part of every topic
    #[arg(long, env = "DACAPO_SYSTEM", value_name = "NAME")]
    pub system: Option<String>,
    /// Partitions of every topic that is created [default: the number that existing topics have, else 4]
    #[arg(long, env = "DACAPO_PARTITIONS", value_name = "N")]
    pub partitions: Option<i32>,
    /// Configuration file (TOML)
    #[arg(long, env = "DACAPO_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address of the embedded broker; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    pub listen_kafka: SocketAddr,
    /// Address of the embedded registry; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8081")]
    pub listen_registry: SocketAddr,
    /// Address of the projector; port 0 takes a free one. The services take free ports of the same host
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    pub listen_http: SocketAddr,
    /// Address of the stubs of the external services; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    pub listen_stubs: SocketAddr,
    /// Run this many instances of a service as child processes, which are restarted after a crash; may be repeated. All other services
    /// run in this process
    #[arg(long, value_name = "SERVICE=N,...", value_delimiter = ',')]
    pub instances: Vec<InstanceCount>,
    /// When the embedded broker syncs to disk. Every policy survives a crash of the process; `never` and `interval` may lose the last
    /// records in a power loss
    #[arg(long, value_name = "POLICY", default_value = "never")]
    pub fsync: FsyncPolicy,
    #[command(flatten)]
    pub faults: StubFaultArgs,
    #[command(flatten)]
    pub deadlines: DeadlineArgs,
}

/// How long the services wait for the external services.
#[derive(Debug, clap::Args)]
pub struct DeadlineArgs {
    /// How long the gateway may take to answer a charge before the payment is abandoned, in milliseconds [default: 900000]
    #[arg(long, value_name = "MS")]
    charge_deadline_ms: Option<u32>,
    /// How long the courier may take to answer an attempt before it is withdrawn, in milliseconds [default: 300000]
    #[arg(long, value_name = "MS")]
    courier_deadline_ms: Option<u32>,
    /// Pause after a failed dispatch attempt, in milliseconds; doubled after each further one [default: 60000]
    #[arg(long, value_name = "MS")]
    dispatch_pause_ms: Option<u32>,
    /// Dispatch attempts before an operator is needed [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    dispatch_attempts: Option<u8>,
}

impl DeadlineArgs {
    pub(super) fn payment(&self) -> payment::effects::Settings {
        let Self { charge_deadline_ms, .. } = *self;
        payment::effects::Settings { charge_deadline_ms, ..Default::default() }
    }

    pub(super) fn warehouse(&self) -> warehouse::effects::Settings {
        let Self { courier_deadline_ms, dispatch_pause_ms, dispatch_attempts, .. } = *self;
        warehouse::effects::Settings { courier_deadline_ms, dispatch_pause_ms, dispatch_attempts, ..Default::default() }
    }
}

/// When the embedded broker syncs to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FsyncPolicy {
    /// When the operating system chooses
    Never,
    /// Every half second
    Interval,
    /// Before every acknowledgement
    Always,
}

impl UpArgs {
    /// The source of the orders.
    ///
    /// # Errors
    /// The rate or the shares are invalid, or the file cannot be read.
    pub(super) fn order_source(&self) -> anyhow::Result<OrderSource> {
        if let Some(rate) = self.rate
            && !(rate > 0.0 && rate <= 1_000_000.0)
        {
            bail!("--rate is {rate}; expected more than 0 and at most 1000000 orders a second");
        }
        if let Some(file) = self.orders_from.as_ref().filter(|file| file.as_os_str() != "-") {
            // Checked before anything is started.
            let found =
                std::fs::metadata(file).with_context(|| format!("cannot read the orders in {}", file.display()))?;
            if found.is_dir() {
                bail!("cannot read the orders in {}: it is a folder", file.display());
            }
        }
        Ok(match (&self.orders_from, self.orders) {
            (Some(file), _) => OrderSource::File(file.clone()),
            (None, Some(orders)) => OrderSource::Generated(self.mix.generator()?, orders),
            (None, None) => OrderSource::None,
        })
    }

    /// Whether an external Kafka is used.
    ///
    /// # Errors
    /// Only one of broker and registry is given.
    pub(super) fn is_external(&self) -> anyhow::Result<bool> {
        match (&self.bootstrap, &self.registry) {
            (Some(_), Some(_)) => Ok(true),
            (None, None) => Ok(false),
            _ => bail!("--bootstrap and --registry go together"),
        }
    }

    /// The settings of every service.
    ///
    /// # Errors
    /// A setting is invalid.
    pub(super) fn config(&self, embedded: Option<&Embedded>, data: Option<&Path>) -> anyhow::Result<Config> {
        let args = Args {
            config: self.config.clone(),
            system: self.system.clone(),
            bootstrap: embedded.map(Embedded::bootstrap).or_else(|| self.bootstrap.clone()),
            registry: embedded.map(Embedded::registry_url).or_else(|| self.registry.clone()),
            // With a stable name the process gets its partitions back at once after a crash.
            instance: Some("up".to_owned()),
            data: data.map(|data| data.join("stores")),
            partitions: self.partitions,
            ..Args::default()
        };
        Ok(Config::load("dacapo", &args)?)
    }

    pub(super) fn fsync(&self) -> Fsync {
        match self.fsync {
            FsyncPolicy::Never => Fsync::Never,
            FsyncPolicy::Interval => Fsync::Interval(FSYNC_INTERVAL_MS),
            FsyncPolicy::Always => Fsync::Always,
        }
    }

    /// Logs warnings and errors to standard error, unless `RUST_LOG` is set: the progress bar owns the terminal.
    pub(super) fn init_log(&self) {
        let log = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(std::io::stderr);
        if log.finish().with(log_filter(LevelFilter::WARN)).try_init().is_err() {
            tracing::debug!("logging is initialized already");
        }
    }
}
