//! `dacapo up --instances`: named instances as child processes, on whatever broker the environment names.

use std::{collections::BTreeSet, fs, time::Duration};

use serde_json::{Value, json};

use crate::support::{Http, Place, Signal, System, ended, ground, signal};

/// The process of an instance, if it has one.
fn process(place: &Place, instance: &str) -> Option<u32> {
    // Its data folder is in its command line, and in nobody else's.
    let data = place.data().join("instances").join(instance).display().to_string();
    let is_it = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|argument| argument == data.as_bytes())
    };
    let all = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let found: Vec<u32> = all.filter_map(|name| name.parse().ok()).filter(is_it).collect();
    assert!(found.len() <= 1, "{instance} runs more than once: {found:?}");
    found.into_iter().next()
}

fn order(sku: &str) -> String {
    let order = json!({ "customer_id": "customer-0003", "payment_method": "card-ok",
        "ship_to": { "street": "1 Quay", "city": "Bristol", "postcode": "BS1", "country": "GB" },
        "lines": [{ "sku": sku, "quantity": 1 }] });
    order.to_string()
}

fn completed(place: &Place) -> usize {
    let list = place.ok(&["sagas", "list", "--outcome", "completed", "--json"]);
    serde_json::from_str::<Value>(&list).unwrap()["items"].as_array().unwrap().len()
}

fn instance(place: &Place, service: &str, name: &str) -> String {
    place.endpoints()["instances"][service][name].as_str().unwrap_or_else(|| panic!("{name} has no address")).to_owned()
}

const INSTANCES: [&str; 4] = ["--instances", "warehouse=2,order-processor=2", "--instances", "notifications=1"];
const CHILDREN: [&str; 5] = ["warehouse-1", "warehouse-2", "order-processor-1", "order-processor-2", "notifications-1"];

#[test]
fn every_instance_serves_every_order_and_one_that_dies_comes_back() {
    let place = Place::new(&ground());
    let mut system = place.start(&INSTANCES);
    let http = Http::new();
    let [one, other] = ["order-processor-1", "order-processor-2"]
        .map(|name| format!("{}/orders", instance(&place, "order-processor", name)));
    assert_ne!(one, other);
    let mut ids = BTreeSet::new();
    for number in 0..6 {
        let (at, elsewhere) = if number % 2 == 0 { (&one, &other) } else { (&other, &one) };
        let (status, placed) = http.post(at, &format!("order {number}"), order("lp-goldberg"));
        assert_eq!(status, 201, "{placed}");
        let id = placed["order_id"].as_str().unwrap().to_owned();
        // The other one knows it as well once it has read it, and answers the same request alike.
        system.wait_for("the order at the other instance", || http.get(&format!("{elsewhere}/{id}")).0 == 200);
        let (_, again) = http.post(elsewhere, &format!("order {number}"), order("lp-goldberg"));
        assert_eq!(again["order_id"], id.as_str(), "{again}");
        ids.insert(id);
    }
    assert_eq!(ids.len(), 6);
    killed_and_back(&place, &mut system);
    let (status, placed) = http.post(&other, "after the kill", order("lp-trout"));
    assert_eq!(status, 201, "{placed}");
    system.wait_for("the end of 7 orders", || completed(&place) == 7);
    let audit = place.ok(&["audit"]);
    assert!(audit.contains("audit: clean"), "{audit}");
    system.stop();
    for child in CHILDREN {
        assert_eq!(process(&place, child), None, "{child} stops with its parent");
    }
}

/// Kills a warehouse and an order-processor; each comes back under its name, where it was.
fn killed_and_back(place: &Place, system: &mut System<'_>) {
    let http = Http::new();
    for (service, name) in [("warehouse", "warehouse-2"), ("order-processor", "order-processor-1")] {
        let (before, address) = (process(place, name).unwrap(), instance(place, service, name));
        signal(before, Signal::KILL);
        system.wait_for(&format!("{name} in a new process"), || {
            process(place, name).is_some_and(|after| after != before)
                && place.endpoints()["instances"][service][name].is_string()
        });
        assert_eq!(instance(place, service, name), address, "it listens where it did");
        system.wait_for(&format!("{name} that is ready"), || http.ready(&address));
        let log = place.log();
        assert!(log.contains(&format!("{name} has died (signal: 9 (SIGKILL)); it is started again in 0.2 s")), "{log}");
    }
}

#[test]
fn orders_settle_while_instances_die() {
    let place = Place::new(&ground());
    let all = [&INSTANCES[..], &["--orders", "400", "--rate", "100", "--until-settled"]].concat();
    let mut system = place.launch(&all);
    system.wait_until_up();
    for name in ["warehouse-1", "notifications-1", "order-processor-2", "warehouse-2"] {
        let before = process(&place, name).unwrap();
        signal(before, Signal::KILL);
        system.wait_for(&format!("{name} in a new process"), || process(&place, name).is_some_and(|now| now != before));
    }
    let log = system.ends_well();
    assert!(log.contains("400 orders in ") && log.contains("audit: clean"), "{log}");
    for child in CHILDREN {
        assert_eq!(process(&place, child), None, "{child} stops with its parent");
    }
}

#[test]
fn no_instance_outlives_a_parent_that_is_killed() {
    let place = Place::new(&ground());
    let system = place.start(&["--instances", "warehouse=2"]);
    let left: Vec<u32> = ["warehouse-1", "warehouse-2"].iter().map(|name| process(&place, name).unwrap()).collect();
    system.kill();
    // They give themselves ten seconds to end well, in vain where the broker has died with their parent.
    let system = place.launch(&["--instances", "warehouse=2", "--orders", "20", "--until-settled"]);
    let log = system.ends_well();
    assert!(log.contains("audit: clean"), "{log}");
    for process in left {
        assert!(
            !std::path::Path::new("/proc").join(process.to_string()).exists(),
            "process {process} has outlived its parent"
        );
    }
}

#[test]
fn an_instance_that_cannot_start_is_told() {
    let place = Place::new(&ground());
    for (value, word) in [
        ("wharehouse=2", "order-processor, warehouse, payment"),
        ("warehouse", "such as warehouse=3"),
        ("projector=2", "runs in this process"),
    ] {
        let output = place.command().args(["up", "--ephemeral", "--instances", value]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(word), "{value}: {said}");
    }
    // What the service itself refuses comes from it, under its name.
    let file = place.data().join("wrong.toml");
    fs::write(&file, "[services.warehouse]\nno_such_setting = 1").unwrap();
    let child = place.up(&["--instances", "warehouse=1", "--config", file.to_str().unwrap()]).spawn().unwrap();
    let status = ended(child, Duration::from_secs(90)).expect("it gives up");
    let log = place.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("warehouse-1 | ") && log.contains("no_such_setting"), "{log}");
    assert!(log.contains("warehouse-1 does not start"), "{log}");
}
