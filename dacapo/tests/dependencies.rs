//! The broker or the registry is not there yet, or goes away and comes back: services say so, wait, and go on where they were.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Instant;

use payment::{Payment, effects::Gateway};
use runtime::{
    config::Config,
    service::{Running, StartError},
};
use serde_json::{Value, json};
use support::{Ground, Http, PATIENCE, Place, System, pair::Pair};

/// Waits for a condition.
#[track_caller]
fn wait_for<T>(what: &str, mut found: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match found() {
            Ok(found) => return found,
            Err(seen) => assert!(Instant::now() < deadline, "{what} did not come; last seen: {seen}"),
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
fn a_service_alone_says_what_it_waits_for_until_it_has_it() {
    let (mut pair, place) = (Pair::absent(), Place::new(&Ground::Embedded));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // A service writes nothing that the registry does not know: it refuses to start, and says who can change that.
    pair.start_registry();
    let refused = runtime.block_on(payment_on(&pair)).err().unwrap();
    let reason = format!("{:#}", anyhow::Error::from(refused));
    assert!(reason.contains("PaymentAwaited") && reason.contains("dacapo schemas register"), "{reason}");
    place.ok(&["schemas", "register", "--apply", "--registry", &pair.registry()]);
    pair.stop_registry();

    let payment = runtime.block_on(payment_on(&pair)).unwrap();
    let (http, url) = (Http::new(), format!("http://{}", payment.http_addr().unwrap()));
    let waits_for = |word: &str| {
        wait_for(&format!("{word:?} on /readyz"), || {
            let (status, text) = http.get_text(&format!("{url}/readyz?verbose"));
            if status == 503 && text.contains(word) { Ok(()) } else { Err(format!("{status} {text}")) }
        });
        assert_eq!(http.get(&format!("{url}/livez")).0, 200, "who waits lives");
    };
    waits_for(&pair.registry());
    pair.start_registry();
    waits_for(&pair.bootstrap());
    pair.start_broker();
    waits_for("dacapo topics create");
    place.ok(&["topics", "create", "--apply", "--bootstrap", &pair.bootstrap()]);
    wait_for("a ready service", || match http.get_text(&format!("{url}/readyz?verbose")) {
        (200, _) => Ok(()),
        (status, text) => Err(format!("{status} {text}")),
    });
    assert!(runtime.block_on(payment.stop()));
}

#[test]
fn everything_comes_up_when_its_broker_does_and_outlives_its_absence() {
    let (mut pair, place) = (Pair::absent(), Place::new(&Ground::Embedded));
    let (bootstrap, registry) = (pair.bootstrap(), pair.registry());
    let mut system = place.launch(&["--bootstrap", &bootstrap, "--registry", &registry]);
    let says = |word: &str| place.log().contains(&format!("waiting: cannot {word}"));
    system.wait_for("what it waits for", || says(&format!("compare the schemas with the registry at {registry}")));
    pair.start_registry();
    system.wait_for("the next thing it waits for", || says(&format!("list topics at {bootstrap}")));
    pair.start_broker();
    system.wait_until_up();
    let shop = Shop { place: &place, http: Http::new() };
    shop.orders_settle(&mut system, "first", 3);

    pair.stop_registry();
    shop.place("without a registry", 3);
    pair.start_registry();
    shop.settle(&mut system, 6);

    pair.stop_broker();
    for service in ["payment", "warehouse"] {
        let (_, text) = wait_for("a service that says that it is not ready", || match shop.ready(service) {
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
    place.ok(&["audit"]);
    system.stop();
}

struct Shop<'a> {
    place: &'a Place,
    http: Http,
}

impl Shop<'_> {
    fn service(&self, name: &str) -> String {
        self.place.endpoints()["services"][name].as_str().unwrap().to_owned()
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
            // Until it is taken: the key makes sure that it is one order.
            wait_for("an order that is taken", || {
                match self.http.post(&url, &format!("{what} {number}"), order.to_string()) {
                    (200..=202, _) => Ok(()),
                    (status, answer) => Err(format!("{status} {answer}")),
                }
            });
        }
    }

    /// All orders so far are completed, and there are so many.
    fn settle(&self, system: &mut System<'_>, orders: usize) {
        system.wait_for(&format!("the end of {orders} orders"), || {
            let list = self.place.ok(&["sagas", "list", "--outcome", "completed", "--json"]);
            serde_json::from_str::<Value>(&list).unwrap()["items"].as_array().unwrap().len() == orders
        });
    }

    fn orders_settle(&self, system: &mut System<'_>, what: &str, all: usize) {
        self.place(what, 3);
        self.settle(system, all);
    }
}
