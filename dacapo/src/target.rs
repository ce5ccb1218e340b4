//! The system that a command talks to: named by flags, else by the environment, else by the last `up` in the data folder.

use std::{collections::HashMap, path::PathBuf};

use anyhow::{Context, bail};
use runtime::{
    config::{Args, Config},
    kafka::Admin,
    registry::RegistryClient,
};

use crate::endpoints::Endpoints;

/// The default data folder of `up`.
pub const DEFAULT_DATA: &str = "dacapo-data";

/// The flags of every command that talks to a running system.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// Kafka bootstrap servers [default: those of the system in --data]
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
    /// The settings for Kafka and the registry.
    ///
    /// # Errors
    /// A setting is invalid, or the addresses of the system are not known.
    pub fn config(&self, program: &str) -> anyhow::Result<Config> {
        self.settings(program, self.bootstrap.is_none() || self.registry.is_none())
    }

    /// The settings of a command that needs Kafka only.
    ///
    /// # Errors
    /// As [`Target::config`].
    pub fn kafka_alone(&self, program: &str) -> anyhow::Result<Config> {
        self.settings(program, self.bootstrap.is_none())
    }

    /// The settings of a command that needs the registry only.
    ///
    /// # Errors
    /// As [`Target::config`].
    pub fn registry_alone(&self, program: &str) -> anyhow::Result<Config> {
        self.settings(program, self.registry.is_none())
    }

    /// The settings, after Kafka and the registry have answered and the system was found. Without this check a command that reads
    /// topics would wait silently, and an audit of a missing system would be clean.
    ///
    /// # Errors
    /// As [`Target::config`]; or Kafka or the registry does not answer, or has no such system.
    pub async fn connect(&self, program: &str) -> anyhow::Result<ConnectedSystem> {
        let config = self.config(program)?;
        let (admin, registry) = (Admin::new(&config)?, RegistryClient::new(&config)?);
        let checked = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
            let partitions = admin.partition_counts()?;
            registry.subjects()?;
            Ok(partitions)
        });
        let partitions = checked.await?.with_context(|| self.origin())?;
        let prefix = format!("{}.", config.system);
        if !partitions.keys().any(|topic| topic.starts_with(&prefix)) {
            bail!(
                "there is no topic of system {:?} at {}; --system names another one",
                config.system,
                config.bootstrap
            );
        }
        Ok(ConnectedSystem { config, partitions })
    }

    /// The projector's address.
    ///
    /// # Errors
    /// The address is not known.
    pub fn projector(&self) -> anyhow::Result<String> {
        match &self.projector {
            Some(url) => Ok(url.trim_end_matches('/').to_owned()),
            None => Ok(self.endpoints()?.projector),
        }
    }

    /// The address of the projector that reads the same brokers.
    ///
    /// # Errors
    /// The address is not known; or brokers are named and the projector is not, so that it might belong to another system.
    pub fn projector_of_brokers(&self) -> anyhow::Result<String> {
        if self.names_addresses() && self.projector.is_none() {
            bail!("--bootstrap or --registry is given, so the projector must be named too: --projector URL");
        }
        self.projector()
    }

    /// For an error message: where the addresses come from.
    #[must_use]
    pub fn origin(&self) -> String {
        if self.names_addresses() || self.config.is_some() {
            "the system does not answer at the given address".to_owned()
        } else {
            format!("the system in {} does not answer; is its `dacapo up` still running?", self.data.display())
        }
    }

    fn names_addresses(&self) -> bool {
        self.bootstrap.is_some() || self.registry.is_some()
    }

    fn settings(&self, program: &str, is_incomplete: bool) -> anyhow::Result<Config> {
        let mut args = Args {
            config: self.config.clone(),
            system: self.system.clone(),
            bootstrap: self.bootstrap.clone(),
            registry: self.registry.clone(),
            ..Args::default()
        };
        if self.config.is_none() && is_incomplete {
            // One address from a flag and the other from a file might belong to two different systems.
            if self.names_addresses() {
                bail!(
                    "--bootstrap (KAFKA_BOOTSTRAP_SERVERS) and --registry (SCHEMA_REGISTRY_URL) go together: give both, or neither and --data"
                );
            }
            let endpoints = self.endpoints()?;
            args.bootstrap = Some(endpoints.kafka);
            args.registry = Some(endpoints.registry);
            args.system = args.system.or(endpoints.system);
        }
        Ok(Config::load(program, &args)?)
    }

    fn endpoints(&self) -> anyhow::Result<Endpoints> {
        let none = || {
            format!(
                "no system is known in {}: start one with `dacapo up`, or give --bootstrap, --registry and --projector",
                self.data.display()
            )
        };
        Endpoints::read(&self.data)?.with_context(none)
    }
}

/// A system whose broker and registry have answered.
#[derive(Debug, Clone)]
pub struct ConnectedSystem {
    /// The settings for connections to it.
    pub config: Config,
    /// Every topic of its cluster, with its number of partitions.
    pub partitions: HashMap<String, i32>,
}
