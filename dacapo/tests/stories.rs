//! Every outcome of an order, with real services that exchange records only through topics: on the embedded broker, or on the Apache
//! Kafka that the environment names.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use support::{Http, PATIENCE, RunningSystem, Setup, files, infrastructure};

/// An order, and what its saga must show.
struct Scenario {
    name: &'static str,
    body: Value,
    /// The status of the response to `POST /orders`.
    status: u16,
    state: &'static str,
    outcome: &'static str,
    /// Events that must be in its timeline.
    published: &'static [&'static str],
    /// Events that must not.
    not_published: &'static [&'static str],
}

fn order(lines: impl Into<Value>, payment_method: &str) -> Value {
    json!({
        "customer_id": "customer-0001",
        "ship_to": { "street": "1 Harbour Lane", "city": "Bristol", "postcode": "BS1 4ST", "country": "GB" },
        "lines": lines.into(),
        "payment_method": payment_method,
    })
}

fn scenarios() -> Vec<Scenario> {
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

fn completed() -> Scenario {
    Scenario {
        name: "completed",
        body: order(two_albums(), "card-ok"),
        status: 201,
        state: "completed",
        outcome: "completed",
        published: &[
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
        not_published: &["OrderCancelled", "PaymentRefunded", "StockReleased"],
    }
}

fn short() -> Scenario {
    let lines = json!([{ "sku": "lp-goldberg", "quantity": 1 }, { "sku": "rare-thamos", "quantity": 1 }]);
    Scenario {
        name: "one line short, the others freed",
        body: order(lines, "card-ok"),
        status: 201,
        state: "compensated",
        outcome: "short",
        published: &[
            "LineHeld",
            "ItemHeld",
            "StockShort",
            "OrderCancelled",
            "ItemFreed",
            "StockReleased",
            "PaymentVoided",
            "CustomerNotified",
        ],
        not_published: &["PaymentRequested", "PaymentTaken", "OrderPaid", "ItemShipped"],
    }
}

fn declined() -> Scenario {
    Scenario {
        name: "payment declined",
        body: order(two_albums(), "card-declined"),
        status: 201,
        state: "compensated",
        outcome: "declined",
        published: &[
            "StockReserved",
            "PaymentRequested",
            "PaymentDeclined",
            "OrderCancelled",
            "ItemFreed",
            "StockReleased",
            "CustomerNotified",
        ],
        not_published: &["PaymentTaken", "PaymentRefunded", "PaymentVoided", "OrderPaid"],
    }
}

fn lost() -> Scenario {
    let lines = json!([{ "sku": "ghost-gastein", "quantity": 1 }, { "sku": "lp-trout", "quantity": 1 }]);
    Scenario {
        name: "not on the shelf when packaging",
        body: order(lines, "card-ok"),
        status: 201,
        state: "compensated",
        outcome: "lost",
        published: &[
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
        not_published: &["OrderShipped", "PointsAwarded", "PaymentVoided"],
    }
}

fn rejected(name: &'static str, body: Value) -> Scenario {
    let not_published = &["OrderPlaced", "ReservationStarted", "PaymentAwaited", "NotificationRequested"];
    Scenario {
        name,
        body,
        status: 422,
        state: "rejected",
        outcome: "rejected",
        published: &["OrderRejected"],
        not_published,
    }
}

/// Sets the postcode, which the stub of the courier decides by.
fn to(postcode: &str, mut order: Value) -> Value {
    order["ship_to"]["postcode"] = json!(postcode);
    order
}

/// Orders that the customer, the courier, the gateway or an operator keeps from completing directly.
fn failing_scenarios() -> Vec<Scenario> {
    [cancelled(), not_dispatched(), not_answered()].into_iter().flatten().collect()
}

type Events = &'static [&'static str];

/// The ids of placed orders, by the name of their scenario.
type OrderIds = BTreeMap<&'static str, String>;

fn scenario(
    name: &'static str,
    body: Value,
    end: (&'static str, &'static str),
    published: Events,
    not_published: Events,
) -> Scenario {
    Scenario { name, body, status: 201, state: end.0, outcome: end.1, published, not_published }
}

fn compensated_by(outcome: &'static str) -> (&'static str, &'static str) {
    ("compensated", outcome)
}

fn one() -> Value {
    json!([{ "sku": "lp-goldberg", "quantity": 1 }])
}

fn cancelled() -> Vec<Scenario> {
    vec![
        // Before its stock is held, or meanwhile: in both cases no charge was requested.
        scenario(
            "cancelled at once",
            order(one(), "card-silent"),
            compensated_by("called-off"),
            &["OrderCancellationRequested", "CancellationAccepted", "OrderCancelled", "PaymentVoided", "StockReleased"],
            &["PaymentTaken", "PickingStarted", "CancellationRefused"],
        ),
        scenario(
            "cancelled while it is charged",
            order(one(), "card-silent"),
            compensated_by("called-off"),
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
        // Picking this many pieces takes seconds.
        scenario(
            "cancelled while it is picked",
            order(json!([{ "sku": "lp-trout", "quantity": 120 }]), "card-ok"),
            compensated_by("called-off"),
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

fn not_dispatched() -> Vec<Scenario> {
    vec![
        scenario(
            "asked too late, then given up",
            to("SILENT", order(one(), "card-ok")),
            compensated_by("given-up"),
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
        scenario(
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

fn not_answered() -> Vec<Scenario> {
    let ghost = json!([{ "sku": "ghost-gastein", "quantity": 1 }]);
    vec![
        scenario(
            "silent gateway",
            order(one(), "card-silent"),
            compensated_by("unanswered"),
            &["PaymentAbandoned", "OrderCancelled", "PaymentVoidRequested", "PaymentVoided", "StockReleased"],
            &["PaymentTaken", "PaymentRefunded"],
        ),
        scenario(
            "captured too late",
            order(one(), "card-late"),
            compensated_by("unanswered"),
            &["PaymentAbandoned", "OrderCancelled", "PaymentTaken", "RefundRequested", "PaymentRefunded"],
            &["PaymentVoided", "OrderPaid", "PickingStarted"],
        ),
        scenario(
            "refund refused",
            order(ghost, "card-closed"),
            compensated_by("lost"),
            &["PackagingFailed", "RefundFailed", "OrderNeedsAttention", "PaymentRefunded", "StockWrittenOff"],
            &["OrderShipped"],
        ),
        scenario("slow gateway", order(one(), "card-slow"), ("completed", "completed"), &["OrderCompleted"], &[]),
    ]
}

/// Long enough for a customer's request on a busy machine, short enough to wait for.
const DEADLINE_MS: &str = "8000";

/// Places the orders that do not complete directly, and cancels some of them. Returns their ids by scenario.
fn place_failing_orders(system: &mut RunningSystem<'_>, setup: &Setup, http: &Http, orders: &str) -> OrderIds {
    let mut ids = OrderIds::new();
    for scenario in failing_scenarios() {
        let (status, answer) = http.post(orders, scenario.name, scenario.body.to_string());
        assert_eq!(status, 201, "{}: {answer}", scenario.name);
        let id = answer["order_id"].as_str().unwrap().to_owned();
        if scenario.name.starts_with("cancelled") {
            match scenario.name.rsplit(' ').next() {
                Some("charged") => wait_for_event(system, setup, &id, "PaymentRequested"),
                Some("picked") => wait_for_event(system, setup, &id, "PickingStarted"),
                _ => {}
            }
            let (status, answer) = http.post(&format!("{orders}/{id}/cancel"), &id, r#"{"reason":"bought twice"}"#);
            assert_eq!((status, &answer["status"]), (202, &json!("cancellation-requested")), "{answer}");
        }
        ids.insert(scenario.name, id);
    }
    ids
}

/// Sends the command that each failed order needs from an operator.
fn send_operator_commands(system: &mut RunningSystem<'_>, setup: &Setup, http: &Http, ids: &OrderIds) {
    for (scenario, service, command, body) in [
        ("refund refused", "payment", "RetryRefund", json!({})),
        ("retried dispatch", "warehouse", "RetryDispatch", json!({})),
        (
            "asked too late, then given up",
            "order-processor",
            "GiveUpOrder",
            json!({ "reason": "no courier goes there" }),
        ),
    ] {
        let id = &ids[scenario];
        let saga = format!("{}/api/v1/sagas/{id}", setup.endpoints()["projector"].as_str().unwrap());
        system.wait_for(&format!("{scenario} to need an operator"), || http.get(&saga).1["state"] == json!("failed"));
        let mut fields = body;
        fields["order_id"] = json!(id);
        setup.ok(&["send", service, command, "--key", id, &fields.to_string()]);
    }
}

#[test]
fn failures_of_external_services_settle_with_the_help_of_operators() {
    let infrastructure = infrastructure();
    let setup = Setup::new(&infrastructure);
    let mut system = setup.start(
        &[
            &["--charge-deadline-ms", DEADLINE_MS, "--courier-deadline-ms", DEADLINE_MS][..],
            &["--dispatch-pause-ms", "200", "--dispatch-attempts", "2"],
        ]
        .concat(),
    );
    let http = Http::new();
    let orders = format!("{}/orders", setup.endpoints()["services"]["order-processor"].as_str().unwrap());
    let ids = place_failing_orders(&mut system, &setup, &http, &orders);
    let late = &ids["asked too late, then given up"];
    wait_for_event(&mut system, &setup, late, "OrderPackaged");
    let (status, answer) = http.post(&format!("{orders}/{late}/cancel"), "c-2", "");
    assert_eq!(status, 202, "{answer}");
    system.wait_for("the refusal", || {
        http.get(&format!("{orders}/{late}")).1["cancellation"]["reason"] == json!("the parcel is packed")
    });
    send_operator_commands(&mut system, &setup, &http, &ids);
    for scenario in failing_scenarios() {
        check(&mut system, &setup, &http, &scenario, &ids[scenario.name]);
    }
    let (status, refused) = http.post(&format!("{orders}/{}/cancel", ids["slow gateway"]), "c-3", "");
    assert_eq!((status, &refused["detail"]), (409, &json!("the order is completed")), "{refused}");
    let (status, again) = http.post(&format!("{orders}/{}/cancel", ids["cancelled at once"]), "c-4", "");
    assert_eq!((status, &again["status"]), (200, &json!("cancelled")), "{again}");
    assert_eq!(http.post(&format!("{orders}/no-such-order/cancel"), "c-5", "").0, 404);
    setup.ok(&["audit"]);
    let verified = setup.ok(&["replay", "projection", "sagas", "--verify"]);
    assert!(verified.contains("both views are equal"), "{verified}");
    system.stop();
}

#[test]
fn every_order_settles() {
    let infrastructure = infrastructure();
    let setup = Setup::new(&infrastructure);
    let mut system = setup.start(&[]);
    let http = Http::new();
    let endpoints = setup.endpoints();
    let orders = format!("{}/orders", endpoints["services"]["order-processor"].as_str().unwrap());
    let placed: Vec<(Scenario, String)> = scenarios()
        .into_iter()
        .map(|scenario| {
            let (status, answer) = http.post(&orders, scenario.name, scenario.body.to_string());
            assert_eq!(status, scenario.status, "{} on {infrastructure:?}: {answer}", scenario.name);
            // The response has the id of an accepted order; the problem details of a rejected order have its path.
            let id = answer["order_id"].as_str().or_else(|| answer["instance"].as_str()?.strip_prefix("/orders/"));
            let id = id.unwrap_or_else(|| panic!("{}: {answer}", scenario.name)).to_owned();
            (scenario, id)
        })
        .collect();
    for (scenario, id) in &placed {
        check(&mut system, &setup, &http, scenario, id);
    }
    setup.ok(&["audit"]);
    let verified = setup.ok(&["replay", "projection", "sagas", "--verify"]);
    assert!(verified.contains("both views are equal"), "{verified}");
    bought_together(&mut system, &setup, &http);
    a_customer_is_onboarded_and_forgotten(&mut system, &setup, &http);
    let mails = files(&setup.data().join("mail"), ".eml").len();
    // Two for the completed order, one for each of two cancelled orders, two for the order lost at packaging.
    assert!(mails >= 2 + 1 + 1 + 2, "{mails} mails were written");
    system.stop();
}

/// Waits until an event of an order was published.
fn wait_for_event(system: &mut RunningSystem<'_>, setup: &Setup, id: &str, event: &str) {
    system.wait_for(&format!("{event} of order {id}"), || {
        setup.ok(&["events", "tail", "--type", event, "--key", id]).lines().count() == 1
    });
}

fn check(system: &mut RunningSystem<'_>, setup: &Setup, http: &Http, scenario: &Scenario, id: &str) {
    let projector = setup.endpoints()["projector"].as_str().unwrap().to_owned();
    let url = format!("{projector}/api/v1/sagas/{id}");
    let mut saga = Value::Null;
    system.wait_for(&format!("the outcome of {:?} (order {id})", scenario.name), || {
        let (status, reply) = http.get(&url);
        saga = reply;
        status == 200 && saga["settled"] == json!(true)
    });
    assert_eq!(
        (&saga["state"], &saga["outcome"]),
        (&json!(scenario.state), &json!(scenario.outcome)),
        "{}: {saga:#}",
        scenario.name
    );
    assert_eq!(saga["waiting"], json!([]), "{}", scenario.name);
    let text = setup.ok(&["sagas", "show", id]);
    for event in scenario.published {
        assert!(text.contains(event), "{}: {event} was not published\n{text}", scenario.name);
    }
    for event in scenario.not_published {
        assert!(!text.contains(event), "{}: {event} was published\n{text}", scenario.name);
    }
}

/// The recommendations have read the orders with two albums.
fn bought_together(system: &mut RunningSystem<'_>, setup: &Setup, http: &Http) {
    let endpoints = setup.endpoints();
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

/// The second saga: registered, account opened, welcomed, verified, forgotten.
fn a_customer_is_onboarded_and_forgotten(system: &mut RunningSystem<'_>, setup: &Setup, http: &Http) {
    let endpoints = setup.endpoints();
    let customers = format!("{}/customers", endpoints["services"]["customers"].as_str().unwrap());
    let body = json!({ "name": "Ada Byron", "email": "ada@example.org", "marketing_consent": false });
    let (status, answer) = http.post(&customers, "ada", body.to_string());
    assert_eq!(status, 201, "{answer}");
    let id = answer["customer_id"].as_str().unwrap().to_owned();
    let url = format!("{}/api/v1/sagas/{id}", endpoints["projector"].as_str().unwrap());
    let is_in_state = |saga: &Value, state: &str, step: Option<&str>| {
        let is_onboarding = saga["saga"] == json!("customer-onboarding");
        is_onboarding && saga["state"] == json!(state) && saga["waiting"][0]["step"].as_str() == step
    };
    let mut wait_for = |state: &str, step: Option<&str>| {
        let mut saga = Value::Null;
        system.wait_for(&format!("{state} {step:?} of customer {id}"), || {
            saga = http.get(&url).1;
            is_in_state(&saga, state, step)
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
fn a_deadline_that_passes_during_an_outage_takes_effect_after_the_restart() {
    let infrastructure = infrastructure();
    let setup = Setup::new(&infrastructure);
    let flags = ["--charge-deadline-ms", "2000"];
    let mut system = setup.start(&flags);
    let http = Http::new();
    let orders = format!("{}/orders", setup.endpoints()["services"]["order-processor"].as_str().unwrap());
    let (status, answer) = http.post(&orders, "silent", order(one(), "card-silent").to_string());
    assert_eq!(status, 201, "{answer}");
    let id = answer["order_id"].as_str().unwrap().to_owned();
    wait_for_event(&mut system, &setup, &id, "PaymentRequested");
    system.kill();
    let passed = std::time::Instant::now() + std::time::Duration::from_secs(3);
    while std::time::Instant::now() < passed {
        std::thread::park_timeout(passed.saturating_duration_since(std::time::Instant::now()));
    }
    let mut system = setup.start(&flags);
    wait_for_event(&mut system, &setup, &id, "PaymentAbandoned");
    let scenario = scenario(
        "abandoned after a kill",
        json!({}),
        compensated_by("unanswered"),
        &["PaymentAbandoned", "OrderCancelled", "PaymentVoidRequested", "PaymentVoided", "StockReleased"],
        &["PaymentTaken"],
    );
    check(&mut system, &setup, &http, &scenario, &id);
    wait_for_event(&mut system, &setup, &id, "PaymentAbandoned");
    setup.ok(&["audit"]);
    system.stop();
}

#[test]
fn a_file_of_orders_settles_and_the_same_file_again_places_nothing() {
    let infrastructure = infrastructure();
    let setup = Setup::new(&infrastructure);
    let file = format!("{}/../docs/examples/orders.ndjson", env!("CARGO_MANIFEST_DIR"));
    let run = |args: &[&str]| {
        let started = setup.up(&[&["--orders-from", &file, "--until-settled"], args].concat()).spawn().unwrap();
        assert!(support::exits_with_success(started, PATIENCE), "{}", setup.log());
        setup.log()
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
    let setup = Setup::new(&support::Infrastructure::Embedded);
    let system = setup.start(&[]);
    let http = Http::new();
    let endpoints = setup.endpoints();
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
        assert!(problem.to_string().contains(word), "{name} does not contain {word:?}: {problem}");
    }
    let (status, first) = http.post(&orders, "once", good.to_string());
    assert_eq!(status, 201, "{first}");
    let (status, again) = http.post(&orders, "once", good.to_string());
    assert_eq!((status, &again["order_id"]), (201, &first["order_id"]), "the same request gets the same response");
    let (status, other) = http.post(&orders, "once", with("/lines/0/quantity", json!(2)));
    assert_eq!(status, 422, "the same key with another body: {other}");
    let placed = setup.ok(&["events", "tail", "--type", "OrderPlaced"]);
    assert_eq!(placed.lines().count(), 1, "only the good order was placed: {placed}");
    system.stop();
}
