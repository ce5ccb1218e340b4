//! A rolling upgrade: a partition whose log has an event of a newer build comes to an older one.

use runtime::{Channel, envelope::derived_id};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_build_holds_a_partition_with_an_event_that_it_does_not_have_and_goes_on_with_the_others() {
    let stage = ServiceFixture::set().await;
    let running = stage.start().await;
    let keys = key_per_partition();
    stage.pings(keys.iter().map(|key| (key.as_str(), key.as_str(), "count", 1))).await;
    stage.until_counted(2).await;
    assert!(running.stop().await);
    let system = stage.cluster.config.system.clone();
    let name = format!("com.{system}.probe.Shipped");
    let text = format!(r#"{{"type":"record","name":"Shipped","namespace":"com.{system}.probe","fields":[]}}"#);
    let schema = stage.cluster.registry.register(&name, &text).unwrap();
    let envelope = Envelope::new(derived_id(&["newer"]), format!("/{system}/probe"), name.as_str(), 1_760_000_000_000);
    let envelope = Envelope { sequence: Some(2), build: Some("build-2".into()), ..envelope.about(keys[0].as_str()) };
    let mut headers = Vec::new();
    envelope.for_each_header(|name, value| headers.push((name.to_owned(), value.to_owned())));
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let value = [&[0][..], &schema.to_be_bytes()].concat();
    let events = stage.topic("probe", Channel::Events);
    stage.put(&events, 0, Some(keys[0].as_bytes()), Some(&value), &headers);
    let running = start(stage.config(), stage.probe.clone(), stage.world.clone(), axum::Router::new()).await.unwrap();
    let said =
        stage.until("a held partition", |_| Some(running.health().text).filter(|text| text.contains(&name))).await;
    let place = stage.read(&events).into_iter().filter(|event| event.partition == 0).map(|event| event.offset).max();
    for part in
        [&format!("{events}/0/{}", place.unwrap()), &format!("schema {schema}"), "build-2", "docs/operations.md"]
    {
        assert!(said.contains(part), "{part:?} is not in {said:?}");
    }
    stage.ping(&keys[1], &keys[1], "count", 5).await;
    stage.ping(&keys[0], &keys[0], "count", 100).await;
    stage
        .until("the other partition goes on", |stage| {
            let counted = stage.events().iter().filter(|event| event.partition == 1).count();
            (counted == 2).then_some(())
        })
        .await;
    let health = running.health();
    assert!(health.is_live && running.deciding() == 1, "{}", health.text);
    assert_eq!(stage.events().iter().filter(|event| event.partition == 0).count(), 2, "nothing is decided without it");
    assert!(running.stop().await);
}
