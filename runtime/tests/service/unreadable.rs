//! A batch that the client library cannot read. Its partition of the input waits, by name; everything else continues; an operator
//! skips it.

use runtime::unreadable::{BatchSkipped, OPERATOR, OperatorEvent};

use super::*;
use crate::raw::{append_raw, zstd_batch};

impl ServiceFixture {
    async fn with_operators() -> Self {
        let stage = Self::set().await;
        let config = &stage.cluster.config;
        stage.cluster.create(&[TopicSpec::of_operators(&config.system, config.partitions)]).await;
        stage.cluster.register(OperatorEvent::RECORDS);
        stage
    }

    async fn decide(&self, decision: BatchSkipped) {
        let writers = self.cluster.registry.writers(&self.cluster.config.system, OperatorEvent::RECORDS).unwrap();
        let publisher = Publisher::new(&self.config(), Authority::Operator, writers).unwrap();
        let outgoing = Outgoing::<OperatorEvent>::new(decision.position.clone(), OperatorEvent::BatchSkipped(decision));
        publisher.publish([outgoing], PATIENCE).await.unwrap();
    }

    fn skip(&self, position: &str, next_offset: i64) -> BatchSkipped {
        BatchSkipped {
            position: position.to_owned(),
            next_offset,
            reader: format!("{}.probe", self.cluster.config.system),
            defect: "zstd".to_owned(),
            by: "ada".to_owned(),
            reason: "a test".to_owned(),
            occurred_at: 0,
        }
    }

    async fn count(&self, key: &str, amount: i64) {
        self.edge.publish::<Command>([Outgoing::new(key, Count { amount })], PATIENCE).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_batch_holds_its_partition_of_one_topic_until_an_operator_skips_it() {
    let stage = ServiceFixture::with_operators().await;
    let (keys, inbox) = (key_per_partition(), stage.topic("probe", runtime::Channel::Inbox));
    let running = stage.start().await;
    stage.count(&keys[0], 1).await;
    stage.until_counted(1).await;
    let batch = zstd_batch(&[(&keys[0], b"one"), (&keys[0], b"two")]);
    let first = append_raw(&stage.cluster.config.bootstrap, &inbox, 0, &batch);
    stage.count(&keys[0], 10).await;
    // The other partition of the topic, and the same partition of another topic.
    stage.count(&keys[1], 100).await;
    stage.ping(&keys[0], &keys[0], "count", 1_000).await;
    stage.until_counted(1_101).await;
    let place = format!("{inbox}/0/{first}");
    let degraded =
        stage.until("a degraded service", |_| Some(running.health()).filter(|health| health.is_degraded)).await;
    assert!(degraded.is_live && degraded.is_ready, "{}", degraded.text);
    let hint = format!("`dacapo parked skip {place} --group {}.probe --reason ...`", stage.cluster.config.system);
    assert!(degraded.text.contains(&place) && degraded.text.contains(&hint), "{}", degraded.text);

    stage.decide(stage.skip(&place, first + 2)).await;
    stage.until_counted(1_111).await;
    stage.until("a service without issues", |_| Some(running.health()).filter(|health| !health.is_degraded)).await;
    let letters = stage.dead_letters();
    assert_eq!(letters.len(), 1);
    // The broker has written offset and epoch into the header, before its checksum.
    assert_eq!(&letters[0].value.as_ref().unwrap()[16..], &batch[16..]);
    let header = |name: &str| letters[0].header(name).unwrap_or_default();
    assert_eq!((header("__dlq.errors.topic"), header("__dlq.errors.offset")), (inbox, first.to_string()));
    let system = &stage.cluster.config.system;
    assert_eq!(
        (header(&format!("{system}.errors.by")), header(&format!("{system}.errors.part"))),
        ("ada".into(), "1/1".into())
    );
    assert!(running.stop().await);

    let again = stage.start().await;
    stage.count(&keys[0], 10_000).await;
    stage.until_counted(11_111).await;
    assert_eq!(stage.dead_letters().len(), 1, "it is skipped once");
    assert!(!again.health().is_degraded, "{}", again.health().text);
    assert!(again.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_first_batch_is_found_at_the_start_and_a_decision_of_another_reader_skips_nothing() {
    let stage = ServiceFixture::with_operators().await;
    let (keys, inbox) = (key_per_partition(), stage.topic("probe", runtime::Channel::Inbox));
    let first = append_raw(&stage.cluster.config.bootstrap, &inbox, 1, &zstd_batch(&[(&keys[1], b"one")]));
    stage.count(&keys[1], 1).await;
    let place = format!("{inbox}/1/{first}");
    stage.decide(BatchSkipped { reader: "another".to_owned(), ..stage.skip(&place, first + 1) }).await;
    stage.decide(stage.skip(&place, first + 2)).await;
    let running = stage.start().await;
    stage.until("a degraded service", |_| running.health().text.contains(&place).then_some(())).await;
    stage.count(&keys[0], 10).await;
    stage.until_counted(10).await;
    assert_eq!((stage.counted(), stage.dead_letters().len()), (10, 0));
    stage.decide(stage.skip(&place, first + 1)).await;
    stage.until_counted(11).await;
    assert_eq!(
        topic(&stage.cluster.config.system, OPERATOR, runtime::Channel::Events).split('.').nth(1),
        Some("operator")
    );
    assert!(running.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_skipped_batch_is_not_read_again_by_a_group_that_has_lost_its_offsets() {
    let stage = ServiceFixture::with_operators().await;
    let (keys, inbox) = (key_per_partition(), stage.topic("probe", runtime::Channel::Inbox));
    let first = append_raw(&stage.cluster.config.bootstrap, &inbox, 0, &zstd_batch(&[(&keys[0], b"one")]));
    stage.decide(stage.skip(&format!("{inbox}/0/{first}"), first + 1)).await;
    let running = stage.start().await;
    stage.until("a dead letter", |stage| (stage.dead_letters().len() == 1).then_some(())).await;
    assert!(running.stop().await);
    let group = format!("{}.probe", stage.cluster.config.system);
    let (operator, options) = stage.cluster.operator();
    operator.delete_groups(&[&group], &options).await.expect("an answer").remove(0).expect("deleted");
    let again = stage.start().await;
    stage.count(&keys[0], 1).await;
    stage.until_counted(1).await;
    assert_eq!(stage.dead_letters().len(), 1);
    assert!(again.stop().await);
}
