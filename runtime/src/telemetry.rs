//! Logs and metrics: how they are set up, and the names metrics have.

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
