//! Panics of the author's code in a running service. A record over which it panics is parked after five crashes, other entities and
//! other partitions are decided about meanwhile, `/readyz` shows the position and the reason, and no client is left behind.

use super::*;
use probe::{
    PANICS_IN_EFFECT_KEY, PANICS_IN_EVOLVE, PANICS_IN_PENDING, PANICS_IN_SERIALIZE_OF_EVENT,
    PANICS_IN_SERIALIZE_OF_STATE, PANICS_IN_WAKE_AT,
    adder::{Adder, DEFAULT_PANICS},
};

/// What the record tells the probe to do, and the reason that is reported.
struct PanickingRecord {
    mode: &'static str,
    amount: i64,
    reason: &'static str,
}

/// How many members the group of the service has. A consumer that nobody closed would still be one.
fn members(fixture: &ServiceFixture) -> usize {
    let asker: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &fixture.cluster.config.bootstrap).create().unwrap();
    let group = runtime::kafka::client::group(&fixture.cluster.config.system, "probe");
    let groups = asker.fetch_group_list(Some(&group), PATIENCE).unwrap();
    groups.groups().iter().map(|group| group.members().len()).sum()
}

/// Five crashes take a while: after each the service starts again from the log, and the record rests.
async fn until_parked(fixture: &ServiceFixture, place: &str) -> BTreeMap<String, Option<String>> {
    let deadline = Instant::now() + 3 * PATIENCE;
    loop {
        let parked = tokio::task::block_in_place(|| fixture.parked());
        if parked.contains_key(place) || Instant::now() > deadline {
            return parked;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn assert_parked_after_five_crashes(bad: PanickingRecord) {
    let mut fixture = ServiceFixture::set().await;
    fixture.probe.keyed_alike = true;
    fixture.probe.fragile.store(true, Ordering::SeqCst);
    let running = fixture.start().await;
    let keys = key_per_partition();
    let (order, other) = (keys[0].as_str(), keys[1].as_str());
    let neighbour = (0..).map(|n| format!("n-{n}")).find(|key| partition_of(key.as_bytes(), 2) == 0).unwrap();
    fixture.ping(order, order, bad.mode, bad.amount).await;
    fixture
        .pings([
            (order, order, "count", 10),
            (neighbour.as_str(), neighbour.as_str(), "count", 1),
            (other, other, "count", 100),
        ])
        .await;
    let place = format!("{}/0/0", fixture.topic("source", runtime::Channel::Events));
    fixture
        .until("the position and the reason", |_| {
            let health = running.health();
            assert!(health.is_live, "{}", health.text);
            let is_shown = health.text.contains(&place) && health.text.contains(bad.reason);
            (health.is_ready && health.is_degraded && is_shown).then_some(())
        })
        .await;
    fixture.until_counted(100).await;
    let parked = until_parked(&fixture, &place).await;
    assert_eq!(parked.get(&place), Some(&Some("crash".to_owned())), "{parked:?}: {}", running.health().text);
    fixture.until_counted(101).await;
    let both = fixture.until("the record behind it to wait", |fixture| Some(fixture.parked()).filter(|p| p.len() == 2));
    both.await;
    tokio::time::timeout(PATIENCE, running.ready()).await.expect("ready again").unwrap();
    assert_eq!((fixture.counted(), tokio::task::block_in_place(|| members(&fixture))), (101, 1));
    assert!(running.stop().await, "it ends in time");
    assert_whole(&fixture.events());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_over_which_decide_panics_is_parked() {
    let reason = "decide panicked: injected panic in decide";
    assert_parked_after_five_crashes(PanickingRecord { mode: "panic", amount: 1, reason }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_over_which_evolve_panics_is_parked() {
    let reason = "evolve panicked: injected panic in evolve";
    assert_parked_after_five_crashes(PanickingRecord { mode: "count", amount: PANICS_IN_EVOLVE, reason }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_over_which_entity_panics_is_parked() {
    let reason = "entity panicked: injected panic in entity";
    assert_parked_after_five_crashes(PanickingRecord { mode: "panic-in-entity", amount: 1, reason }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_over_which_pending_panics_is_parked() {
    let reason = "pending panicked: injected panic in pending";
    assert_parked_after_five_crashes(PanickingRecord { mode: "ask", amount: PANICS_IN_PENDING, reason }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_over_which_wake_at_panics_is_parked() {
    let reason = "wake_at panicked: injected panic in wake_at";
    assert_parked_after_five_crashes(PanickingRecord { mode: "wake", amount: PANICS_IN_WAKE_AT, reason }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_over_which_the_key_of_an_effect_panics_is_parked() {
    let reason = "Effect::key panicked: injected panic in Effect::key";
    assert_parked_after_five_crashes(PanickingRecord { mode: "ask", amount: PANICS_IN_EFFECT_KEY, reason }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_whose_event_panics_when_it_is_written_is_parked() {
    let reason = "an event cannot be written: Serialize panicked";
    assert_parked_after_five_crashes(PanickingRecord { mode: "count", amount: PANICS_IN_SERIALIZE_OF_EVENT, reason })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_panics_when_it_is_saved_costs_nothing_but_its_checkpoint() {
    let (fixture, data) = (ServiceFixture::set().await, tempfile::tempdir().unwrap());
    let config = Config { data_dir: Some(data.path().to_owned()), instance: Some("a".to_owned()), ..fixture.config() };
    let key = key_per_partition()[0].clone();
    for round in 1..=2 {
        let running = fixture.start_as(config.clone()).await;
        let before = fixture.events().len();
        fixture.ping(&key, &key, "count", PANICS_IN_SERIALIZE_OF_STATE).await;
        fixture.until("its event", |fixture| (fixture.events().len() == before + 1).then_some(())).await;
        assert!(running.health().is_ready, "{}", running.health().text);
        assert!(running.stop().await, "the last checkpoint is not saved, in round {round}");
    }
    assert_whole(&fixture.events());
}

/// Nothing is asked of it.
struct NoPerformer;

impl Perform<Adder> for NoPerformer {
    async fn perform(&self, _: Due<Request>) -> Result<Answer<Command>, Unanswered> {
        Err(Unanswered::new("nothing is asked"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_default_state_that_panics_parks_the_record_and_refuses_the_partition_that_recovers() {
    let fixture = ServiceFixture::set().await;
    let begin = || start(fixture.config(), Adder, NoPerformer, axum::Router::new());
    let keys = key_per_partition();
    let running = begin().await.unwrap();
    fixture.ping(&keys[0], &keys[0], "count", 1).await;
    fixture.until_counted(1).await;
    DEFAULT_PANICS.store(true, Ordering::SeqCst);
    fixture.ping(&keys[1], &keys[1], "count", 10).await;
    let place = format!("{}/1/0", fixture.topic("source", runtime::Channel::Events));
    let reason = "State::default panicked: injected panic";
    fixture
        .until("the position and the reason", |_| {
            let text = running.health().text;
            (text.contains(&place) && text.contains(reason)).then_some(())
        })
        .await;
    // The source's keys are said to be those of the entities.
    assert_eq!(until_parked(&fixture, &place).await.get(&place), Some(&Some("crash".to_owned())));
    assert!(running.stop().await);
    let running = begin().await.unwrap();
    let expected =
        format!("own log at {}/0/0 cannot be folded: {reason}", fixture.topic("probe", runtime::Channel::Events));
    fixture.until("a refused partition", |_| running.health().text.contains(&expected).then_some(())).await;
    assert!(running.health().is_live && running.stop().await);
    DEFAULT_PANICS.store(false, Ordering::SeqCst);
    let running = begin().await.unwrap();
    fixture.ask(&keys[1], RetryParked { position: place, by: "ada".to_owned() });
    fixture.until_counted(11).await;
    assert!(running.stop().await);
    assert_whole(&fixture.events());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_keys_with_that_panics_refuses_the_start_by_name() {
    let fixture = ServiceFixture::set().await;
    let probe = Probe { panics_in_shares_keys_with: true, ..Probe::default() };
    let refused = start(fixture.config(), probe, fixture.world.clone(), axum::Router::new()).await;
    let reason = runtime::telemetry::chain(&refused.err().expect("a refusal"));
    let expected =
        "service probe cannot tell whether it shares keys with source: shares_keys_with panicked: injected panic";
    assert!(reason.contains(expected), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovered_state_over_which_the_decider_panics_refuses_its_partition_by_name() {
    for (mode, amount, what) in [("ask", PANICS_IN_PENDING, "pending"), ("wake", PANICS_IN_WAKE_AT, "wake_at")] {
        let fixture = ServiceFixture::set().await;
        fixture.world.silent.store(true, Ordering::SeqCst);
        let running = fixture.start().await;
        let keys = key_per_partition();
        fixture.ping(&keys[0], &keys[0], mode, amount).await;
        fixture.until("its event", |fixture| (fixture.events().len() == 1).then_some(())).await;
        assert!(running.stop().await);
        fixture.probe.fragile.store(true, Ordering::SeqCst);
        let running =
            start(fixture.config(), fixture.probe.clone(), fixture.world.clone(), axum::Router::new()).await.unwrap();
        let own_log = fixture.topic("probe", runtime::Channel::Events);
        let expected = format!(
            "state of entity {} in {own_log}/0 cannot be used: {what} panicked: injected panic in {what}",
            keys[0]
        );
        fixture
            .until("a refused partition", |_| {
                let health = running.health();
                assert!(health.is_live, "{}", health.text);
                (health.is_ready && health.is_degraded && health.text.contains(&expected)).then_some(())
            })
            .await;
        fixture.pings(keys.iter().map(|key| (key.as_str(), key.as_str(), "count", 1))).await;
        fixture.until_counted(1).await;
        assert_eq!(running.deciding(), 1, "the other partition decides");
        assert!(running.stop().await);
        fixture.probe.fragile.store(false, Ordering::SeqCst);
        let running = fixture.start().await;
        fixture.until_counted(2).await;
        assert!(running.stop().await);
        assert_whole(&fixture.events());
    }
}
