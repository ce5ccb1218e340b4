//! Topics that no longer hold the records a service continues from: truncated, recreated, or with expired group offsets. The service
//! refuses what it cannot recover from by itself, and the tests then do what an operator does.

use rdkafka::consumer::CommitMode;

use super::*;

fn source(stage: &ServiceFixture) -> String {
    stage.topic("source", runtime::Channel::Events)
}

fn own_log(stage: &ServiceFixture) -> String {
    stage.topic("probe", runtime::Channel::Events)
}

fn group(stage: &ServiceFixture) -> String {
    runtime::kafka::client::group(&stage.cluster.config.system, "probe")
}

/// Resets the offset of the group while it has no members, as an operator does to accept a loss.
fn set_offset(stage: &ServiceFixture, topic: &str, partition: i32, offset: i64) {
    let member: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &stage.cluster.config.bootstrap)
        .set("group.id", group(stage))
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    member.commit(&list, CommitMode::Sync).unwrap();
}

async fn delete_group(stage: &ServiceFixture) {
    let group = group(stage);
    let (operator, options) = stage.cluster.operator();
    let deadline = Instant::now() + PATIENCE;
    // The member has left, but the broker may need a moment to notice.
    while let Err((_, code)) = operator.delete_groups(&[&group], &options).await.unwrap().remove(0) {
        assert!(Instant::now() < deadline, "{group} cannot be deleted: {code}");
    }
}

/// Starts the service, which must refuse for good. Returns the reason.
async fn refused(stage: &ServiceFixture, config: Config) -> String {
    let running = start(config, stage.probe.clone(), stage.world.clone(), axum::Router::new()).await.unwrap();
    let said = refuses(stage, &running).await;
    running.stop().await;
    said
}

async fn refuses(stage: &ServiceFixture, running: &Running) -> String {
    let said = stage.until("a service that refuses", |_| Some(running.health()).filter(|health| !health.is_live)).await;
    assert!(!said.is_ready, "{}", said.text);
    assert!(said.text.contains("docs/operations.md"), "it names the document: {}", said.text);
    said.text
}

fn assert_produces(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said:?}");
    }
}

/// A service that has counted ten times in partition 0 and stopped.
async fn after_ten(config: impl FnOnce(Config) -> Config) -> (ServiceFixture, Config, String) {
    let stage = ServiceFixture::set().await;
    let config = config(stage.config());
    let running = stage.start_as(config.clone()).await;
    let key = key_per_partition()[0].clone();
    stage.pings((0..10).map(|_| (key.as_str(), key.as_str(), "count", 1))).await;
    stage.until_counted(10).await;
    assert!(running.stop().await);
    (stage, config, key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_truncated_before_it_was_consumed_is_refused_until_the_loss_is_accepted() {
    let (stage, config, key) = after_ten(|config| config).await;
    stage.pings((0..5).map(|_| (key.as_str(), key.as_str(), "count", 1))).await;
    stage.cluster.truncate(&source(&stage), 0, 13).await;
    let said = refused(&stage, config.clone()).await;
    let place = format!("{}/0 holds offsets 13 to 14", source(&stage));
    assert_produces(&said, &[&place, &format!("{} continues from offset 10", group(&stage)), "truncated"]);
    assert_eq!(stage.counted(), 10, "nothing is skipped silently");
    set_offset(&stage, &source(&stage), 0, 13);
    let running = stage.start_as(config).await;
    stage.until_counted(12).await;
    assert!(running.stop().await);
    assert_whole(&stage.events());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_truncated_under_a_running_service_stops_it_with_the_partition() {
    let stage = ServiceFixture::set().await;
    stage.probe.fragile.store(true, Ordering::SeqCst);
    let running = stage.start().await;
    let keys = key_per_partition();
    stage.ping(&keys[0], &keys[0], "panic", 1).await;
    stage.ping(&keys[1], &keys[1], "count", 100).await;
    stage.until_counted(100).await;
    stage.until("a held partition", |_| running.health().is_degraded.then_some(())).await;
    stage.ping(&keys[0], &keys[0], "count", 1).await;
    stage.cluster.truncate(&source(&stage), 0, 1).await;
    let said = refuses(&stage, &running).await;
    assert_produces(&said, &[&format!("{}/0 holds offsets 1 to 1", source(&stage)), "continues from offset 0"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recreated_input_is_refused_until_it_is_to_be_consumed_from_its_beginning() {
    let (stage, config, key) = after_ten(|config| config).await;
    stage.cluster.recreate(&source(&stage)).await;
    stage.pings((0..2).map(|_| (key.as_str(), key.as_str(), "count", 1))).await;
    let said = refused(&stage, config.clone()).await;
    let place = format!("{}/0 holds offsets 0 to 1", source(&stage));
    assert_produces(&said, &[&place, &format!("{} has consumed it up to offset 10", group(&stage)), "recreated"]);
    set_offset(&stage, &source(&stage), 0, 0);
    let running = stage.start_as(config).await;
    stage.until_counted(12).await;
    assert!(running.stop().await);
    assert_whole(&stage.events());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_own_log_is_refused() {
    let (stage, config, _) = after_ten(|config| config).await;
    stage.cluster.truncate(&own_log(&stage), 0, 4).await;
    let said = refused(&stage, config).await;
    assert_produces(&said, &[&format!("own log {}/0 begins at offset 4", own_log(&stage)), "truncated"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recreated_own_log_is_detected_by_the_group_and_by_the_store() {
    let data = tempfile::tempdir().unwrap();
    let with_store = |config| Config { data_dir: Some(data.path().to_owned()), ..config };
    let (stage, config, key) = after_ten(with_store).await;
    // A second run, so that the group's offsets show how far the first one came.
    let running = stage.start_as(config.clone()).await;
    stage.ping(&key, &key, "count", 1).await;
    stage.until_counted(11).await;
    assert!(running.stop().await);
    stage.cluster.recreate(&own_log(&stage)).await;
    let without_store = Config { data_dir: None, ..config.clone() };
    let said = refused(&stage, without_store.clone()).await;
    let place = format!("own log {}/0 ends at offset 0", own_log(&stage));
    assert_produces(&said, &[&place, "the consumer group has seen it reach", "recreated"]);
    delete_group(&stage).await;
    let said = refused(&stage, config).await;
    assert_produces(&said, &[&place, "the local store has seen it reach", "recreated"]);
    assert_eq!(stage.events().len(), 0, "no event is written meanwhile");
    // Without group and store, and with every input still there, everything is decided again.
    let running = stage.start_as(without_store).await;
    stage.until_counted(11).await;
    assert!(running.stop().await);
    assert_whole(&stage.events());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_own_log_recreated_under_a_running_service_stops_it() {
    let stage = ServiceFixture::set().await;
    let running = stage.start().await;
    let key = key_per_partition()[0].clone();
    for total in [5, 10] {
        stage.pings((0..5).map(|_| (key.as_str(), key.as_str(), "count", 1))).await;
        stage.until_counted(total).await;
    }
    stage.cluster.recreate(&own_log(&stage)).await;
    stage.ping(&key, &key, "count", 1).await;
    let said = refuses(&stage, &running).await;
    assert_produces(&said, &[&format!("own log {}/0 ends at offset", own_log(&stage)), "recreated"]);
    running.stop().await;
    assert_eq!(stage.counted(), 0, "no event was written to a log without its beginning");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_offsets_of_the_group_are_recovered_from_the_own_log() {
    let (stage, config, key) = after_ten(|config| config).await;
    let before = stage.events().len();
    delete_group(&stage).await;
    let running = stage.start_as(config).await;
    stage.ping(&key, &key, "count", 1).await;
    stage.until_counted(11).await;
    assert!(running.stop().await);
    assert_eq!(stage.events().len(), before + 1, "nothing was decided twice");
    assert_whole(&stage.events());
}

fn inbox(stage: &ServiceFixture) -> String {
    stage.topic("probe", runtime::Channel::Inbox)
}

/// A client of the group that does not join it.
fn client_of_group(stage: &ServiceFixture) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", &stage.cluster.config.bootstrap)
        .set("group.id", group(stage))
        .create()
        .unwrap()
}

/// The ends of every partition of a topic, markers included.
fn ends(stage: &ServiceFixture, topic: &str) -> Vec<i64> {
    let client = client_of_group(stage);
    let end = |partition| client.fetch_watermarks(topic, partition, PATIENCE).unwrap().1;
    (0..stage.cluster.config.partitions).map(end).collect()
}

/// Waits until the group has committed the ends of a topic.
async fn until_consumed(stage: &ServiceFixture, topic: &str) {
    let client = client_of_group(stage);
    let mut list = TopicPartitionList::new();
    for partition in 0..stage.cluster.config.partitions {
        list.add_partition(topic, partition);
    }
    stage
        .until("every position is committed", |stage| {
            let committed = client.committed_offsets(list.clone(), PATIENCE).unwrap();
            let offset = |element: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset() {
                Offset::Offset(offset) => offset,
                _ => 0,
            };
            (committed.elements().into_iter().map(offset).collect::<Vec<_>>() == ends(stage, topic)).then_some(())
        })
        .await;
}

/// Retention deletes every record of a topic.
async fn delete_all(stage: &ServiceFixture, topic: &str) {
    for (partition, end) in ends(stage, topic).into_iter().enumerate() {
        stage.cluster.truncate(topic, i32::try_from(partition).unwrap(), end).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inbox_that_was_consumed_to_its_end_may_be_deleted() {
    for crashes in [false, true] {
        let stage = ServiceFixture::set().await;
        let config = stage.config();
        let running = stage.start_as(config.clone()).await;
        // The command to its friend is the last record of the inbox, and the marker of the service's own transaction follows it.
        for key in key_per_partition() {
            stage.ping(&key, &key, "pass-on", 5).await;
        }
        stage.until_counted(10).await;
        if crashes {
            until_consumed(&stage, &inbox(&stage)).await;
            running.crash().await;
        } else {
            until_consumed(&stage, &inbox(&stage)).await;
            assert!(running.stop().await);
        }
        assert!(ends(&stage, &inbox(&stage)).iter().any(|end| *end > 1), "a record and a marker");
        delete_all(&stage, &inbox(&stage)).await;
        let running = stage.start_as(config).await;
        stage.edge.publish::<Command>([Outgoing::new("order-2", Count { amount: 5 })], PATIENCE).await.unwrap();
        stage.until_counted(15).await;
        assert!(running.stop().await);
        assert_whole(&stage.events());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inbox_whose_unread_records_were_deleted_is_refused_by_name() {
    let stage = ServiceFixture::set().await;
    let config = stage.config();
    let running = stage.start_as(config.clone()).await;
    let key = key_per_partition()[0].clone();
    stage.edge.publish::<Command>([Outgoing::new(key.as_str(), Count { amount: 1 })], PATIENCE).await.unwrap();
    stage.until_counted(1).await;
    until_consumed(&stage, &inbox(&stage)).await;
    assert!(running.stop().await);
    stage.edge.publish::<Command>([Outgoing::new(key.as_str(), Count { amount: 2 })], PATIENCE).await.unwrap();
    delete_all(&stage, &inbox(&stage)).await;
    let said = refused(&stage, config).await;
    let place = format!("{}/0 holds nothing, ending at 2", inbox(&stage));
    assert_produces(&said, &[&place, &format!("{} continues from offset 1", group(&stage)), "truncated"]);
    assert_eq!(stage.counted(), 1, "nothing is skipped silently");
}
