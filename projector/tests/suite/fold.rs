//! The fold: every outcome, every order of arrival, repeats, foreign records and floods.

use crate::support::{COMPLETED, DECLINED, JsonBodyDecoder, LOST, Log, SHORT, START_MS, TestRecord, folded};
use projector::{SagaView, api, query::SagaFilter};
use proptest::prelude::*;

fn one(view: &SagaView, id: &str) -> api::SagaSummary {
    let filter = SagaFilter { key: Some(id.to_owned()), ..SagaFilter::default() };
    let mut items = view.list(&filter, None, 10).expect("a valid filter").items;
    assert_eq!(items.len(), 1, "sagas of {id}");
    items.remove(0)
}

fn listed(view: &SagaView, key: &str, value: &str) -> Vec<String> {
    let mut filter = SagaFilter::default();
    filter.set(key, value).expect("a key");
    view.list(&filter, None, 100).expect("a valid filter").items.into_iter().map(|saga| saga.id).collect()
}

#[test]
fn every_outcome_settles_the_saga_and_leaves_no_step_owed() {
    for (events, state, outcome) in [
        (&COMPLETED[..], "completed", "completed"),
        (&LOST[..], "compensated", "lost"),
        (&SHORT[..], "compensated", "short"),
        (&DECLINED[..], "compensated", "declined"),
        (&["order-processor/OrderRejected"][..], "rejected", "rejected"),
    ] {
        let mut log = Log::default();
        let saga = one(&log.append_all("o-1", events).view(), "o-1");
        assert_eq!((saga.state.as_str(), saga.outcome.as_deref()), (state, Some(outcome)), "{events:?}");
        assert!(saga.settled && saga.waiting.is_empty() && saga.flags.is_empty(), "{saga:?}");
        assert!(saga.ended_at.is_some(), "{saga:?}");
    }
}

#[test]
fn no_saga_settles_before_its_last_event() {
    for events in [&COMPLETED[..19], &LOST[..18], &SHORT, &DECLINED] {
        let mut log = Log::default();
        let saga = one(&log.append_all("o-1", &events[..events.len() - 1]).view(), "o-1");
        assert!(!saga.settled, "{saga:?}");
        assert_eq!(saga.waiting.len(), 1, "{saga:?}");
        assert_eq!(saga.waiting[0].owner, "notifications", "{saga:?}");
    }
}

#[test]
fn a_cancelled_order_settles_only_after_stock_payment_and_notification() {
    for missing in
        ["warehouse/StockReleased", "payment/PaymentVoided", "notifications/CustomerNotified:ORDER_CANCELLED"]
    {
        let events: Vec<&str> = SHORT.into_iter().filter(|event| *event != missing).collect();
        let mut log = Log::default();
        let saga = one(&log.append_all("o-1", &events).view(), "o-1");
        assert_eq!((saga.state.as_str(), saga.settled), ("compensating", false), "without {missing}");
        assert_eq!(saga.waiting.len(), 1, "without {missing}: {:?}", saga.waiting);
    }
}

#[test]
fn a_mail_of_another_kind_does_not_settle_a_saga() {
    let mut events = SHORT.to_vec();
    events[8] = "notifications/CustomerNotified:ORDER_PAID";
    let saga = one(&Log::default().append_all("o-1", &events).view(), "o-1");
    assert_eq!((saga.settled, saga.waiting[0].step.as_str()), (false, "mail-cancelled"));
}

#[test]
fn an_undeliverable_mail_needs_a_person_and_starts_no_compensation() {
    let mut events = COMPLETED.to_vec();
    events[11] = "notifications/NotificationAbandoned:ORDER_PAID";
    let saga = one(&Log::default().append_all("o-1", &events).view(), "o-1");
    assert_eq!((saga.state.as_str(), saga.outcome.as_deref(), saga.settled), ("failed", Some("completed"), false));
    assert_eq!((saga.waiting.len(), saga.waiting[0].step.as_str()), (1, "mail-paid"));
    let saga = one(&Log::default().append_all("o-1", &events).append_all("o-1", &[COMPLETED[11]]).view(), "o-1");
    assert_eq!((saga.state.as_str(), saga.settled), ("completed", true));
}

#[test]
fn a_failure_that_needs_a_person_names_the_operator_command_until_it_is_resolved() {
    let mut log = Log::default();
    let saga =
        one(&log.append_all("o-1", &COMPLETED[..13]).append_all("o-1", &["warehouse/DispatchAbandoned"]).view(), "o-1");
    assert_eq!((saga.state.as_str(), saga.waiting[0].step.as_str()), ("failed", "dispatch"));
    assert!(saga.sentence.contains("RetryDispatch") && saga.sentence.contains("GiveUpOrder"), "{}", saga.sentence);
    let saga = one(&log.append_all("o-1", &COMPLETED[13..14]).view(), "o-1");
    assert_eq!((saga.state.as_str(), saga.waiting[0].step.as_str()), ("running", "ship"));

    let mut log = Log::default();
    let saga = one(&log.append_all("o-2", &LOST[..16]).append_all("o-2", &["payment/RefundFailed"]).view(), "o-2");
    assert_eq!((saga.state.as_str(), saga.waiting[0].step.as_str()), ("failed", "settle-payment"));
    assert!(saga.sentence.contains("RetryRefund"), "{}", saga.sentence);
    let saga = one(&log.append_all("o-2", &LOST[16..18]).view(), "o-2");
    assert_eq!((saga.state.as_str(), saga.outcome.as_deref(), saga.settled), ("compensated", Some("lost"), true));
}

#[test]
fn an_abandoned_dispatch_that_is_given_up_is_compensated() {
    let mut log = Log::default();
    log.append_all("o-1", &COMPLETED[..13]).append_all(
        "o-1",
        &[
            "warehouse/DispatchAbandoned",
            "order-processor/OrderCancelled:GIVEN_UP",
            "warehouse/StockReleased",
            "payment/PaymentRefunded",
            "notifications/CustomerNotified:ORDER_CANCELLED",
        ],
    );
    let saga = one(&log.view(), "o-1");
    assert_eq!((saga.state.as_str(), saga.outcome.as_deref(), saga.settled), ("compensated", Some("given-up"), true));
}

#[test]
fn two_outcomes_of_one_payment_are_a_contradiction() {
    let saga =
        one(&Log::default().append_all("o-1", &DECLINED).append_all("o-1", &["payment/PaymentVoided"]).view(), "o-1");
    assert_eq!((saga.state.as_str(), saga.settled), ("failed", false));
    assert!(saga.flags.contains(&"contradiction".to_owned()));
}

#[test]
fn a_saga_names_the_owed_step_its_owner_and_since_when() {
    let mut log = Log::default();
    let view = log.append_all("o-1", &COMPLETED[..12]).view();
    let saga = one(&view, "o-1");
    assert_eq!(saga.sentence, "Paid; waiting for the warehouse to package");
    assert_eq!((saga.waiting[0].step.as_str(), saga.waiting[0].owner.as_str()), ("package", "warehouse"));
    // Owed since OrderPaid, the eighth event.
    assert_eq!(saga.waiting[0].since, "2023-11-14T22:13:20.070Z");
    assert_eq!(listed(&view, "step", "package"), ["o-1"]);
    assert_eq!(listed(&view, "owner", "loyalty"), [""; 0]);
}

#[test]
fn after_a_failure_the_cancellation_is_owed() {
    let saga = one(&Log::default().append_all("o-1", &SHORT[..4]).view(), "o-1");
    assert_eq!((saga.state.as_str(), saga.waiting[0].step.as_str()), ("running", "cancel"));
    assert_eq!(saga.waiting[0].owner, "order-processor");
}

#[test]
fn a_step_is_stuck_once_the_watermark_passes_its_deadline_and_late_when_done_after_it() {
    let mut log = Log::default();
    log.append("o-1", 0, "order-processor/OrderPlaced");
    let mut view = log.view();
    view.commit(START_MS + 30_000);
    assert_eq!(listed(&view, "flag", "stuck"), [""; 0]);
    let before = view.revision();
    view.commit(START_MS + 30_001);
    assert!(view.revision() > before, "a reader that waits for changes must receive it");
    assert_eq!(listed(&view, "flag", "stuck"), ["o-1"]);
    log.append("o-1", 40_000, "warehouse/StockReserved").records[1].fold_into(&mut view);
    view.commit(START_MS + 40_000);
    assert_eq!(one(&view, "o-1").flags, ["late"]);
}

#[test]
fn undeclared_records_appear_in_the_timeline() {
    let view = Log::default().append_all("o-1", &COMPLETED).view();
    let saga: serde_json::Value =
        serde_json::from_str(&view.canonical("order-fulfilment", "o-1").expect("the saga exists")).unwrap();
    let last = &saga["timeline"][20];
    assert_eq!(last["event"], "com.musiccorp.elsewhere.OrderAudited");
    assert_eq!(
        (&last["declared"], &last["cause_event"]),
        (&false.into(), &"com.musiccorp.warehouse.ItemShipped".into())
    );
    assert_eq!((&last["schema_id"], &last["build"], &last["sequence"]), (&7.into(), &"test".into(), &1.into()));
}

#[test]
fn a_dead_letter_is_shown_but_completes_no_step() {
    let mut log = Log::default();
    log.append_all("o-1", &COMPLETED[..5]).dead_letter_last("musiccorp.payment");
    let copy = log.records.pop().expect("the copy");
    log.records.pop();
    let mut view = log.view();
    copy.fold_into(&mut view);
    view.commit(0);
    let saga = one(&view, "o-1");
    assert_eq!(saga.waiting[0].step, "reserve", "the copy of StockReserved must not complete the step");
    assert_eq!(saga.flags, ["dead-letter"]);
}

#[test]
fn a_hole_in_a_sequence_or_a_missing_start_event_is_a_gap() {
    let mut log = Log::default();
    log.append_all("o-1", &COMPLETED[..5]).records.remove(3);
    assert_eq!(one(&log.view(), "o-1").flags, ["gap"]);
    let mut log = Log::default();
    log.append_all("o-1", &COMPLETED[..5]).records.remove(0);
    assert_eq!(one(&log.view(), "o-1").flags, ["gap"]);
}

#[test]
fn records_in_no_saga_are_counted_and_listed() {
    let mut log = Log::default();
    log.append_all("o-1", &["order-processor/OrderPlaced"; 5]);
    let fine = log.records[0].clone();
    let record = vec![
        fine.clone().without_header("ce_correlationid"),
        fine.clone().without_header("ce_type").with_header("content-type", "text/plain"),
        fine.clone().with_header("ce_type", &"x".repeat(300)),
        TestRecord { value: b"{}".to_vec(), ..fine.clone() },
        fine.clone(),
        log.append_all("o-2", &["notifications/CustomerNotified:X"])
            .records
            .last()
            .map(|record| TestRecord { value: vec![0, 0, 0, 0, 1, b'{'], ..record.clone() })
            .expect("a record"),
    ];
    let view = folded(&record);
    let counts: Vec<u64> = view.unplaced_counts().into_iter().map(|(_, count)| count).collect();
    // The type of the second record is in its body, and its correlation id in a header, so it belongs to a saga.
    assert_eq!(counts, [1, 0, 1, 2, 0]);
    assert_eq!((view.sagas(), view.unplaced().count()), (1, 4));
}

#[test]
fn an_unavailable_body_leaves_the_view_unchanged() {
    struct UnavailableDecoder;
    impl projector::record::BodyDecoder for UnavailableDecoder {
        fn decode(&self, _: &[u8]) -> Result<projector::record::DecodedBody, projector::record::BodyError> {
            Err(projector::record::BodyError::Unavailable("the registry does not answer".to_owned()))
        }
    }
    let mut log = Log::default();
    let record = log.append_all("o-1", &["notifications/CustomerNotified:ORDER_PAID"]).records[0].clone();
    let headers: Vec<(&str, &[u8])> = record.headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
    let record = projector::record::ProjectedRecord {
        topic: &record.topic,
        partition: 0,
        offset: 0,
        at_ms: 1,
        key: None,
        headers: &headers,
        value: Some(&record.value),
        readable: true,
    };
    let mut view = folded([]);
    assert!(view.fold(&record, false, &UnavailableDecoder).is_err());
    assert_eq!((view.records(), view.positions().len()), (0, 0));
    view.fold(&record, false, &JsonBodyDecoder).expect("the body is available");
    view.commit(0);
    assert_eq!(view.sagas(), 1);
}

#[test]
fn a_flood_of_records_under_one_id_is_bounded_and_hides_no_declared_event() {
    let mut log = Log::default();
    log.append("o-1", 0, "order-processor/OrderPlaced");
    for at_ms in 1..3_000 {
        log.append("o-1", at_ms, "elsewhere/Noise");
    }
    log.append("o-1", 4_000, "warehouse/StockReserved");
    let saga = one(&log.view(), "o-1");
    assert_eq!((saga.records, saga.waiting[0].step.as_str()), (513, "pay"));
    assert_eq!(saga.flags, ["truncated"]);
    let mut backwards = log.records.clone();
    backwards.reverse();
    let name = "order-fulfilment";
    assert_eq!(folded(&backwards).canonical(name, "o-1"), log.view().canonical(name, "o-1"));
}

#[test]
fn lists_page_through_every_saga_once_and_match_the_counts() {
    let mut log = Log::default();
    for number in 0..97 {
        let events: &[&str] = match number % 4 {
            0 => &COMPLETED,
            1 => &SHORT,
            2 => &LOST[..12],
            _ => &COMPLETED[..6],
        };
        log.append_all(&format!("o-{number}"), events);
    }
    let view = log.view();
    for (key, value) in [
        ("state", "completed,compensated"),
        ("outcome", "short"),
        ("step", "pay"),
        ("owner", "payment,warehouse"),
        ("saga", "order-fulfilment"),
    ] {
        let mut filter = SagaFilter::default();
        filter.set(key, value).expect("a key");
        let (mut seen, mut before) = (Vec::new(), None);
        loop {
            let page = view.list(&filter, before, 7).expect("a valid filter");
            seen.extend(page.items.into_iter().map(|saga| (saga.revision, saga.id)));
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        let all = view.list(&filter, None, 500).expect("a valid filter").items;
        assert_eq!(seen, all.iter().map(|saga| (saga.revision, saga.id.clone())).collect::<Vec<_>>(), "{key}={value}");
        assert!(seen.windows(2).all(|pair| pair[0].0 > pair[1].0), "{key}={value}");
    }
    let counts = view.counts().remove(0);
    assert_eq!((counts.total, counts.open), (97, 48));
    assert_eq!((counts.states["completed"], counts.outcomes["short"], counts.waiting["pay"]), (25, 24, 24));
}

#[test]
fn changes_contain_each_saga_once_and_report_sagas_that_no_longer_match() {
    let mut log = Log::default();
    log.append_all("o-1", &COMPLETED[..6]).append_all("o-2", &COMPLETED[..6]);
    let mut view = log.view();
    let filter = SagaFilter { step: Some("pay".to_owned()), ..SagaFilter::default() };
    let (changes, next) = view.changes(&filter, 0, 10).expect("a valid filter");
    assert_eq!((changes.len(), next), (2, view.revision()));
    log.append_all("o-1", &["payment/PaymentTaken"]).records.last().expect("a record").fold_into(&mut view);
    view.commit(0);
    let (changes, _) = view.changes(&filter, next, 10).expect("a valid filter");
    assert!(matches!(&changes[..], [api::SagaChange::Left { id, .. }] if id == "o-1"), "{changes:?}");
}

#[test]
fn an_unknown_filter_value_suggests_the_nearest_one() {
    let view = folded([]);
    let wrong = |key: &str, value: &str| {
        let mut filter = SagaFilter::default();
        filter.set(key, value).and_then(|()| view.list(&filter, None, 1).map(drop)).expect_err("wrong").to_string()
    };
    assert_eq!(wrong("stat", "running"), "\"stat\" is not a filter; did you mean \"state\"?");
    assert_eq!(wrong("state", "runing"), "\"runing\" is not a known state; did you mean \"running\"?");
    assert_eq!(wrong("step", "pakage"), "\"pakage\" is not a known step; did you mean \"package\"?");
    assert_eq!(
        wrong("saga", "returns-xyzw"),
        "\"returns-xyzw\" is not a known saga: order-fulfilment, customer-onboarding"
    );
}

#[test]
fn a_foreign_choreography_is_correlated_by_a_body_field_and_typed_by_its_schema() {
    let text = r#"
        name = "shop"
        title = "Shop"
        start = ["Placed"]
        topics = ["orders"]
        [correlation.fields]
        "shop.Placed" = "order.number"
        "shop.Sent" = "order.number"
        [owners]
        shop = "the shop"
        [[step]]
        id = "send"
        title = "Sent"
        owner = "shop"
        completed_by = ["Sent"]
        deadline = "1h"
        [[outcome]]
        name = "sent"
        kind = "completed"
        when = ["Sent"]
        settled_by = ["send"]
        sentence = "Sent"
    "#;
    let declaration = projector::Declaration::parse("shop.toml", text).expect("a valid declaration");
    let mut view = SagaView::new(&[declaration], 1).expect("one declaration has no conflict");
    for (offset, name) in [(0, "com.shop.Placed"), (1, "com.shop.Sent")] {
        let mut value = vec![0, 0, 0, 0, 3];
        value.extend(format!(r#"{{"type":"{name}","order":{{"number":42}}}}"#).into_bytes());
        let record = projector::record::ProjectedRecord {
            topic: "orders",
            partition: 0,
            offset,
            at_ms: START_MS,
            key: None,
            headers: &[],
            value: Some(&value),
            readable: true,
        };
        view.fold(&record, false, &JsonBodyDecoder).expect("bodies are available");
    }
    view.commit(START_MS);
    let saga = one(&view, "42");
    assert_eq!((saga.state.as_str(), saga.records), ("completed", 2));
}

/// Events of several orders in any interleaving, some of them repeated.
fn shuffled() -> impl Strategy<Value = (Vec<TestRecord>, Vec<TestRecord>)> {
    let mut log = Log::default();
    log.append_all("o-1", &COMPLETED).append_all("o-2", &LOST).append_all("o-3", &SHORT).append_all("o-4", &DECLINED);
    log.dead_letter_last("musiccorp.payment");
    // Many records have the same timestamp.
    for record in &mut log.records {
        record.at_ms -= record.at_ms % 40;
    }
    let records = log.records;
    let twice: Vec<TestRecord> = records.iter().cloned().chain(records.iter().map(repeated)).collect();
    let chosen = proptest::collection::vec(any::<bool>(), records.len());
    (Just(twice).prop_shuffle(), chosen).prop_map(move |(twice, chosen)| {
        let keep = |record: &TestRecord| {
            record.offset < REPEATED_AT || {
                let index = records
                    .iter()
                    .position(|records| records.topic == record.topic && records.offset == record.offset - REPEATED_AT);
                chosen[index.expect("every repeat repeats something")]
            }
        };
        (records.clone(), twice.into_iter().filter(keep).collect())
    })
}

const REPEATED_AT: i64 = 1_000_000;

/// A repeat of an event, later in its topic.
fn repeated(record: &TestRecord) -> TestRecord {
    TestRecord { offset: record.offset + REPEATED_AT, at_ms: record.at_ms + 7, ..record.clone() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_with_repeats_gives_the_same_sagas(
        (records, received) in shuffled(),
        batch in 1_usize..40,
    ) {
        let expected = folded(&records);
        let mut view = folded([]);
        for batch in received.chunks(batch) {
            batch.iter().for_each(|record| record.fold_into(&mut view));
            view.commit(0);
        }
        view.commit(expected.watermark_ms());
        for id in ["o-1", "o-2", "o-3", "o-4"] {
            prop_assert_eq!(view.canonical("order-fulfilment", id), expected.canonical("order-fulfilment", id));
        }
        prop_assert_eq!(view.counts(), expected.counts());
    }
}
