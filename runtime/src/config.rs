//! The settings of a process: a flag overrides the environment, the environment the file, the file the default.
//!
//! Owns the sources of settings, their validation, and which of them are logged. Unknown keys are errors, and secrets have a type
//! that does not print them. It knows no service: a service reads its own keys from the same sources with [`Sources::own`].

mod kafka_properties;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::core::ParkingLimits;

/// A value that is never printed. Only [`Secret::expose`] returns it, which is easy to search for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The value itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self(value.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file or one of its tables is malformed.
    #[error("configuration file {path} is malformed: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The cause, with line and column if known.
        reason: String,
    },
    /// A value is invalid.
    #[error("setting {name} {problem}")]
    Invalid {
        /// The setting's name, as in the file.
        name: String,
        /// Why it is invalid, and what is expected.
        problem: String,
    },
}

impl ConfigError {
    /// An error about one setting.
    pub fn invalid(name: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { name: name.into(), problem: problem.into() }
    }
}

/// The settings of every process, to be flattened into its command line. The same names, with underscores, are the keys of the
/// file.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    /// Configuration file (TOML)
    #[arg(long, env = "DACAPO_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Name of the system: the first part of every topic
    #[arg(long, env = "DACAPO_SYSTEM", value_name = "NAME")]
    pub system: Option<String>,
    /// Kafka bootstrap servers
    #[arg(long, env = "KAFKA_BOOTSTRAP_SERVERS", value_name = "HOST:PORT,...")]
    pub bootstrap: Option<String>,
    /// Schema registry; the URL may have a path
    #[arg(long = "registry", env = "SCHEMA_REGISTRY_URL", value_name = "URL")]
    #[serde(rename = "registry")]
    pub registry: Option<String>,
    /// User at the schema registry
    #[arg(long, env = "DACAPO_REGISTRY_USER", value_name = "NAME")]
    pub registry_user: Option<String>,
    /// Password at the schema registry. Set it in the environment or the file: other users of the machine can read flags
    #[arg(long, env = "DACAPO_REGISTRY_PASSWORD", value_name = "SECRET", hide_env_values = true)]
    pub registry_password: Option<Secret>,
    /// Stable name of this instance, unique within a service; a restart under the same name takes over at once
    #[arg(long, env = "DACAPO_INSTANCE", value_name = "NAME")]
    pub instance: Option<String>,
    /// Workers per service: each is one consumer, one producer and one thread
    #[arg(long, env = "DACAPO_WORKERS", value_name = "N")]
    pub workers: Option<usize>,
    /// Directory for local stores [default: memory; the stores are rebuilt at every start]
    #[arg(long, env = "DACAPO_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Address of the HTTP API; port 0 takes a free one
    #[arg(long, env = "DACAPO_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<SocketAddr>,
    /// Partitions of topics that are created; a service creates none and takes the number that its topics have [default: 4]
    #[arg(long, env = "DACAPO_PARTITIONS", value_name = "N")]
    pub partitions: Option<i32>,
    /// Replicas of topics that are created; a service creates none [default: the broker's]
    #[arg(long, env = "DACAPO_REPLICATION", value_name = "N")]
    pub replication: Option<i32>,
}

/// The file: common settings, timeouts, parking limits, exceptions for views, Kafka properties, and a table per service.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
struct File {
    #[serde(flatten)]
    common: toml::Table,
    #[serde(default)]
    timeouts: TimeoutsMs,
    #[serde(default)]
    parking: Parking,
    #[serde(default)]
    views: Views,
    #[serde(default)]
    kafka: BTreeMap<String, toml::Value>,
    #[serde(default)]
    services: BTreeMap<String, toml::Table>,
}

/// The timeouts as the file states them, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct TimeoutsMs {
    session: Option<u64>,
    transaction: Option<u64>,
    request: Option<u64>,
    registry: Option<u64>,
    schema: Option<u64>,
    answer: Option<u64>,
    shutdown: Option<u64>,
}

/// How much may be parked in one partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parking {
    records: Option<usize>,
    bytes: Option<usize>,
}

/// Exceptions for the topics that views are folded from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Views {
    #[serde(default)]
    allow_truncated: BTreeSet<String>,
}

impl Parking {
    fn limits(self) -> Result<ParkingLimits, ConfigError> {
        let default = ParkingLimits::default();
        Ok(ParkingLimits {
            records: in_range("parking.records", self.records, default.records, 1, 10_000_000)?,
            bytes: in_range("parking.bytes", self.bytes, default.bytes, 1 << 20, 64 << 30)?,
        })
    }
}

/// The timeouts of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// How long a group member that sends no heartbeats keeps its partitions.
    pub session: Duration,
    /// How long an open transaction may block readers.
    pub transaction: Duration,
    /// One request to a broker.
    pub request: Duration,
    /// One call to the schema registry.
    pub registry: Duration,
    /// How long the registry must report a schema as missing before a record written with it is dead-lettered: a replica of the
    /// registry may lag behind the record.
    pub schema: Duration,
    /// How long an HTTP request waits for the event that answers it.
    pub answer: Duration,
    /// How long a graceful stop may take.
    pub shutdown: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            session: Duration::from_secs(10),
            transaction: Duration::from_secs(10),
            request: Duration::from_secs(10),
            registry: Duration::from_secs(5),
            schema: default::SCHEMA,
            answer: Duration::from_secs(5),
            shutdown: Duration::from_secs(10),
        }
    }
}

impl Timeouts {
    fn over(self, file: TimeoutsMs) -> Result<Self, ConfigError> {
        let pick = |name: &str, given: Option<u64>, default: Duration| match given {
            None => Ok(default),
            Some(ms @ 100..=600_000) => Ok(Duration::from_millis(ms)),
            Some(ms) => {
                let problem = format!("is {ms}; expected milliseconds from 100 to 600000");
                Err(ConfigError::invalid(format!("timeouts.{name}"), problem))
            }
        };
        Ok(Self {
            session: pick("session", file.session, self.session)?,
            transaction: pick("transaction", file.transaction, self.transaction)?,
            request: pick("request", file.request, self.request)?,
            registry: pick("registry", file.registry, self.registry)?,
            schema: pick("schema", file.schema, self.schema)?,
            answer: pick("answer", file.answer, self.answer)?,
            shutdown: pick("shutdown", file.shutdown, self.shutdown)?,
        })
    }
}

/// The validated settings of a process.
#[derive(Debug, Clone)]
pub struct Config {
    /// The first part of every topic.
    pub system: String,
    /// The bootstrap servers.
    pub bootstrap: String,
    /// The registry's address, without credentials.
    pub registry_url: String,
    /// User at the registry.
    pub registry_user: Option<String>,
    /// Password at the registry.
    pub registry_password: Option<Secret>,
    /// The service or program: part of client ids, of log lines and of its records' source.
    pub service: String,
    /// Stable name of this instance, if it has one.
    pub instance: Option<String>,
    /// Workers per service.
    pub workers: usize,
    /// Directory for local stores; `None` keeps them in memory.
    pub data_dir: Option<PathBuf>,
    /// Address to serve HTTP on.
    pub listen: Option<SocketAddr>,
    /// Partitions of every topic.
    pub partitions: i32,
    /// Replicas of every topic; `None` is the broker's default.
    pub replication: Option<i32>,
    /// The timeouts.
    pub timeouts: Timeouts,
    /// How much may be parked in one partition.
    pub parking: ParkingLimits,
    /// Truncated topics that views may be folded from all the same.
    pub allow_truncated: BTreeSet<String>,
    /// Properties that are passed on to librdkafka; `Sources::config` refuses the forbidden ones.
    pub kafka: BTreeMap<String, Secret>,
}

/// Default values, as the help text and the documentation state them.
pub mod default {
    /// System name.
    pub const SYSTEM: &str = runtime_core::codec::SCHEMA_FILES_SYSTEM;
    /// Brokers.
    pub const BOOTSTRAP: &str = "localhost:9092";
    /// Registry.
    pub const REGISTRY: &str = "http://localhost:8081";
    /// Partitions of every topic.
    pub const PARTITIONS: i32 = 4;
    /// Workers per service.
    pub const WORKERS: usize = 1;
    /// How long a schema may be missing at the registry.
    pub const SCHEMA: std::time::Duration = std::time::Duration::from_secs(30);
}

/// Flags, environment and file, merged. A [`Config`] and a service's own settings are read from them.
#[derive(Debug, Clone)]
pub struct Sources {
    args: Args,
    file: File,
    path: PathBuf,
}

impl Sources {
    /// Reads the file, if one is named. The flags, which include the environment, override it.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, or has unknown keys.
    pub fn load(args: &Args) -> Result<Self, ConfigError> {
        let Some(path) = &args.config else {
            return Ok(Self { args: args.clone(), file: File::default(), path: PathBuf::new() });
        };
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
        Self::parse(args, &text, path)
    }

    fn parse(args: &Args, text: &str, path: &Path) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text).map_err(|e| malformed(path, &e))?;
        let merged: Args = overlay(file.common.clone(), args).map_err(|e| malformed(path, &e))?;
        Ok(Self { args: merged, file, path: path.to_owned() })
    }

    /// The settings of the service or program `service`.
    ///
    /// # Errors
    /// A value is invalid.
    pub fn config(&self, service: &str) -> Result<Config, ConfigError> {
        let args = self.args.clone();
        let registry = args.registry.unwrap_or_else(|| default::REGISTRY.to_owned());
        let (registry_url, user_in_url, password_in_url) = split_credentials(&registry)?;
        let config = Config {
            system: checked_system(args.system)?,
            bootstrap: checked_bootstrap(args.bootstrap)?,
            registry_url,
            registry_user: args.registry_user.or(user_in_url),
            registry_password: args.registry_password.or(password_in_url),
            service: service.to_owned(),
            instance: args.instance.map(checked_instance).transpose()?,
            workers: in_range("workers", args.workers, default::WORKERS, 1, 64)?,
            data_dir: args.data,
            listen: args.listen,
            partitions: in_range("partitions", args.partitions, default::PARTITIONS, 1, 1_000)?,
            replication: args.replication.map(|n| in_range("replication", Some(n), n, 1, 16)).transpose()?,
            timeouts: Timeouts::default().over(self.file.timeouts)?,
            parking: self.file.parking.limits()?,
            allow_truncated: self.file.views.allow_truncated.clone(),
            kafka: kafka_properties::checked(&self.file.kafka)?,
        };
        Ok(config)
    }

    /// A service's own settings: its flags, which include the environment, override its table `[services.<service>]`.
    /// Every field of `T` must be an `Option` or have a serde default, and `T` must deny unknown fields.
    ///
    /// # Errors
    /// The table has keys that `T` does not know, or values of another type.
    pub fn own<T: Serialize + DeserializeOwned>(&self, service: &str, flags: &T) -> Result<T, ConfigError> {
        let table = self.file.services.get(service).cloned().unwrap_or_default();
        overlay(table, flags).map_err(|e| ConfigError::Malformed {
            path: self.path.clone(),
            reason: format!("[services.{service}]: {}", e.message()),
        })
    }
}

/// Overrides `table` with the values that `flags` sets; a `None` keeps the table's value. The result is read strictly.
fn overlay<T: Serialize + DeserializeOwned>(table: toml::Table, flags: &T) -> Result<T, toml::de::Error> {
    let mut merged = table;
    let set = toml::Table::try_from(flags).map_err(serde::de::Error::custom)?;
    merged.extend(set);
    merged.try_into()
}

fn malformed(path: &Path, error: &toml::de::Error) -> ConfigError {
    ConfigError::Malformed { path: path.to_owned(), reason: error.to_string().trim().to_owned() }
}

impl Config {
    /// The settings of one service from the common arguments alone.
    ///
    /// # Errors
    /// The file or a value cannot be used.
    pub fn load(service: &str, args: &Args) -> Result<Self, ConfigError> {
        Sources::load(args)?.config(service)
    }

    /// The same settings for another service of the same process.
    #[must_use]
    pub fn for_service(&self, service: &str) -> Self {
        Self { service: service.to_owned(), ..self.clone() }
    }

    /// Logs the effective settings. Secrets are shown as `***`.
    pub fn log_effective(&self) {
        tracing::info!(
            system = %self.system,
            bootstrap = %self.bootstrap,
            registry = %self.registry_url,
            registry_user = ?self.registry_user,
            service = %self.service,
            instance = ?self.instance,
            workers = self.workers,
            data = ?self.data_dir,
            listen = ?self.listen,
            partitions = self.partitions,
            replication = ?self.replication,
            timeouts = ?self.timeouts,
            parking = ?self.parking,
            allow_truncated = ?self.allow_truncated,
            kafka = ?self.shown_kafka(),
            "effective configuration"
        );
    }

    /// The Kafka properties as they may be shown.
    #[must_use]
    pub fn shown_kafka(&self) -> BTreeMap<&str, &str> {
        self.kafka
            .iter()
            .map(|(name, value)| {
                (name.as_str(), if kafka_properties::is_secret(name) { "***" } else { value.expose() })
            })
            .collect()
    }

    /// Settings for tests: nothing on disk, and addresses without a listener.
    #[must_use]
    #[doc(hidden)]
    pub fn for_tests() -> Self {
        Self {
            system: default::SYSTEM.to_owned(),
            bootstrap: "127.0.0.1:1".to_owned(),
            registry_url: "http://127.0.0.1:1".to_owned(),
            registry_user: None,
            registry_password: None,
            service: "test".to_owned(),
            instance: None,
            workers: 1,
            data_dir: None,
            listen: None,
            partitions: 4,
            replication: None,
            // Tests have no lagging replica, but some records whose schemas never appear.
            timeouts: Timeouts { schema: Duration::from_secs(1), ..Timeouts::default() },
            parking: ParkingLimits::default(),
            allow_truncated: BTreeSet::new(),
            kafka: BTreeMap::new(),
        }
    }
}

/// A system's name is part of topics and of Avro namespaces, so it has only characters that both allow.
fn checked_system(given: Option<String>) -> Result<String, ConfigError> {
    let name = given.unwrap_or_else(|| default::SYSTEM.to_owned());
    let legal = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= 40
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if legal {
        Ok(name)
    } else {
        Err(ConfigError::invalid("system", "must be a-z and 0-9, at most 40, a letter first"))
    }
}

fn checked_instance(name: String) -> Result<String, ConfigError> {
    let legal = !name.is_empty()
        && name.len() <= 100
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.')
        && !name.starts_with('.');
    if legal {
        Ok(name)
    } else {
        Err(ConfigError::invalid("instance", "must be letters, digits, '-', '_' or '.', at most 100"))
    }
}

fn checked_bootstrap(given: Option<String>) -> Result<String, ConfigError> {
    let bootstrap = given.unwrap_or_else(|| default::BOOTSTRAP.to_owned());
    let wellformed = |address: &str| match address.trim().rsplit_once(':') {
        Some((host, port)) => !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0),
        None => false,
    };
    if bootstrap.split(',').all(wellformed) {
        Ok(bootstrap)
    } else {
        Err(ConfigError::invalid("bootstrap", "must be host:port, several separated by commas"))
    }
}

/// Takes the credentials out of `http://user:password@host/path`, so that the address can be shown.
fn split_credentials(given: &str) -> Result<(String, Option<String>, Option<Secret>), ConfigError> {
    // The errors do not repeat the text: it may contain a password.
    let invalid = |problem: &str| ConfigError::invalid("registry", problem);
    let mut url = reqwest::Url::parse(given).map_err(|_| invalid("is not a URL; expected http://host:port[/path]"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(invalid("must start with http:// or https:// and name a host"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("must not have a query or a fragment"));
    }
    let user = Some(url.username().to_owned()).filter(|user| !user.is_empty());
    let password = url.password().map(Secret::from);
    url.set_username("").map_err(|()| invalid("cannot have a user"))?;
    url.set_password(None).map_err(|()| invalid("cannot have a password"))?;
    Ok((url.as_str().trim_end_matches('/').to_owned(), user, password))
}

fn in_range<T: Copy + PartialOrd + fmt::Display>(
    name: &str,
    given: Option<T>,
    default: T,
    least: T,
    most: T,
) -> Result<T, ConfigError> {
    let value = given.unwrap_or(default);
    if least <= value && value <= most {
        Ok(value)
    } else {
        Err(ConfigError::invalid(name, format!("is {value}; expected {least} to {most}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &Args, text: &str) -> Result<Config, ConfigError> {
        Sources::parse(args, text, Path::new("test.toml"))?.config("payment")
    }

    #[test]
    fn a_flag_overrides_the_file_and_the_file_overrides_the_default() {
        let args = Args { system: Some("fromflag".to_owned()), ..Args::default() };
        let config = parse(&args, "system = 'fromfile'\nworkers = 3\n[timeouts]\nanswer = 250\n[parking]\nrecords = 7\n[views]\nallow_truncated = ['shop.orders']")
            .expect("valid settings");
        assert_eq!((config.system.as_str(), config.workers, config.partitions), ("fromflag", 3, default::PARTITIONS));
        assert_eq!(config.timeouts.answer, Duration::from_millis(250));
        assert_eq!(config.timeouts.session, Timeouts::default().session);
        assert_eq!((config.parking.records, config.parking.bytes), (7, ParkingLimits::default().bytes));
        assert_eq!(config.allow_truncated, BTreeSet::from(["shop.orders".to_owned()]));
    }

    #[test]
    fn an_unknown_key_is_an_error_in_every_table() {
        for text in [
            "sytem = 'x'",
            "[timeouts]\nanwser = 1",
            "[views]\nalow_truncated = []",
            "config = 'other.toml'",
            "[kafak]\na = 1",
        ] {
            let error = parse(&Args::default(), text).expect_err(text);
            assert!(matches!(error, ConfigError::Malformed { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn invalid_values_are_errors() {
        for text in [
            "system = 'Music Corp'",
            "bootstrap = 'localhost'",
            "bootstrap = ''",
            "registry = 'localhost:8081'",
            "registry = 'http://host/?a=b'",
            "workers = 0",
            "partitions = -1",
            "instance = '../x'",
            "[timeouts]\nsession = 1",
            "[parking]\nbytes = 1",
            "[kafka]\n'plugin.library.paths' = 'evil.so'",
            "[kafka]\n'sasl.kerberos.kinit.cmd' = 'rm'",
            "[kafka]\n'enable.auto.commit' = true",
            "[kafka]\nlinger.ms = 5",
        ] {
            let error = parse(&Args::default(), text).expect_err(text);
            assert!(matches!(error, ConfigError::Invalid { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn secrets_are_never_printed() {
        let text = "registry = 'http://me:hush@host:81/path'\n[kafka]\n'sasl.password' = 'hush'\n'linger.ms' = 5";
        let config = parse(&Args::default(), text).expect("valid settings");
        assert_eq!(config.registry_url, "http://host:81/path");
        assert_eq!(config.registry_user.as_deref(), Some("me"));
        assert_eq!(config.registry_password.as_ref().map(Secret::expose), Some("hush"));
        assert_eq!(config.shown_kafka(), BTreeMap::from([("linger.ms", "5"), ("sasl.password", "***")]));
        assert!(!format!("{config:?}").contains("hush"));
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Own {
        gateway_url: Option<String>,
        attempts: Option<u32>,
    }

    #[test]
    fn a_service_reads_its_own_keys_from_the_same_sources() {
        let text = "[services.payment]\ngateway_url = 'http://file'\nattempts = 3\n[services.other]\nx = 1";
        let sources = Sources::parse(&Args::default(), text, Path::new("test.toml")).expect("valid settings");
        let flags = Own { gateway_url: Some("http://flag".to_owned()), attempts: None };
        let own = sources.own("payment", &flags).expect("known keys");
        assert_eq!(own, Own { gateway_url: Some("http://flag".to_owned()), attempts: Some(3) });
        let error = sources.own("other", &Own::default()).expect_err("x is unknown");
        assert!(error.to_string().contains("services.other"), "{error}");
    }

    #[test]
    fn flags_and_environment_share_one_definition() {
        use clap::Parser;

        #[derive(Parser)]
        struct Cli {
            #[command(flatten)]
            common: Args,
        }
        let cli = Cli::try_parse_from(["x", "--registry", "http://r:1/p", "--listen", "127.0.0.1:0"]).expect("flags");
        assert_eq!(cli.common.registry.as_deref(), Some("http://r:1/p"));
        assert!(Cli::try_parse_from(["x", "--listen", "nowhere"]).is_err());
    }
}
