//! Every end of an order, told by real services that only ever talk through topics: on the embedded broker, or on
//! the Apache Kafka that the environment names.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use support::{Http, PATIENCE, Place, System, files, ground};

/// What must be true of a story's saga, beside its end.
struct Story {
    name: &'static str,
    body: Value,
    /// What the edge answers.
    status: u16,
    state: &'static str,
    outcome: &'static str,
    /// Events that must be in its timeline.
    said: &'static [&'static str],
    /// Events that must not.
    unsaid: &'static [&'static str],
}

fn order(lines: impl Into<Value>, payment_method: &str) -> Value {
    json!({
        "customer_id": "customer-0001",
        "ship_to": { "street": "1 Harbour Lane", "city": "Bristol", "postcode": "BS1 4ST", "country": "GB" },
        "lines": lines.into(),
        "payment_method": payment_method,
    })
}

fn stories() -> Vec<Story> {
    let unknown_customer = {
        let mut order = order(two_albums(), "card-ok");
        order["customer_id"] = json!("customer-nobody");
        order
    };
    vec![
        completed(),
        short(),
        declined(),
        lost(),
        rejected("unknown sku", order(json!([{ "sku": "lp-nothing", "quantity": 1 }]), "card-ok")),
        rejected("price gone", order(json!([{ "sku": "gone-tenth", "quantity": 1 }]), "card-ok")),
        rejected("unknown customer", unknown_customer),
    ]
}

fn two_albums() -> Value {
    json!([{ "sku": "lp-goldberg", "quantity": 2 }, { "sku": "lp-trout", "quantity": 1 }])
}

fn completed() -> Story {
    Story {
        name: "completed",
        body: order(two_albums(), "card-ok"),
        status: 201,
        state: "completed",
        outcome: "completed",
        said: &[
            "OrderPlaced",
            "StockReserved",
            "PaymentRequested",
            "PaymentTaken",
            "OrderPaid",
            "PickingStarted",
            "OrderPackaged",
            "OrderDispatched",
            "OrderShipped",
            "PointsAwarded",
            "OrderCompleted",
            "CustomerNotified",
        ],
        unsaid: &["OrderCancelled", "PaymentRefunded", "StockReleased"],
    }
}

fn short() -> Story {
    let lines = json!([{ "sku": "lp-goldberg", "quantity": 1 }, { "sku": "rare-thamos", "quantity": 1 }]);
    Story {
        name: "one line short, the others freed",
        body: order(lines, "card-ok"),
        status: 201,
        state: "compensated",
        outcome: "short",
        said: &[
            "LineHeld",
            "ItemHeld",
            "StockShort",
            "OrderCancelled",
            "ItemFreed",
            "StockReleased",
            "PaymentVoided",
            "CustomerNotified",
        ],
        unsaid: &["PaymentRequested", "PaymentTaken", "OrderPaid", "ItemShipped"],
    }
}

fn declined() -> Story {
    Story {
        name: "payment declined",
        body: order(two_albums(), "card-declined"),
        status: 201,
        state: "compensated",
        outcome: "declined",
        said: &[
            "StockReserved",
            "PaymentRequested",
            "PaymentDeclined",
            "OrderCancelled",
            "ItemFreed",
            "StockReleased",
            "CustomerNotified",
        ],
        unsaid: &["PaymentTaken", "PaymentRefunded", "PaymentVoided", "OrderPaid"],
    }
}

fn lost() -> Story {
    let lines = json!([{ "sku": "ghost-gastein", "quantity": 1 }, { "sku": "lp-trout", "quantity": 1 }]);
    Story {
        name: "not on the shelf when packaging",
        body: order(lines, "card-ok"),
        status: 201,
        state: "compensated",
        outcome: "lost",
        said: &[
            "PaymentTaken",
            "OrderPaid",
            "PackagingFailed",
            "OrderCancelled",
            "StockWrittenOff",
            "ItemFreed",
            "StockReleased",
            "RefundRequested",
            "PaymentRefunded",
            "CustomerNotified",
        ],
        unsaid: &["OrderShipped", "PointsAwarded", "PaymentVoided"],
    }
}

fn rejected(name: &'static str, body: Value) -> Story {
    let unsaid = &["OrderPlaced", "ReservationStarted", "PaymentAwaited", "NotificationRequested"];
    Story { name, body, status: 422, state: "rejected", outcome: "rejected", said: &["OrderRejected"], unsaid }
}

/// A parcel to this postcode: the simulated courier decides by it.
fn to(postcode: &str, mut order: Value) -> Value {
    order["ship_to"]["postcode"] = json!(postcode);
    order
}

/// Orders that the customer, the courier, the gateway or an operator keep from their usual way.
fn troubles() -> Vec<Story> {
    [called_off(), not_taken(), not_answered()].into_iter().flatten().collect()
}

type Events = &'static [&'static str];

fn story(name: &'static str, body: Value, end: (&'static str, &'static str), said: Events, unsaid: Events) -> Story {
    Story { name, body, status: 201, state: end.0, outcome: end.1, said, unsaid }
}

fn undone_by(outcome: &'static str) -> (&'static str, &'static str) {
    ("compensated", outcome)
}

fn one() -> Value {
    json!([{ "sku": "lp-goldberg", "quantity": 1 }])
}

fn called_off() -> Vec<Story> {
    vec![
        // Before its stock is held, or while it is: whoever comes first, nobody has been charged.
        story(
            "called off at once",
            order(one(), "card-silent"),
            undone_by("called-off"),
            &["OrderCancellationRequested", "CancellationAccepted", "OrderCancelled", "PaymentVoided", "StockReleased"],
            &["PaymentTaken", "PickingStarted", "CancellationRefused"],
        ),
        story(
            "called off while it is charged",
            order(one(), "card-silent"),
            undone_by("called-off"),
            &[
                "StockReserved",
                "PaymentRequested",
                "CancellationAccepted",
                "OrderCancelled",
                "PaymentVoidRequested",
                "PaymentVoided",
                "ItemFreed",
                "StockReleased",
                "CustomerNotified",
            ],
            &["PaymentTaken", "PaymentAbandoned", "CancellationRefused"],
        ),
        // So many pieces take the floor seconds.
        story(
            "called off while it is picked",
            order(json!([{ "sku": "lp-trout", "quantity": 120 }]), "card-ok"),
            undone_by("called-off"),
            &[
                "OrderPaid",
                "PickingStarted",
                "CancellationAccepted",
                "OrderCancelled",
                "OrderPackaged",
                "ItemFreed",
                "StockReleased",
                "RefundRequested",
                "PaymentRefunded",
            ],
            &["CancellationRefused", "OrderDispatched", "PaymentVoided", "ItemShipped"],
        ),
    ]
}

fn not_taken() -> Vec<Story> {
    vec![
        story(
            "asked too late, then given up",
            to("SILENT", order(one(), "card-ok")),
            undone_by("given-up"),
            &[
                "CancellationRefused",
                "OrderCancellationRefused",
                "OrderDelayed",
                "DispatchAbandoned",
                "OrderNeedsAttention",
                "CancellationAccepted",
                "PaymentRefunded",
                "ItemFreed",
                "StockReleased",
            ],
            &["OrderDispatched", "OrderShipped"],
        ),
        story(
            "retried dispatch",
            to("REFUSED 3", order(two_albums(), "card-ok")),
            ("completed", "completed"),
            &[
                "DispatchDelayed",
                "OrderDelayed",
                "DispatchAbandoned",
                "OrderNeedsAttention",
                "DispatchRequested",
                "OrderDispatched",
                "OrderCompleted",
            ],
            &["OrderCancelled", "StockReleased"],
        ),
    ]
}

fn not_answered() -> Vec<Story> {
    let ghost = json!([{ "sku": "ghost-gastein", "quantity": 1 }]);
    vec![
        story(
            "silent gateway",
            order(one(), "card-silent"),
            undone_by("unanswered"),
            &["PaymentAbandoned", "OrderCancelled", "PaymentVoidRequested", "PaymentVoided", "StockReleased"],
            &["PaymentTaken", "PaymentRefunded"],
        ),
        story(
            "captured too late",
            order(one(), "card-late"),
            undone_by("unanswered"),
            &["PaymentAbandoned", "OrderCancelled", "PaymentTaken", "RefundRequested", "PaymentRefunded"],
            &["PaymentVoided", "OrderPaid", "PickingStarted"],
        ),
        story(
            "refund refused",
            order(ghost, "card-closed"),
            undone_by("lost"),
            &["PackagingFailed", "RefundFailed", "OrderNeedsAttention", "PaymentRefunded", "StockWrittenOff"],
            &["OrderShipped"],
        ),
        story("slow gateway", order(one(), "card-slow"), ("completed", "completed"), &["OrderCompleted"], &[]),
    ]
}

/// Long enough that a busy machine gets a customer's request in before it, short enough to wait for it.
const DEADLINE_MS: &str = "8000";

#[test]
fn what_goes_wrong_outside_comes_to_its_end_with_the_help_of_people() {
    let ground = ground();
    let place = Place::new(&ground);
    let mut system = place.start(
        &[
            &["--charge-deadline-ms", DEADLINE_MS, "--courier-deadline-ms", DEADLINE_MS][..],
            &["--dispatch-pause-ms", "200", "--dispatch-attempts", "2"],
        ]
        .concat(),
    );
    let http = Http::new();
    let orders = format!("{}/orders", place.endpoints()["services"]["order-processor"].as_str().unwrap());
    let mut ids = std::collections::BTreeMap::new();
    for story in troubles() {
        let (status, answer) = http.post(&orders, story.name, story.body.to_string());
        assert_eq!(status, 201, "{}: {answer}", story.name);
        let id = answer["order_id"].as_str().unwrap().to_owned();
        if story.name.starts_with("called off") {
            match story.name.rsplit(' ').next() {
                Some("charged") => said(&mut system, &place, &id, "PaymentRequested"),
                Some("picked") => said(&mut system, &place, &id, "PickingStarted"),
                _ => {}
            }
            let (status, answer) = http.post(&format!("{orders}/{id}/cancel"), &id, r#"{"reason":"bought twice"}"#);
            assert_eq!((status, &answer["status"]), (202, &json!("cancellation-requested")), "{answer}");
        }
        ids.insert(story.name, id);
    }
    let late = &ids["asked too late, then given up"];
    said(&mut system, &place, late, "OrderPackaged");
    let (status, answer) = http.post(&format!("{orders}/{late}/cancel"), "c-2", "");
    assert_eq!(status, 202, "{answer}");
    system.wait_for("the refusal", || {
        http.get(&format!("{orders}/{late}")).1["cancellation"]["reason"] == json!("the parcel is packed")
    });
    for (story, service, command, body) in [
        ("refund refused", "payment", "RetryRefund", json!({})),
        ("retried dispatch", "warehouse", "RetryDispatch", json!({})),
        (
            "asked too late, then given up",
            "order-processor",
            "GiveUpOrder",
            json!({ "reason": "no courier goes there" }),
        ),
    ] {
        let id = &ids[story];
        let saga = format!("{}/api/v1/sagas/{id}", place.endpoints()["projector"].as_str().unwrap());
        system.wait_for(&format!("{story} to need a person"), || http.get(&saga).1["state"] == json!("failed"));
        let mut fields = body;
        fields["order_id"] = json!(id);
        place.ok(&["send", service, command, "--key", id, &fields.to_string()]);
    }
    for story in troubles() {
        check(&mut system, &place, &http, &story, &ids[story.name]);
    }
    let (status, refused) = http.post(&format!("{orders}/{}/cancel", ids["slow gateway"]), "c-3", "");
    assert_eq!((status, &refused["detail"]), (409, &json!("the order is completed")), "{refused}");
    let (status, again) = http.post(&format!("{orders}/{}/cancel", ids["called off at once"]), "c-4", "");
    assert_eq!((status, &again["status"]), (200, &json!("cancelled")), "{again}");
    assert_eq!(http.post(&format!("{orders}/no-such-order/cancel"), "c-5", "").0, 404);
    place.ok(&["audit"]);
    let verified = place.ok(&["replay", "projection", "sagas", "--verify"]);
    assert!(verified.contains("both views are equal"), "{verified}");
    system.stop();
}

#[test]
fn every_order_comes_to_its_end() {
    let ground = ground();
    let place = Place::new(&ground);
    let mut system = place.start(&[]);
    let http = Http::new();
    let endpoints = place.endpoints();
    let orders = format!("{}/orders", endpoints["services"]["order-processor"].as_str().unwrap());
    let placed: Vec<(Story, String)> = stories()
        .into_iter()
        .map(|story| {
            let (status, answer) = http.post(&orders, story.name, story.body.to_string());
            assert_eq!(status, story.status, "{} on {ground:?}: {answer}", story.name);
            // An accepted order is told its id, the problem of a rejected one says where the order is.
            let id = answer["order_id"].as_str().or_else(|| answer["instance"].as_str()?.strip_prefix("/orders/"));
            let id = id.unwrap_or_else(|| panic!("{}: {answer}", story.name)).to_owned();
            (story, id)
        })
        .collect();
    for (story, id) in &placed {
        check(&mut system, &place, &http, story, id);
    }
    place.ok(&["audit"]);
    let verified = place.ok(&["replay", "projection", "sagas", "--verify"]);
    assert!(verified.contains("both views are equal"), "{verified}");
    bought_together(&mut system, &place, &http);
    a_customer_comes_on_board_and_leaves(&mut system, &place, &http);
    let mails = files(&place.data().join("mail"), ".eml").len();
    // Two for the completed order, one for each cancelled one after payment was asked for or not, two for the lost one.
    assert!(mails >= 2 + 1 + 1 + 2, "{mails} mails were written");
    system.stop();
}

/// Waits until an event of an order was said.
fn said(system: &mut System<'_>, place: &Place, id: &str, event: &str) {
    system.wait_for(&format!("{event} of order {id}"), || {
        place.ok(&["events", "tail", "--type", event, "--key", id]).lines().count() == 1
    });
}

fn check(system: &mut System<'_>, place: &Place, http: &Http, story: &Story, id: &str) {
    let projector = place.endpoints()["projector"].as_str().unwrap().to_owned();
    let url = format!("{projector}/api/v1/sagas/{id}");
    let mut saga = Value::Null;
    system.wait_for(&format!("the end of {:?} (order {id})", story.name), || {
        let (status, reply) = http.get(&url);
        saga = reply;
        status == 200 && saga["settled"] == json!(true)
    });
    assert_eq!(
        (&saga["state"], &saga["outcome"]),
        (&json!(story.state), &json!(story.outcome)),
        "{}: {saga:#}",
        story.name
    );
    assert_eq!(saga["waiting"], json!([]), "{}", story.name);
    let text = place.ok(&["sagas", "show", id]);
    for event in story.said {
        assert!(text.contains(event), "{}: {event} was not said\n{text}", story.name);
    }
    for event in story.unsaid {
        assert!(!text.contains(event), "{}: {event} was said\n{text}", story.name);
    }
}

/// Recommendations have heard of the orders with two albums.
fn bought_together(system: &mut System<'_>, place: &Place, http: &Http) {
    let endpoints = place.endpoints();
    let url = format!(
        "{}/albums/lp-goldberg/bought-together?limit=5",
        endpoints["services"]["recommendations"].as_str().unwrap()
    );
    let mut reply = Value::Null;
    system.wait_for("what was bought together", || {
        reply = http.get(&url).1;
        reply["orders"] == json!(3)
    });
    let together: Vec<(&str, u64)> = reply["together"]
        .as_array()
        .unwrap()
        .iter()
        .map(|other| (other["sku"].as_str().unwrap(), other["orders"].as_u64().unwrap()))
        .collect();
    assert_eq!(together, [("lp-trout", 2), ("rare-thamos", 1)], "{reply:#}");
    assert!(reply["title"].is_string() && reply["together"][0]["artist"].is_string(), "{reply:#}");
    assert_eq!(http.get(&url.replace("lp-goldberg", "lp-nothing")).0, 404);
}

/// The second saga: registered, account opened, welcomed, verified; and forgotten.
fn a_customer_comes_on_board_and_leaves(system: &mut System<'_>, place: &Place, http: &Http) {
    let endpoints = place.endpoints();
    let customers = format!("{}/customers", endpoints["services"]["customers"].as_str().unwrap());
    let body = json!({ "name": "Ada Byron", "email": "ada@example.org", "marketing_consent": false });
    let (status, answer) = http.post(&customers, "ada", body.to_string());
    assert_eq!(status, 201, "{answer}");
    let id = answer["customer_id"].as_str().unwrap().to_owned();
    let url = format!("{}/api/v1/sagas/{id}", endpoints["projector"].as_str().unwrap());
    let stands = |saga: &Value, state: &str, step: Option<&str>| {
        let is_onboarding = saga["saga"] == json!("customer-onboarding");
        is_onboarding && saga["state"] == json!(state) && saga["waiting"][0]["step"].as_str() == step
    };
    let mut wait_for = |state: &str, step: Option<&str>| {
        let mut saga = Value::Null;
        system.wait_for(&format!("{state} {step:?} of customer {id}"), || {
            saga = http.get(&url).1;
            stands(&saga, state, step)
        });
        saga
    };
    wait_for("running", Some("verify"));
    let (status, answer) = http.post(&format!("{customers}/{id}/verification"), "v-1", "");
    assert_eq!(status, 200, "{answer}");
    assert_eq!(wait_for("completed", None)["outcome"], json!("onboarded"));
    let (status, answer) = http.delete(&format!("{customers}/{id}"));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(wait_for("compensated", None)["outcome"], json!("forgotten"));
}

#[test]
fn a_deadline_that_passes_while_everything_is_down_takes_effect_once_it_is_up_again() {
    let ground = ground();
    let place = Place::new(&ground);
    let flags = ["--charge-deadline-ms", "2000"];
    let mut system = place.start(&flags);
    let http = Http::new();
    let orders = format!("{}/orders", place.endpoints()["services"]["order-processor"].as_str().unwrap());
    let (status, answer) = http.post(&orders, "silent", order(one(), "card-silent").to_string());
    assert_eq!(status, 201, "{answer}");
    let id = answer["order_id"].as_str().unwrap().to_owned();
    said(&mut system, &place, &id, "PaymentRequested");
    system.kill();
    let passed = std::time::Instant::now() + std::time::Duration::from_secs(3);
    while std::time::Instant::now() < passed {
        std::thread::park_timeout(passed.saturating_duration_since(std::time::Instant::now()));
    }
    let mut system = place.start(&flags);
    said(&mut system, &place, &id, "PaymentAbandoned");
    let story = story(
        "abandoned after a kill",
        json!({}),
        undone_by("unanswered"),
        &["PaymentAbandoned", "OrderCancelled", "PaymentVoidRequested", "PaymentVoided", "StockReleased"],
        &["PaymentTaken"],
    );
    check(&mut system, &place, &http, &story, &id);
    said(&mut system, &place, &id, "PaymentAbandoned");
    place.ok(&["audit"]);
    system.stop();
}

#[test]
fn a_file_of_orders_settles_and_the_same_file_again_places_nothing() {
    let ground = ground();
    let place = Place::new(&ground);
    let file = format!("{}/../docs/examples/orders.ndjson", env!("CARGO_MANIFEST_DIR"));
    let run = |args: &[&str]| {
        let started = place.up(&[&["--orders-from", &file, "--until-settled"], args].concat()).spawn().unwrap();
        assert!(support::wait_until_ended(started, PATIENCE), "{}", place.log());
        place.log()
    };
    let log = run(&[]);
    assert!(log.contains("| completed"), "{log}");
    assert!(log.contains("audit: clean"), "{log}");
    let log = run(&[]);
    assert!(log.contains("220 had been placed before"), "{log}");
    assert!(log.contains("0 orders in"), "{log}");
}

#[test]
fn bad_orders_are_refused_with_a_reason_and_leave_no_event() {
    let place = Place::new(&support::Ground::Embedded);
    let system = place.start(&[]);
    let http = Http::new();
    let endpoints = place.endpoints();
    let orders = format!("{}/orders", endpoints["services"]["order-processor"].as_str().unwrap());
    let good = order(json!([{ "sku": "lp-goldberg", "quantity": 1 }]), "card-ok");
    let with = |at: &str, value: Value| {
        let mut body = good.clone();
        *body.pointer_mut(at).unwrap() = value;
        body.to_string().into_bytes()
    };
    let many: Vec<Value> = (0..10_000).map(|n| json!({ "sku": format!("lp-{n}"), "quantity": 1 })).collect();
    let bad: Vec<(&str, Vec<u8>, &str)> = vec![
        ("malformed", b"{\"customer_id\":".to_vec(), "JSON"),
        ("zero", with("/lines/0/quantity", json!(0)), "quantity"),
        ("absurd", with("/lines/0/quantity", json!(2_000_000_000)), "quantity"),
        ("fraction", with("/lines/0/quantity", json!(1.5)), "quantity"),
        ("many", with("/lines", json!(many[..5_000])), "lines"),
        ("too many", with("/lines", json!(many)), "too large"),
        ("none", with("/lines", json!([])), "lines"),
        ("overlong", with("/customer_id", json!("x".repeat(100_000))), "customer_id"),
        ("not text", with("/customer_id", json!(7)), "customer_id"),
        ("not UTF-8", [&b"{\"customer_id\":\""[..], &[0xff, 0xfe], b"\"}"].concat(), "UTF-8"),
        ("unknown field", with("/lines/0", json!({ "sku": "lp-goldberg", "quantity": 1, "price": 1 })), "price"),
    ];
    for (name, body, word) in bad {
        let (status, problem) = http.post(&orders, name, body);
        assert!((400..=422).contains(&status), "{name}: {status} {problem}");
        assert!(problem["title"].is_string() && problem["status"] == json!(status), "{name}: {problem}");
        assert!(problem.to_string().contains(word), "{name} does not say {word:?}: {problem}");
    }
    let (status, first) = http.post(&orders, "once", good.to_string());
    assert_eq!(status, 201, "{first}");
    let (status, again) = http.post(&orders, "once", good.to_string());
    assert_eq!((status, &again["order_id"]), (201, &first["order_id"]), "the same request gets the same answer");
    let (status, other) = http.post(&orders, "once", with("/lines/0/quantity", json!(2)));
    assert_eq!(status, 422, "the same key with another body: {other}");
    let placed = place.ok(&["events", "tail", "--type", "OrderPlaced"]);
    assert_eq!(placed.lines().count(), 1, "only the good order was placed: {placed}");
    system.stop();
}
