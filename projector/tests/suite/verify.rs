//! Verification of a live view against a rebuilt one: equal views match, and every planted difference is found and named.

use projector::{SagaView, digest::SetDigest, verification};

use crate::{
    http::Served,
    support::{COMPLETED, LOST, Log, SHORT, TestRecord, folded},
};

fn sagas() -> Log {
    let mut log = Log::default();
    log.append_all("o-1", &COMPLETED)
        .append_all("o-2", &LOST)
        .append_all("o-3", &SHORT)
        .append_all("o-4", &COMPLETED[..7]);
    log
}

/// Compares a live view of the records `live` with the view `rebuilt`.
async fn compared(live: &Log, rebuilt: &SagaView) -> verification::ViewComparison {
    let served = Served::start(live).await;
    let frozen = verification::LiveSnapshot::read(&served.client).await.expect("a snapshot");
    verification::compare(&served.client, frozen, rebuilt).await.expect("a comparison")
}

#[tokio::test]
async fn equal_views_match_in_any_order_of_reading() {
    let log = sagas();
    let mut backwards = log.records.clone();
    backwards.reverse();
    let comparison = compared(&log, &folded(&backwards)).await;
    assert!(comparison.agrees(), "{comparison}");
    assert_eq!((comparison.sagas, comparison.differing), (4, 0));
    assert_ne!(comparison.digest, SetDigest::default().to_string());
    assert!(comparison.to_string().contains("the view matches the topics: 4 sagas from 56 records"), "{comparison}");
}

#[tokio::test]
async fn a_planted_difference_is_reported_with_saga_field_and_both_values() {
    let records = sagas().records;
    let payment = records
        .iter()
        .position(|record| record.topic.contains("payment") && record.key == "o-4")
        .expect("the record exists");
    let changed = |change: &dyn Fn(&mut Vec<TestRecord>)| {
        let mut record = records.clone();
        change(&mut record);
        folded(&record)
    };
    for (rebuilt, id, field) in [
        (changed(&|record| drop(record.remove(payment))), "o-4", "/timeline/1/event"),
        (changed(&|record| record[payment].at_ms += 1), "o-4", "/timeline/1/at"),
        (changed(&|record| record[payment].offset += 1), "o-4", "/timeline/1/offset"),
        (changed(&|record| record.retain(|record| record.key != "o-3")), "o-3", ""),
        (
            changed(&|record| record[0] = record[0].clone().with_header("ce_build", "another")),
            "o-1",
            "/timeline/0/build",
        ),
    ] {
        let comparison = compared(&sagas(), &rebuilt).await;
        let first = comparison.first.clone().expect("a difference");
        assert!(!comparison.agrees() && comparison.differing == 1, "{comparison}");
        assert_eq!((first.saga.as_str(), first.id.as_str()), ("order-fulfilment", id), "{comparison}");
        assert!(first.field.ends_with(field) && first.live != first.rebuilt, "{comparison}");
        assert_ne!(comparison.digest, comparison.live_digest);
    }
}

#[tokio::test]
async fn a_saga_that_only_the_rebuilt_view_has_is_a_difference() {
    let mut more = sagas();
    more.append_all("o-5", &["order-processor/OrderRejected"]);
    let comparison = compared(&sagas(), &more.view()).await;
    let first = comparison.first.expect("a difference");
    assert_eq!((first.id.as_str(), first.live.as_str(), first.rebuilt.as_str()), ("o-5", "absent", "present"));
}

#[tokio::test]
async fn a_live_view_that_continues_is_compared_as_of_its_snapshot() {
    let mut log = sagas();
    let served = Served::start(&log).await;
    let frozen = verification::LiveSnapshot::read(&served.client).await.expect("a snapshot");
    let before = folded(&log.records);
    for record in
        log.append_all("o-4", &["order-processor/OrderPaid"]).append_all("o-6", &COMPLETED).records.iter().skip(56)
    {
        served.board.write(|view| record.fold_into(view));
    }
    served.board.write(|view| view.commit(0));
    let comparison = verification::compare(&served.client, frozen.clone(), &before).await.expect("a comparison");
    assert!(comparison.agrees(), "{comparison}");
    // A difference in a saga that has continued is shown as of the frozen offsets.
    let mut record = sagas().records;
    record.retain(|record| {
        !record.headers.iter().any(|(_, value)| value.ends_with("payment.PaymentTaken") && record.key == "o-4")
    });
    let comparison = verification::compare(&served.client, frozen, &folded(&record)).await.expect("a comparison");
    let first = comparison.first.expect("a difference");
    assert_eq!(first.id, "o-4");
    assert!(!mentions_later_event(&first), "{first:?}");
}

/// OrderPaid was appended after the snapshot was frozen.
fn mentions_later_event(first: &verification::ViewDifference) -> bool {
    first.live.contains("OrderPaid") || first.rebuilt.contains("OrderPaid")
}
