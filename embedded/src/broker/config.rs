//! The broker's settings.
//!
//! Owns the settings and their defaults, not their effects.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// When the broker forces written records to the disk.
///
/// The broker hands every record to the operating system before it acknowledges it, so under every policy records survive a
/// crash of the process. The policies differ in what survives a crash of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fsync {
    /// The operating system decides, as in Apache Kafka's default settings.
    #[default]
    Never,
    /// At this interval in milliseconds: a crash can lose the records acknowledged within it.
    Interval(u64),
    /// Before every acknowledgement.
    Always,
}

/// Limits on what clients may request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerLimits {
    /// Largest request, in bytes (Kafka's `socket.request.max.bytes`).
    pub request_bytes_max: usize,
    /// Concurrent connections; a further connection is closed at once.
    pub connections_max: usize,
    /// Largest response to one fetch, in bytes.
    pub fetch_bytes_max: usize,
    /// The largest size that the records of a compressed batch may inflate to, in bytes. Where four times the topic's
    /// `max.message.bytes` is more, that is the limit. The broker stops inflating there and refuses the batch with
    /// `MESSAGE_TOO_LARGE`, so no stored batch costs a reader more. Apache Kafka has no such limit. The default of 32 MiB is 32
    /// times Kafka's default of `max.message.bytes`.
    pub inflated_bytes_max: u64,
    /// Partitions of one topic.
    pub partitions_max: i32,
    /// Members of one group.
    pub group_members_max: usize,
    /// Shortest session timeout that a group member may request.
    pub session_timeout_min: Duration,
    /// Longest session timeout that a group member may request.
    pub session_timeout_max: Duration,
    /// Longest transaction timeout that a producer may request.
    pub transaction_timeout_max: Duration,
}

impl Default for BrokerLimits {
    fn default() -> Self {
        BrokerLimits {
            request_bytes_max: 100 * 1024 * 1024,
            connections_max: 4096,
            fetch_bytes_max: 64 * 1024 * 1024,
            inflated_bytes_max: 32 * 1024 * 1024,
            partitions_max: 1024,
            group_members_max: 1024,
            session_timeout_min: Duration::from_millis(500),
            session_timeout_max: Duration::from_secs(30 * 60),
            transaction_timeout_max: Duration::from_secs(15 * 60),
        }
    }
}

/// A broker's settings.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// The data directory; `None` uses a temporary directory that is removed when the broker stops.
    pub data_dir: Option<PathBuf>,
    /// The address to listen on; port 0 chooses a free port.
    pub listen: SocketAddr,
    /// The host that the broker advertises to clients, if it differs from the listening address.
    pub advertised_host: Option<String>,
    pub fsync: Fsync,
    /// Whether a request for an unknown topic creates it.
    pub auto_create_topics: bool,
    /// The partition count of a topic that is created without one.
    pub default_partitions: i32,
    /// How long a new group waits for further members before its first rebalance: members that start together are then balanced
    /// once.
    pub initial_rebalance_delay: Duration,
    /// How often retention and other housekeeping runs.
    pub housekeeping_interval: Duration,
    /// Threads that serve connections.
    pub threads: usize,
    pub limits: BrokerLimits,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        BrokerConfig {
            data_dir: None,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            advertised_host: None,
            fsync: Fsync::Never,
            auto_create_topics: false,
            default_partitions: 1,
            initial_rebalance_delay: Duration::from_millis(100),
            housekeeping_interval: Duration::from_secs(10),
            threads: 2,
            limits: BrokerLimits::default(),
        }
    }
}
