//! Which system a command talks to: flags, else the environment, else what the last `up` wrote into its data folder.

use std::{collections::HashMap, path::PathBuf};

use anyhow::{Context, bail};
use runtime::{
    config::{Args, Config},
    kafka::Admin,
    registry::RegistryClient,
};

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
        self.settings(program, self.bootstrap.is_none() || self.registry.is_none())
    }

    /// The settings of a command that asks Kafka alone.
    ///
    /// # Errors
    /// As [`Target::config`].
    pub fn kafka_alone(&self, program: &str) -> anyhow::Result<Config> {
        self.settings(program, self.bootstrap.is_none())
    }

    /// The settings of a command that asks the registry alone.
    ///
    /// # Errors
    /// As [`Target::config`].
    pub fn registry_alone(&self, program: &str) -> anyhow::Result<Config> {
        self.settings(program, self.registry.is_none())
    }

    /// The settings, once Kafka and the registry have answered and the system is there: a command that reads topics would
    /// otherwise wait for them without a word, and an audit of nothing would be clean.
    ///
    /// # Errors
    /// As [`Target::config`]; or one of them does not answer, or knows no such system.
    pub async fn reached(&self, program: &str) -> anyhow::Result<Reached> {
        let config = self.config(program)?;
        let (admin, registry) = (Admin::new(&config)?, RegistryClient::new(&config)?);
        let asked = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
            let partitions = admin.partition_counts()?;
            registry.subjects()?;
            Ok(partitions)
        });
        let partitions = asked.await?.with_context(|| self.origin())?;
        let first_part = format!("{}.", config.system);
        if !partitions.keys().any(|topic| topic.starts_with(&first_part)) {
            bail!(
                "there is no topic of system {:?} at {}; --system names another one",
                config.system,
                config.bootstrap
            );
        }
        Ok(Reached { config, partitions })
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

    /// The address of the projector that reads these very brokers.
    ///
    /// # Errors
    /// Nothing says where it is; or brokers are named and it is not, so that it would be another system's.
    pub fn projector_of_these(&self) -> anyhow::Result<String> {
        if self.names_a_place() && self.projector.is_none() {
            bail!("--bootstrap or --registry is given, so the projector must be named too: --projector URL");
        }
        self.projector()
    }

    /// For an error's text: where the addresses come from.
    #[must_use]
    pub fn origin(&self) -> String {
        if self.names_a_place() || self.config.is_some() {
            "the system does not answer where it was said to be".to_owned()
        } else {
            format!("the system in {} does not answer; is its `dacapo up` still running?", self.data.display())
        }
    }

    fn names_a_place(&self) -> bool {
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
            // One address from a person and the other from a file would be two systems taken for one.
            if self.names_a_place() {
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
                "no system is known in {}: start one with `dacapo up`, or say where it is with --bootstrap, --registry and --projector",
                self.data.display()
            )
        };
        Endpoints::read(&self.data)?.with_context(none)
    }
}

/// A system that has answered.
#[derive(Debug, Clone)]
pub struct Reached {
    /// The settings to reach it with.
    pub config: Config,
    /// Every topic of its cluster, with its number of partitions.
    pub partitions: HashMap<String, i32>,
}
