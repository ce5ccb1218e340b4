//! What a broker can be told when it starts.
//!
//! Owns the options and their defaults. Knows nothing of how they are obeyed.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// When written records reach the disk for certain.
///
/// The broker hands every record to the operating system before it acknowledges it, so all policies survive the death of
/// the process. They differ in what survives the death of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fsync {
    /// The operating system decides, as with a default Apache Kafka.
    #[default]
    Never,
    /// At this interval: up to so many milliseconds of acknowledged records can be lost.
    Interval(u64),
    /// Before every acknowledgement.
    Always,
}

/// Bounds on what clients may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest request, in bytes (Kafka's `socket.request.max.bytes`).
    pub request_bytes_max: usize,
    /// Connections at the same time; one beyond is closed at once.
    pub connections_max: usize,
    /// Largest answer to one fetch, in bytes.
    pub fetch_bytes_max: usize,
    /// Partitions of one topic.
    pub partitions_max: i32,
    /// Members of one group.
    pub group_members_max: usize,
    /// Shortest session timeout a group member may ask for.
    pub session_timeout_min: Duration,
    /// Longest session timeout a group member may ask for.
    pub session_timeout_max: Duration,
    /// Longest transaction timeout a producer may ask for.
    pub transaction_timeout_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            request_bytes_max: 100 * 1024 * 1024,
            connections_max: 4096,
            fetch_bytes_max: 64 * 1024 * 1024,
            partitions_max: 1024,
            group_members_max: 1024,
            session_timeout_min: Duration::from_millis(500),
            session_timeout_max: Duration::from_secs(30 * 60),
            transaction_timeout_max: Duration::from_secs(15 * 60),
        }
    }
}

/// How to start a broker.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// Where data lies; `None` keeps it in a temporary directory that goes when the broker stops.
    pub data_dir: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Host that clients are told to connect to, when it differs from the listening address.
    pub advertised_host: Option<String>,
    pub fsync: Fsync,
    /// Whether asking for an unknown topic makes it.
    pub auto_create_topics: bool,
    /// Partitions of a topic made without saying how many.
    pub default_partitions: i32,
    /// How long the first members of a group are waited for, so that a group that starts together is balanced once.
    pub initial_rebalance_delay: Duration,
    /// How often retention and other housekeeping runs.
    pub housekeeping_interval: Duration,
    /// Threads that serve connections.
    pub threads: usize,
    pub limits: Limits,
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
            limits: Limits::default(),
        }
    }
}
