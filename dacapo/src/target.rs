//! Which system a command talks to: flags, else the environment, else what the last `up` wrote into its data folder.

use std::path::PathBuf;

use anyhow::Context;
use runtime::config::{Args, Config};

use crate::endpoints::Endpoints;

/// Where `up` keeps its data unless told otherwise.
pub const DEFAULT_DATA: &str = "dacapo-data";

/// The flags of every command that talks to a running system.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// Kafka brokers to start from [default: those of the system in --data]
    #[arg(long, env = "KAFKA_BOOTSTRAP_SERVERS", value_name = "HOST:PORT,...")]
    pub bootstrap: Option<String>,
    /// Schema registry [default: that of the system in --data]
    #[arg(long, env = "SCHEMA_REGISTRY_URL", value_name = "URL")]
    pub registry: Option<String>,
    /// Projector [default: that of the system in --data]
    #[arg(long, env = "DACAPO_PROJECTOR", value_name = "URL")]
    pub projector: Option<String>,
    /// Name of the system: the first part of every topic
    #[arg(long, env = "DACAPO_SYSTEM", value_name = "NAME")]
    pub system: Option<String>,
    /// Data folder of the system that `dacapo up` runs
    #[arg(long, env = "DACAPO_DATA", value_name = "DIR", default_value = DEFAULT_DATA)]
    pub data: PathBuf,
    /// Configuration file (TOML)
    #[arg(long, env = "DACAPO_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Target {
    /// The settings to reach Kafka and the registry with.
    ///
    /// # Errors
    /// A setting makes no sense, or nothing says where the system is.
    pub fn config(&self, program: &str) -> anyhow::Result<Config> {
        let mut args = Args {
            config: self.config.clone(),
            system: self.system.clone(),
            bootstrap: self.bootstrap.clone(),
            registry: self.registry.clone(),
            ..Args::default()
        };
        if args.config.is_none() && (args.bootstrap.is_none() || args.registry.is_none()) {
            let endpoints = self.endpoints()?;
            args.bootstrap.get_or_insert(endpoints.kafka);
            args.registry.get_or_insert(endpoints.registry);
        }
        Ok(Config::load(program, &args)?)
    }

    /// The projector's address.
    ///
    /// # Errors
    /// Nothing says where it is.
    pub fn projector(&self) -> anyhow::Result<String> {
        match &self.projector {
            Some(url) => Ok(url.trim_end_matches('/').to_owned()),
            None => Ok(self.endpoints()?.projector),
        }
    }

    fn endpoints(&self) -> anyhow::Result<Endpoints> {
        let none = || {
            format!(
                "no system is known in {}: start one with `dacapo up`, or say where it is with --bootstrap, --registry and --projector",
                self.data.display()
            )
        };
        Endpoints::read(&self.data)?.with_context(none)
    }
}
