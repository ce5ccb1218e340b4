//! Set-up of logs and metrics, and the names of metrics.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Read},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
pub use runtime_core::text::{chain, printable};
use serde::Deserialize;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// The names of metrics.
pub mod metric {
    /// The lag of a group on a partition, in records.
    pub const CONSUMER_LAG: &str = "kafka_consumergroup_lag";
    /// How long it takes from an input's batch to its decisions, in seconds.
    pub const PROCESS_DURATION: &str = "messaging_process_duration_seconds";
    /// How long one call to Kafka takes, in seconds.
    pub const OPERATION_DURATION: &str = "messaging_client_operation_duration_seconds";
    /// Records written.
    pub const SENT: &str = "messaging_client_sent_messages_total";
    /// Records parked behind a failed record of the same entity.
    pub const PARKED: &str = "dacapo_parked_records";
    /// Pieces of a process that do not work, by process and check.
    pub const DEGRADED: &str = "dacapo_degraded_pieces";
    /// Records read.
    pub const CONSUMED: &str = "messaging_client_consumed_messages_total";
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LogFormat {
    Human,
    Json,
}

/// Sets up logging to standard error: plain text on a terminal, JSON otherwise or with `LOG_FORMAT=json`. `RUST_LOG` is the filter. A
/// process that has set up logging already keeps its set-up.
pub fn init_logs() {
    let format = format_of(std::env::var("LOG_FORMAT").ok().as_deref(), std::io::stderr().is_terminal());
    let filter = log_filter(LevelFilter::INFO);
    let lines = fmt().with_max_level(LevelFilter::TRACE).with_writer(std::io::stderr);
    let set_up = match format {
        LogFormat::Human => lines.finish().with(filter).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).finish().with(filter).try_init(),
    };
    if let Err(error) = set_up {
        tracing::debug!(%error, "logging is set up already");
    }
}

/// The filter of log lines. `RUST_LOG` holds levels and `target=level` pairs, separated by commas; a target is the prefix of a module
/// path. If it is not set or cannot be read, `default` and more severe levels are logged.
///
/// `EnvFilter` would also match spans and their fields. No code here opens a span, and it would compile a regular expression engine
/// into every program.
#[must_use]
pub fn log_filter(default: LevelFilter) -> Targets {
    let asked = std::env::var("RUST_LOG").ok();
    asked.and_then(|asked| read_filter(&asked)).unwrap_or_else(|| Targets::new().with_default(default))
}

/// `None` if a directive cannot be read. An empty directive, such as the one behind a trailing comma, has no effect: `Targets` would
/// take it for `error`.
fn read_filter(directives: &str) -> Option<Targets> {
    let directives: Vec<&str> =
        directives.split(',').map(str::trim).filter(|directive| !directive.is_empty()).collect();
    directives.join(",").parse().ok()
}

fn format_of(requested: Option<&str>, on_terminal: bool) -> LogFormat {
    match requested {
        Some("json") => LogFormat::Json,
        Some("human") => LogFormat::Human,
        _ if on_terminal => LogFormat::Human,
        _ => LogFormat::Json,
    }
}

/// Metrics cannot be recorded.
#[derive(Debug, thiserror::Error)]
#[error("cannot record metrics: {0}")]
pub struct MetricsError(String);

static METRICS: Mutex<Option<PrometheusHandle>> = Mutex::new(None);

/// Starts to record metrics in this process. Has no effect if it records them already.
///
/// # Errors
/// Another recorder is installed.
pub fn record_metrics() -> Result<(), MetricsError> {
    /// From a tenth of a millisecond to ten seconds.
    const SECONDS: &[f64] =
        &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
    /// How often the samples of histograms are moved into buckets; until then they take memory.
    const UPKEEP: Duration = Duration::from_secs(5);
    let mut recorded = METRICS.lock().unwrap_or_else(PoisonError::into_inner);
    if recorded.is_some() {
        return Ok(());
    }
    let failed = |e: &dyn std::error::Error| MetricsError(chain(e));
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
        .map_err(|e| failed(&e))?
        .install_recorder()
        .map_err(|e| failed(&e))?;
    let upkeep = handle.clone();
    std::thread::Builder::new()
        .name("metrics".to_owned())
        .spawn(move || {
            loop {
                std::thread::park_timeout(UPKEEP);
                upkeep.run_upkeep();
            }
        })
        .map_err(|e| failed(&e))?;
    *recorded = Some(handle);
    Ok(())
}

/// The metrics in Prometheus' text format; `None` if none are recorded.
#[must_use]
pub fn render_metrics() -> Option<String> {
    METRICS.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(PrometheusHandle::render)
}

/// The part of librdkafka's statistics that is read.
#[derive(Debug, Deserialize)]
struct Statistics {
    #[serde(default)]
    topics: BTreeMap<String, TopicStatistics>,
}

#[derive(Debug, Deserialize)]
struct TopicStatistics {
    #[serde(default)]
    partitions: BTreeMap<i32, PartitionStatistics>,
}

#[derive(Debug, Deserialize)]
struct PartitionStatistics {
    consumer_lag: i64,
}

/// Records the lag of a member of `group`, from librdkafka's statistics in JSON.
pub(crate) fn record_lag(group: &str, statistics: &[u8]) {
    let statistics: Statistics = match serde_json::from_slice(statistics) {
        Ok(statistics) => statistics,
        Err(error) => {
            tracing::error!(%error, group, "librdkafka's statistics cannot be read");
            return;
        }
    };
    for (topic, stats) in &statistics.topics {
        for (partition, stats) in stats.partitions.iter().filter(|(id, stats)| **id >= 0 && stats.consumer_lag >= 0) {
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and a lag is far below 2^52")]
            let lag = stats.consumer_lag as f64;
            metrics::gauge!(
                metric::CONSUMER_LAG,
                "consumergroup" => group.to_owned(),
                "topic" => topic.clone(),
                "partition" => partition.to_string()
            )
            .set(lag);
        }
    }
}

/// The build of this program: its version and a fingerprint of its code. Every record and every store's header has it.
///
/// A version alone does not identify a build: two builds of one version may decide differently.
#[must_use]
pub fn build() -> Arc<str> {
    static BUILD: OnceLock<Arc<str>> = OnceLock::new();
    let build = BUILD.get_or_init(|| {
        let version = env!("CARGO_PKG_VERSION");
        match fingerprint() {
            Ok(fingerprint) => format!("{version}+{fingerprint:08x}").into(),
            Err(e) => {
                tracing::warn!("the program's own file cannot be read, so its build is known by its version only: {e}");
                version.into()
            }
        }
    });
    Arc::clone(build)
}

/// The checksum of the program's own file.
fn fingerprint() -> std::io::Result<u32> {
    let mut file = std::fs::File::open(std::env::current_exe()?)?;
    let mut buffer = vec![0; 1 << 20];
    let mut checksum = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(checksum),
            n => checksum = crc32c::crc32c_append(checksum, buffer.get(..n).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_lines_and_a_pipe_gets_json() {
        assert_eq!(format_of(None, true), LogFormat::Human);
        assert_eq!(format_of(None, false), LogFormat::Json);
        assert_eq!(format_of(Some("json"), true), LogFormat::Json);
        assert_eq!(format_of(Some("human"), false), LogFormat::Human);
    }

    #[test]
    fn the_log_filter_reads_levels_and_targets() {
        let filter = read_filter("warn, runtime::worker=debug,").unwrap();
        assert!(filter.would_enable("runtime::worker::turn", &tracing::Level::DEBUG));
        assert!(filter.would_enable("payment", &tracing::Level::WARN));
        assert!(!filter.would_enable("payment", &tracing::Level::INFO));
        assert!(read_filter("runtime=loud").is_none());
    }

    #[test]
    fn an_empty_log_filter_lets_errors_through() {
        let filter = read_filter("").unwrap();
        assert!(filter.would_enable("payment", &tracing::Level::ERROR));
        assert!(!filter.would_enable("payment", &tracing::Level::WARN));
    }

    #[test]
    fn the_lag_is_read_from_a_clients_statistics() {
        let statistics = br#"{"name": "x", "topics": {"orders": {"topic": "orders", "partitions": {
            "3": {"partition": 3, "consumer_lag": 7, "app_offset": -1001}, "-1": {"partition": -1, "consumer_lag": -1}}}}}"#;
        let read: Statistics = serde_json::from_slice(statistics).unwrap();
        assert_eq!(read.topics["orders"].partitions[&3].consumer_lag, 7);
        let of_a_producer: Statistics = serde_json::from_slice(br#"{"name": "x", "topics": {}}"#).unwrap();
        assert!(of_a_producer.topics.is_empty());
    }

    #[test]
    fn a_build_has_version_and_fingerprint() {
        assert!(build().starts_with(concat!(env!("CARGO_PKG_VERSION"), "+")));
        assert_eq!(build(), build());
    }
}
