//! Logs and metrics: how they are set up, and the names metrics have.

use std::{
    io::Read,
    sync::{Arc, OnceLock},
};

use rdkafka::Statistics;

/// Metric names, as dashboards know them.
pub mod metric {
    /// How far a group's member is behind the end of a partition.
    pub const CONSUMER_LAG: &str = "kafka_consumergroup_lag";
}

/// Records how far a member of `group` is behind, from librdkafka's own statistics.
pub fn record_lag(group: &str, statistics: &Statistics) {
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

/// An error with its whole chain of causes, as one line for a log.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    crate::envelope::printable(&text, 1_000).into_owned()
}

/// What decides: the program's version and a fingerprint of its code. It goes into every record and every store's header.
///
/// A version alone says too little: two builds of one version may decide differently.
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
    fn a_build_is_told_by_version_and_fingerprint() {
        assert!(build().starts_with(concat!(env!("CARGO_PKG_VERSION"), "+")));
        assert_eq!(build(), build());
    }
}
