//! Changes that operators make to topics with Kafka's own tools.

#![allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "each test file uses its own part")]

use std::time::{Duration, Instant};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use runtime::kafka::{TopicKind, TopicSpec};

use crate::cluster::{Cluster, PATIENCE};

impl Cluster {
    /// An administration client without dacapo's checks.
    pub fn operator(&self) -> (AdminClient<DefaultClientContext>, AdminOptions) {
        let client = ClientConfig::new().set("bootstrap.servers", &self.config.bootstrap).create();
        let options = AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE));
        (client.expect("a client"), options)
    }

    /// Deletes the records before an offset, as retention does.
    pub async fn truncate(&self, topic: &str, partition: i32, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(before)).expect("an offset");
        let (operator, options) = self.operator();
        let truncated = operator.delete_records(&list, &options).await.expect("an answer");
        assert!(truncated.elements().iter().all(|element| element.error().is_ok()), "{truncated:?}");
    }

    /// Deletes an events topic and recreates it empty.
    pub async fn recreate(&self, topic: &str) {
        let (operator, options) = self.operator();
        operator.delete_topics(&[topic], &options).await.expect("an answer").remove(0).expect("deleted");
        self.until_exists(topic, false).await;
        self.create(&[TopicSpec::new(topic, self.config.partitions, TopicKind::Events)]).await;
        self.until_exists(topic, true).await;
    }

    async fn until_exists(&self, topic: &str, wanted: bool) {
        let deadline = Instant::now() + PATIENCE;
        let exists = || self.admin.partition_counts().expect("the topics").contains_key(topic);
        while tokio::task::block_in_place(exists) != wanted {
            assert!(Instant::now() < deadline, "{topic} exists: {}", !wanted);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
