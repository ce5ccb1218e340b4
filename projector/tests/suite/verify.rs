//! A live view against one that is folded anew: equal ones agree, every planted difference is found and named.

use projector::{View, digest::SetDigest, verification};

use crate::{
    http::Served,
    support::{COMPLETED, LOST, Log, SHORT, Said, folded},
};

fn story() -> Log {
    let mut log = Log::default();
    log.tell("o-1", &COMPLETED).tell("o-2", &LOST).tell("o-3", &SHORT).tell("o-4", &COMPLETED[..7]);
    log
}

/// What the comparison says of a live view of `live` and a rebuilt one of `rebuilt`.
async fn compared(live: &Log, rebuilt: &View) -> verification::Verdict {
    let served = Served::start(live).await;
    let frozen = verification::Frozen::read(&served.client).await.expect("a snapshot");
    verification::compare(&served.client, frozen, rebuilt).await.expect("a verdict")
}

#[tokio::test]
async fn equal_views_agree_whatever_the_order_they_were_read_in() {
    let log = story();
    let mut backwards = log.said.clone();
    backwards.reverse();
    let verdict = compared(&log, &folded(&backwards)).await;
    assert!(verdict.agrees(), "{verdict}");
    assert_eq!((verdict.sagas, verdict.differing), (4, 0));
    assert_ne!(verdict.digest, SetDigest::default().to_string());
    assert!(verdict.to_string().contains("the view agrees with the topics: 4 sagas from 56 records"), "{verdict}");
}

#[tokio::test]
async fn planted_differences_are_found_with_saga_field_and_both_values() {
    let told = story().said;
    let payment = told.iter().position(|said| said.topic.contains("payment") && said.key == "o-4").expect("there");
    let changed = |change: &dyn Fn(&mut Vec<Said>)| {
        let mut said = told.clone();
        change(&mut said);
        folded(&said)
    };
    for (rebuilt, id, field) in [
        (changed(&|said| drop(said.remove(payment))), "o-4", "/timeline/1/event"),
        (changed(&|said| said[payment].at_ms += 1), "o-4", "/timeline/1/at"),
        (changed(&|said| said[payment].offset += 1), "o-4", "/timeline/1/offset"),
        (changed(&|said| said.retain(|said| said.key != "o-3")), "o-3", ""),
        (changed(&|said| said[0] = said[0].clone().with_header("ce_build", "another")), "o-1", "/timeline/0/build"),
    ] {
        let verdict = compared(&story(), &rebuilt).await;
        let first = verdict.first.clone().expect("a difference");
        assert!(!verdict.agrees() && verdict.differing == 1, "{verdict}");
        assert_eq!((first.saga.as_str(), first.id.as_str()), ("order-fulfilment", id), "{verdict}");
        assert!(first.field.ends_with(field) && first.live != first.rebuilt, "{verdict}");
        assert_ne!(verdict.digest, verdict.live_digest);
    }
}

#[tokio::test]
async fn a_saga_that_only_the_rebuilt_view_has_is_a_difference() {
    let mut more = story();
    more.tell("o-5", &["order-processor/OrderRejected"]);
    let verdict = compared(&story(), &more.view()).await;
    let first = verdict.first.expect("a difference");
    assert_eq!((first.id.as_str(), first.live.as_str(), first.rebuilt.as_str()), ("o-5", "is not there", "is there"));
}

#[tokio::test]
async fn a_live_view_that_goes_on_is_compared_as_it_was() {
    let mut log = story();
    let served = Served::start(&log).await;
    let frozen = verification::Frozen::read(&served.client).await.expect("a snapshot");
    let before = folded(&log.said);
    for said in log.tell("o-4", &["order-processor/OrderPaid"]).tell("o-6", &COMPLETED).said.iter().skip(56) {
        served.board.write(|view| said.fold_into(view));
    }
    served.board.write(|view| view.commit(0));
    let verdict = verification::compare(&served.client, frozen.clone(), &before).await.expect("a verdict");
    assert!(verdict.agrees(), "{verdict}");
    // A difference in a saga that has gone on is still shown as it was at the frozen offsets.
    let mut said = story().said;
    said.retain(|said| {
        !said.headers.iter().any(|(_, value)| value.ends_with("payment.PaymentTaken") && said.key == "o-4")
    });
    let verdict = verification::compare(&served.client, frozen, &folded(&said)).await.expect("a verdict");
    let first = verdict.first.expect("a difference");
    assert_eq!(first.id, "o-4");
    assert!(!verdict_mentions_what_came_later(&first), "{first:?}");
}

/// OrderPaid was said after the snapshot was frozen.
fn verdict_mentions_what_came_later(first: &verification::Difference) -> bool {
    first.live.contains("OrderPaid") || first.rebuilt.contains("OrderPaid")
}
