//! The broker or the registry starts late, or stops and starts again: services report it, wait, and continue.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Instant;

use payment::{Payment, effects::Gateway};
use runtime::{
    config::Config,
    service::{Running, StartError},
};
use serde_json::{Value, json};
use support::{Http, Infrastructure, PATIENCE, RunningSystem, Setup, pair::Pair};

/// Waits for a condition.
#[track_caller]
fn wait_for<T>(what: &str, mut found: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match found() {
            Ok(found) => return found,
            Err(last) => assert!(Instant::now() < deadline, "{what} did not come; last: {last}"),
        }
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
}

async fn payment_on(pair: &Pair) -> Result<Running, StartError> {
    let config = Config {
        bootstrap: pair.bootstrap(),
        registry_url: pair.registry(),
        listen: Some(([127, 0, 0, 1], 0).into()),
        ..Config::for_tests().for_service("payment")
    };
    payment::service(config, Payment::default(), Gateway::at("http://127.0.0.1:9").unwrap()).await
}

#[test]
fn a_service_reports_what_it_waits_for_until_it_is_there() {
    let (mut pair, setup) = (Pair::absent(), Setup::new(&Infrastructure::Embedded));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // A service refuses to start while the registry does not know its schemas, and names the command that registers them.
    pair.start_registry();
    let refused = runtime.block_on(payment_on(&pair)).err().unwrap();
    let reason = format!("{:#}", anyhow::Error::from(refused));
    assert!(reason.contains("PaymentAwaited") && reason.contains("dacapo schemas register"), "{reason}");
    setup.ok(&["schemas", "register", "--apply", "--registry", &pair.registry()]);
    pair.stop_registry();

    let payment = runtime.block_on(payment_on(&pair)).unwrap();
    let (http, url) = (Http::new(), format!("http://{}", payment.http_addr().unwrap()));
    let waits_for = |word: &str| {
        wait_for(&format!("{word:?} on /readyz"), || {
            let (status, text) = http.get_text(&format!("{url}/readyz?verbose"));
            if status == 503 && text.contains(word) { Ok(()) } else { Err(format!("{status} {text}")) }
        });
        assert_eq!(http.get(&format!("{url}/livez")).0, 200, "a waiting service is live");
    };
    waits_for(&pair.registry());
    pair.start_registry();
    waits_for(&pair.bootstrap());
    pair.start_broker();
    waits_for("dacapo topics create");
    setup.ok(&["topics", "create", "--apply", "--bootstrap", &pair.bootstrap()]);
    wait_for("a ready service", || match http.get_text(&format!("{url}/readyz?verbose")) {
        (200, _) => Ok(()),
        (status, text) => Err(format!("{status} {text}")),
    });
    assert!(runtime.block_on(payment.stop()));
}

#[test]
fn the_system_starts_with_its_broker_and_survives_an_outage() {
    let (mut pair, setup) = (Pair::absent(), Setup::new(&Infrastructure::Embedded));
    let (bootstrap, registry) = (pair.bootstrap(), pair.registry());
    let mut system = setup.launch(&["--bootstrap", &bootstrap, "--registry", &registry]);
    let waits_for = |word: &str| setup.log().contains(&format!("waiting: cannot {word}"));
    system.wait_for("the first dependency", || {
        waits_for(&format!("compare the schemas with the registry at {registry}"))
    });
    pair.start_registry();
    system.wait_for("the next dependency", || waits_for(&format!("list topics at {bootstrap}")));
    pair.start_broker();
    system.wait_until_up();
    let shop = Shop { setup: &setup, http: Http::new() };
    shop.orders_settle(&mut system, "first", 3);

    pair.stop_registry();
    shop.place("without a registry", 3);
    pair.start_registry();
    shop.settle(&mut system, 6);

    pair.stop_broker();
    for service in ["payment", "warehouse"] {
        let (_, text) = wait_for("a service that reports that it is not ready", || match shop.ready(service) {
            (503, text) => Ok((503, text)),
            (status, text) => Err(format!("{status} {text}")),
        });
        assert!(text.contains("[-]"), "{service}: {text}");
    }
    pair.start_broker();
    for service in ["payment", "warehouse"] {
        wait_for("a service that is ready again", || match shop.ready(service) {
            (200, _) => Ok(()),
            (status, text) => Err(format!("{status} {text}")),
        });
    }
    shop.orders_settle(&mut system, "afterwards", 9);
    setup.ok(&["audit"]);
    system.stop();
}

struct Shop<'a> {
    setup: &'a Setup,
    http: Http,
}

impl Shop<'_> {
    fn service(&self, name: &str) -> String {
        self.setup.endpoints()["services"][name].as_str().unwrap().to_owned()
    }

    fn ready(&self, service: &str) -> (u16, String) {
        self.http.get_text(&format!("{}/readyz?verbose", self.service(service)))
    }

    fn place(&self, what: &str, orders: u32) {
        let url = format!("{}/orders", self.service("order-processor"));
        let order = json!({ "customer_id": "customer-0003", "payment_method": "card-ok",
            "ship_to": { "street": "1 Quay", "city": "Bristol", "postcode": "BS1", "country": "GB" },
            "lines": [{ "sku": "lp-goldberg", "quantity": 1 }] });
        for number in 0..orders {
            // Repeated until it is accepted: the idempotency key makes it one order.
            wait_for("an accepted order", || {
                match self.http.post(&url, &format!("{what} {number}"), order.to_string()) {
                    (200..=202, _) => Ok(()),
                    (status, answer) => Err(format!("{status} {answer}")),
                }
            });
        }
    }

    /// Waits until this many orders are completed.
    fn settle(&self, system: &mut RunningSystem<'_>, orders: usize) {
        system.wait_for(&format!("{orders} completed orders"), || {
            let list = self.setup.ok(&["sagas", "list", "--outcome", "completed", "--json"]);
            serde_json::from_str::<Value>(&list).unwrap()["items"].as_array().unwrap().len() == orders
        });
    }

    fn orders_settle(&self, system: &mut RunningSystem<'_>, what: &str, all: usize) {
        self.place(what, 3);
        self.settle(system, all);
    }
}
