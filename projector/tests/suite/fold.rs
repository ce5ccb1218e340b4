//! What the view makes of records: every end, every order of arrival, repeats, strangers, floods.

use crate::support::{COMPLETED, DECLINED, JsonBodies, LOST, Log, SHORT, START_MS, Said, folded};
use projector::{View, api, query::Filter};
use proptest::prelude::*;

fn one(view: &View, id: &str) -> api::Saga {
    let filter = Filter { key: Some(id.to_owned()), ..Filter::default() };
    let mut items = view.list(&filter, None, 10).expect("a fine filter").items;
    assert_eq!(items.len(), 1, "sagas of {id}");
    items.remove(0)
}

fn listed(view: &View, key: &str, value: &str) -> Vec<String> {
    let mut filter = Filter::default();
    filter.set(key, value).expect("a key");
    view.list(&filter, None, 100).expect("a fine filter").items.into_iter().map(|saga| saga.id).collect()
}

#[test]
fn every_end_is_reached_and_nothing_is_owed_then() {
    for (events, state, outcome) in [
        (&COMPLETED[..], "completed", "completed"),
        (&LOST[..], "compensated", "lost"),
        (&SHORT[..], "compensated", "short"),
        (&DECLINED[..], "compensated", "declined"),
        (&["order-processor/OrderRejected"][..], "rejected", "rejected"),
    ] {
        let mut log = Log::default();
        let saga = one(&log.tell("o-1", events).view(), "o-1");
        assert_eq!((saga.state.as_str(), saga.outcome.as_deref()), (state, Some(outcome)), "{events:?}");
        assert!(saga.settled && saga.waiting.is_empty() && saga.flags.is_empty(), "{saga:?}");
        assert!(saga.ended_at.is_some(), "{saga:?}");
    }
}

#[test]
fn no_end_is_reached_before_its_last_event() {
    for events in [&COMPLETED[..19], &LOST[..18], &SHORT, &DECLINED] {
        let mut log = Log::default();
        let saga = one(&log.tell("o-1", &events[..events.len() - 1]).view(), "o-1");
        assert!(!saga.settled, "{saga:?}");
        assert_eq!(saga.waiting.len(), 1, "{saga:?}");
        assert_eq!(saga.waiting[0].owner, "notifications", "{saga:?}");
    }
}

#[test]
fn a_cancelled_order_is_settled_only_when_stock_payment_and_customer_are() {
    for missing in
        ["warehouse/StockReleased", "payment/PaymentVoided", "notifications/CustomerNotified:ORDER_CANCELLED"]
    {
        let events: Vec<&str> = SHORT.into_iter().filter(|event| *event != missing).collect();
        let mut log = Log::default();
        let saga = one(&log.tell("o-1", &events).view(), "o-1");
        assert_eq!((saga.state.as_str(), saga.settled), ("compensating", false), "without {missing}");
        assert_eq!(saga.waiting.len(), 1, "without {missing}: {:?}", saga.waiting);
    }
}

#[test]
fn a_mail_of_another_kind_does_not_settle_it() {
    let mut events = SHORT.to_vec();
    events[8] = "notifications/CustomerNotified:ORDER_PAID";
    let saga = one(&Log::default().tell("o-1", &events).view(), "o-1");
    assert_eq!((saga.settled, saga.waiting[0].step.as_str()), (false, "mail-cancelled"));
}

#[test]
fn a_mail_that_cannot_be_delivered_needs_a_person_and_undoes_nothing() {
    let mut events = COMPLETED.to_vec();
    events[11] = "notifications/NotificationAbandoned:ORDER_PAID";
    let saga = one(&Log::default().tell("o-1", &events).view(), "o-1");
    assert_eq!((saga.state.as_str(), saga.outcome.as_deref(), saga.settled), ("failed", Some("completed"), false));
    assert_eq!((saga.waiting.len(), saga.waiting[0].step.as_str()), (1, "mail-paid"));
    let saga = one(&Log::default().tell("o-1", &events).tell("o-1", &[COMPLETED[11]]).view(), "o-1");
    assert_eq!((saga.state.as_str(), saga.settled), ("completed", true));
}

#[test]
fn what_only_a_person_can_put_right_says_what_to_do_until_it_is_done() {
    let mut log = Log::default();
    let saga = one(&log.tell("o-1", &COMPLETED[..13]).tell("o-1", &["warehouse/DispatchAbandoned"]).view(), "o-1");
    assert_eq!((saga.state.as_str(), saga.waiting[0].step.as_str()), ("failed", "dispatch"));
    assert!(saga.sentence.contains("RetryDispatch") && saga.sentence.contains("GiveUpOrder"), "{}", saga.sentence);
    let saga = one(&log.tell("o-1", &COMPLETED[13..14]).view(), "o-1");
    assert_eq!((saga.state.as_str(), saga.waiting[0].step.as_str()), ("running", "ship"));

    let mut log = Log::default();
    let saga = one(&log.tell("o-2", &LOST[..16]).tell("o-2", &["payment/RefundFailed"]).view(), "o-2");
    assert_eq!((saga.state.as_str(), saga.waiting[0].step.as_str()), ("failed", "settle-payment"));
    assert!(saga.sentence.contains("RetryRefund"), "{}", saga.sentence);
    let saga = one(&log.tell("o-2", &LOST[16..18]).view(), "o-2");
    assert_eq!((saga.state.as_str(), saga.outcome.as_deref(), saga.settled), ("compensated", Some("lost"), true));
}

#[test]
fn an_abandoned_dispatch_that_is_given_up_is_undone() {
    let mut log = Log::default();
    log.tell("o-1", &COMPLETED[..13]).tell(
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
fn two_ends_of_one_payment_are_a_contradiction_that_a_person_must_see() {
    let saga = one(&Log::default().tell("o-1", &DECLINED).tell("o-1", &["payment/PaymentVoided"]).view(), "o-1");
    assert_eq!((saga.state.as_str(), saga.settled), ("failed", false));
    assert!(saga.flags.contains(&"contradiction".to_owned()));
}

#[test]
fn it_says_who_owes_what_since_when() {
    let mut log = Log::default();
    let view = log.tell("o-1", &COMPLETED[..12]).view();
    let saga = one(&view, "o-1");
    assert_eq!(saga.sentence, "Paid; waiting for the warehouse to package");
    assert_eq!((saga.waiting[0].step.as_str(), saga.waiting[0].owner.as_str()), ("package", "warehouse"));
    // Owed since OrderPaid, the eighth event.
    assert_eq!(saga.waiting[0].since, "2023-11-14T22:13:20.070Z");
    assert_eq!(listed(&view, "step", "package"), ["o-1"]);
    assert_eq!(listed(&view, "owner", "loyalty"), [""; 0]);
}

#[test]
fn between_the_failure_and_the_cancel_the_cancel_is_owed() {
    let saga = one(&Log::default().tell("o-1", &SHORT[..4]).view(), "o-1");
    assert_eq!((saga.state.as_str(), saga.waiting[0].step.as_str()), ("running", "cancel"));
    assert_eq!(saga.waiting[0].owner, "order-processor");
}

#[test]
fn a_step_is_stuck_once_the_watermark_passes_its_deadline_and_late_when_done_after_it() {
    let mut log = Log::default();
    log.say("o-1", 0, "order-processor/OrderPlaced");
    let mut view = log.view();
    view.commit(START_MS + 30_000);
    assert_eq!(listed(&view, "flag", "stuck"), [""; 0]);
    let before = view.revision();
    view.commit(START_MS + 30_001);
    assert!(view.revision() > before, "a reader that waits for changes must hear of it");
    assert_eq!(listed(&view, "flag", "stuck"), ["o-1"]);
    log.say("o-1", 40_000, "warehouse/StockReserved").said[1].fold_into(&mut view);
    view.commit(START_MS + 40_000);
    assert_eq!(one(&view, "o-1").flags, ["late"]);
}

#[test]
fn records_the_declaration_does_not_know_stand_in_the_timeline_as_they_are() {
    let view = Log::default().tell("o-1", &COMPLETED).view();
    let saga: serde_json::Value =
        serde_json::from_str(&view.canonical("order-fulfilment", "o-1").expect("there")).unwrap();
    let last = &saga["timeline"][20];
    assert_eq!(last["event"], "com.musiccorp.elsewhere.OrderAudited");
    assert_eq!(
        (&last["declared"], &last["cause_event"]),
        (&false.into(), &"com.musiccorp.warehouse.ItemShipped".into())
    );
    assert_eq!((&last["schema_id"], &last["build"], &last["sequence"]), (&7.into(), &"test".into(), &1.into()));
}

#[test]
fn a_dead_letter_is_shown_and_is_no_fact() {
    let mut log = Log::default();
    log.tell("o-1", &COMPLETED[..5]).bury_last("musiccorp.payment");
    let letter = log.said.pop().expect("the letter");
    log.said.pop();
    let mut view = log.view();
    letter.fold_into(&mut view);
    view.commit(0);
    let saga = one(&view, "o-1");
    assert_eq!(saga.waiting[0].step, "reserve", "the copy of StockReserved must not complete the step");
    assert_eq!(saga.flags, ["hospital"]);
}

#[test]
fn a_hole_in_a_sequence_and_a_missing_start_are_gaps() {
    let mut log = Log::default();
    log.tell("o-1", &COMPLETED[..5]).said.remove(3);
    assert_eq!(one(&log.view(), "o-1").flags, ["gap"]);
    let mut log = Log::default();
    log.tell("o-1", &COMPLETED[..5]).said.remove(0);
    assert_eq!(one(&log.view(), "o-1").flags, ["gap"]);
}

#[test]
fn records_that_belong_to_no_saga_are_counted_and_listed() {
    let mut log = Log::default();
    log.tell("o-1", &["order-processor/OrderPlaced"; 5]);
    let fine = log.said[0].clone();
    let said = vec![
        fine.clone().without_header("ce_correlationid"),
        fine.clone().without_header("ce_type").with_header("content-type", "text/plain"),
        fine.clone().with_header("ce_type", &"x".repeat(300)),
        Said { value: b"{}".to_vec(), ..fine.clone() },
        fine.clone(),
        log.tell("o-2", &["notifications/CustomerNotified:X"])
            .said
            .last()
            .map(|said| Said { value: vec![0, 0, 0, 0, 1, b'{'], ..said.clone() })
            .expect("said"),
    ];
    let view = folded(&said);
    let counts: Vec<u64> = view.unplaced_counts().into_iter().map(|(_, count)| count).collect();
    // The second one's type is in its body, and its correlation in a header: it is a saga's.
    assert_eq!(counts, [1, 0, 1, 2, 0]);
    assert_eq!((view.sagas(), view.unplaced().count()), (1, 4));
}

#[test]
fn a_body_that_cannot_be_had_now_changes_nothing() {
    struct Later;
    impl projector::record::Bodies for Later {
        fn open(&self, _: &[u8]) -> Result<projector::record::Body, projector::record::BodyError> {
            Err(projector::record::BodyError::Unavailable("the registry does not answer".to_owned()))
        }
    }
    let mut log = Log::default();
    let said = log.tell("o-1", &["notifications/CustomerNotified:ORDER_PAID"]).said[0].clone();
    let headers: Vec<(&str, &[u8])> = said.headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
    let record = projector::record::Record {
        topic: &said.topic,
        partition: 0,
        offset: 0,
        at_ms: 1,
        key: None,
        headers: &headers,
        value: Some(&said.value),
        readable: true,
    };
    let mut view = folded([]);
    assert!(view.fold(&record, false, &Later).is_err());
    assert_eq!((view.records(), view.positions().len()), (0, 0));
    view.fold(&record, false, &JsonBodies).expect("now it is there");
    view.commit(0);
    assert_eq!(view.sagas(), 1);
}

#[test]
fn a_flood_under_one_id_is_bounded_and_hides_no_fact() {
    let mut log = Log::default();
    log.say("o-1", 0, "order-processor/OrderPlaced");
    for at_ms in 1..3_000 {
        log.say("o-1", at_ms, "elsewhere/Noise");
    }
    log.say("o-1", 4_000, "warehouse/StockReserved");
    let saga = one(&log.view(), "o-1");
    assert_eq!((saga.records, saga.waiting[0].step.as_str()), (513, "pay"));
    assert_eq!(saga.flags, ["truncated"]);
    let mut backwards = log.said.clone();
    backwards.reverse();
    let name = "order-fulfilment";
    assert_eq!(folded(&backwards).canonical(name, "o-1"), log.view().canonical(name, "o-1"));
}

#[test]
fn lists_page_through_everything_once_and_counts_agree_with_them() {
    let mut log = Log::default();
    for number in 0..97 {
        let events: &[&str] = match number % 4 {
            0 => &COMPLETED,
            1 => &SHORT,
            2 => &LOST[..12],
            _ => &COMPLETED[..6],
        };
        log.tell(&format!("o-{number}"), events);
    }
    let view = log.view();
    for (key, value) in [
        ("state", "completed,compensated"),
        ("outcome", "short"),
        ("step", "pay"),
        ("owner", "payment,warehouse"),
        ("saga", "order-fulfilment"),
    ] {
        let mut filter = Filter::default();
        filter.set(key, value).expect("a key");
        let (mut seen, mut before) = (Vec::new(), None);
        loop {
            let page = view.list(&filter, before, 7).expect("a fine filter");
            seen.extend(page.items.into_iter().map(|saga| (saga.revision, saga.id)));
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        let all = view.list(&filter, None, 500).expect("a fine filter").items;
        assert_eq!(seen, all.iter().map(|saga| (saga.revision, saga.id.clone())).collect::<Vec<_>>(), "{key}={value}");
        assert!(seen.windows(2).all(|pair| pair[0].0 > pair[1].0), "{key}={value}");
    }
    let counts = view.counts().remove(0);
    assert_eq!((counts.total, counts.open), (97, 48));
    assert_eq!((counts.states["completed"], counts.outcomes["short"], counts.waiting["pay"]), (25, 24, 24));
}

#[test]
fn changes_give_each_saga_once_and_say_what_left() {
    let mut log = Log::default();
    log.tell("o-1", &COMPLETED[..6]).tell("o-2", &COMPLETED[..6]);
    let mut view = log.view();
    let filter = Filter { step: Some("pay".to_owned()), ..Filter::default() };
    let (changes, next) = view.changes(&filter, 0, 10).expect("a fine filter");
    assert_eq!((changes.len(), next), (2, view.revision()));
    log.tell("o-1", &["payment/PaymentTaken"]).said.last().expect("said").fold_into(&mut view);
    view.commit(0);
    let (changes, _) = view.changes(&filter, next, 10).expect("a fine filter");
    assert!(matches!(&changes[..], [api::Change::Left { id, .. }] if id == "o-1"), "{changes:?}");
}

#[test]
fn a_filter_that_names_nothing_says_what_was_probably_meant() {
    let view = folded([]);
    let wrong = |key: &str, value: &str| {
        let mut filter = Filter::default();
        filter.set(key, value).and_then(|()| view.list(&filter, None, 1).map(drop)).expect_err("wrong").to_string()
    };
    assert_eq!(wrong("stat", "running"), "\"stat\" is not a filter; did you mean \"state\"?");
    assert_eq!(wrong("state", "runing"), "\"runing\" is no state here; did you mean \"running\"?");
    assert_eq!(wrong("step", "pakage"), "\"pakage\" is no step here; did you mean \"package\"?");
    assert_eq!(
        wrong("saga", "returns-xyzw"),
        "\"returns-xyzw\" is no saga here: order-fulfilment, customer-onboarding"
    );
}

#[test]
fn a_foreign_choreography_is_correlated_by_a_field_and_named_by_its_schema() {
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
    let declaration = projector::Declaration::parse("shop.toml", text).expect("a fine declaration");
    let mut view = View::new(&[declaration], 1).expect("one goes with itself");
    for (offset, name) in [(0, "com.shop.Placed"), (1, "com.shop.Sent")] {
        let mut value = vec![0, 0, 0, 0, 3];
        value.extend(format!(r#"{{"type":"{name}","order":{{"number":42}}}}"#).into_bytes());
        let record = projector::record::Record {
            topic: "orders",
            partition: 0,
            offset,
            at_ms: START_MS,
            key: None,
            headers: &[],
            value: Some(&value),
            readable: true,
        };
        view.fold(&record, false, &JsonBodies).expect("bodies are at hand");
    }
    view.commit(START_MS);
    let saga = one(&view, "42");
    assert_eq!((saga.state.as_str(), saga.records), ("completed", 2));
}

/// Events of several orders, in any interleaving, some of them twice.
fn shuffled() -> impl Strategy<Value = (Vec<Said>, Vec<Said>)> {
    let mut log = Log::default();
    log.tell("o-1", &COMPLETED).tell("o-2", &LOST).tell("o-3", &SHORT).tell("o-4", &DECLINED);
    log.bury_last("musiccorp.payment");
    // Many things happen in the same millisecond.
    for said in &mut log.said {
        said.at_ms -= said.at_ms % 40;
    }
    let told = log.said;
    let twice: Vec<Said> = told.iter().cloned().chain(told.iter().map(repeated)).collect();
    let chosen = proptest::collection::vec(any::<bool>(), told.len());
    (Just(twice).prop_shuffle(), chosen).prop_map(move |(twice, chosen)| {
        let keep = |said: &Said| {
            said.offset < REPEATED_AT || {
                let index =
                    told.iter().position(|told| told.topic == said.topic && told.offset == said.offset - REPEATED_AT);
                chosen[index.expect("every repeat repeats something")]
            }
        };
        (told.clone(), twice.into_iter().filter(keep).collect())
    })
}

const REPEATED_AT: i64 = 1_000_000;

/// The same event once more, later in its topic.
fn repeated(said: &Said) -> Said {
    Said { offset: said.offset + REPEATED_AT, at_ms: said.at_ms + 7, ..said.clone() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_and_repetition_gives_the_same_sagas(
        (told, heard) in shuffled(),
        batch in 1_usize..40,
    ) {
        let expected = folded(&told);
        let mut view = folded([]);
        for batch in heard.chunks(batch) {
            batch.iter().for_each(|said| said.fold_into(&mut view));
            view.commit(0);
        }
        view.commit(expected.watermark_ms());
        for id in ["o-1", "o-2", "o-3", "o-4"] {
            prop_assert_eq!(view.canonical("order-fulfilment", id), expected.canonical("order-fulfilment", id));
        }
        prop_assert_eq!(view.counts(), expected.counts());
    }
}
