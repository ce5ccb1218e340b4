//! `dacapo up --instances`: named instances as child processes, on the broker that the environment names.

use std::{collections::BTreeSet, fs, time::Duration};

use serde_json::{Value, json};

use crate::support::{Http, RunningSystem, Setup, Signal, infrastructure, signal, wait_for_exit};

/// The process id of an instance, if it runs.
fn process(setup: &Setup, instance: &str) -> Option<u32> {
    // Only the command line of this instance contains its data folder.
    let data = setup.data().join("instances").join(instance).display().to_string();
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

fn completed(setup: &Setup) -> usize {
    let list = setup.ok(&["sagas", "list", "--outcome", "completed", "--json"]);
    serde_json::from_str::<Value>(&list).unwrap()["items"].as_array().unwrap().len()
}

fn instance(setup: &Setup, service: &str, name: &str) -> String {
    setup.endpoints()["instances"][service][name].as_str().unwrap_or_else(|| panic!("{name} has no address")).to_owned()
}

const INSTANCES: [&str; 4] = ["--instances", "warehouse=2,order-processor=2", "--instances", "notifications=1"];
const CHILDREN: [&str; 5] = ["warehouse-1", "warehouse-2", "order-processor-1", "order-processor-2", "notifications-1"];

#[test]
fn every_instance_serves_every_order_and_restarts_after_a_crash() {
    let setup = Setup::new(&infrastructure());
    let mut system = setup.start(&INSTANCES);
    let http = Http::new();
    let [one, other] = ["order-processor-1", "order-processor-2"]
        .map(|name| format!("{}/orders", instance(&setup, "order-processor", name)));
    assert_ne!(one, other);
    let mut ids = BTreeSet::new();
    for number in 0..6 {
        let (at, elsewhere) = if number % 2 == 0 { (&one, &other) } else { (&other, &one) };
        let (status, placed) = http.post(at, &format!("order {number}"), order("lp-goldberg"));
        assert_eq!(status, 201, "{placed}");
        let id = placed["order_id"].as_str().unwrap().to_owned();
        // The other instance serves the order once it has read it, and gives the same response to the same request.
        system.wait_for("the order at the other instance", || http.get(&format!("{elsewhere}/{id}")).0 == 200);
        let (_, again) = http.post(elsewhere, &format!("order {number}"), order("lp-goldberg"));
        assert_eq!(again["order_id"], id.as_str(), "{again}");
        ids.insert(id);
    }
    assert_eq!(ids.len(), 6);
    killed_instances_restart(&setup, &mut system);
    let (status, placed) = http.post(&other, "after the kill", order("lp-trout"));
    assert_eq!(status, 201, "{placed}");
    system.wait_for("7 completed orders", || completed(&setup) == 7);
    let audit = setup.ok(&["audit"]);
    assert!(audit.contains("audit: clean"), "{audit}");
    system.stop();
    for child in CHILDREN {
        assert_eq!(process(&setup, child), None, "{child} must stop with its parent");
    }
}

/// Kills a warehouse and an order-processor; each restarts with its name, at its address.
fn killed_instances_restart(setup: &Setup, system: &mut RunningSystem<'_>) {
    let http = Http::new();
    for (service, name) in [("warehouse", "warehouse-2"), ("order-processor", "order-processor-1")] {
        let (before, address) = (process(setup, name).unwrap(), instance(setup, service, name));
        signal(before, Signal::KILL);
        system.wait_for(&format!("{name} in a new process"), || {
            process(setup, name).is_some_and(|after| after != before)
                && setup.endpoints()["instances"][service][name].is_string()
        });
        assert_eq!(instance(setup, service, name), address, "it listens at the same address");
        system.wait_for(&format!("{name} that is ready"), || http.ready(&address));
        let log = setup.log();
        assert!(log.contains(&format!("{name} exited (signal: 9 (SIGKILL)); restarting in 0.2 s")), "{log}");
    }
}

#[test]
fn orders_settle_while_instances_are_killed() {
    let setup = Setup::new(&infrastructure());
    let all = [&INSTANCES[..], &["--orders", "400", "--rate", "100", "--until-settled"]].concat();
    let mut system = setup.launch(&all);
    system.wait_until_up();
    for name in ["warehouse-1", "notifications-1", "order-processor-2", "warehouse-2"] {
        let before = process(&setup, name).unwrap();
        signal(before, Signal::KILL);
        system.wait_for(&format!("{name} in a new process"), || process(&setup, name).is_some_and(|now| now != before));
    }
    let log = system.exits_successfully();
    assert!(log.contains("400 orders in ") && log.contains("audit: clean"), "{log}");
    for child in CHILDREN {
        assert_eq!(process(&setup, child), None, "{child} must stop with its parent");
    }
}

#[test]
fn no_instance_outlives_a_parent_that_is_killed() {
    let setup = Setup::new(&infrastructure());
    let system = setup.start(&["--instances", "warehouse=2"]);
    let left: Vec<u32> = ["warehouse-1", "warehouse-2"].iter().map(|name| process(&setup, name).unwrap()).collect();
    system.kill();
    // The instances take up to ten seconds to stop, because their broker was killed with their parent.
    let system = setup.launch(&["--instances", "warehouse=2", "--orders", "20", "--until-settled"]);
    let log = system.exits_successfully();
    assert!(log.contains("audit: clean"), "{log}");
    for process in left {
        assert!(
            !std::path::Path::new("/proc").join(process.to_string()).exists(),
            "process {process} has outlived its parent"
        );
    }
}

#[test]
fn an_instance_that_cannot_start_is_reported() {
    let setup = Setup::new(&infrastructure());
    for (value, word) in [
        ("wharehouse=2", "order-processor, warehouse, payment"),
        ("warehouse", "such as warehouse=3"),
        ("projector=2", "runs in this process"),
    ] {
        let output = setup.command().args(["up", "--ephemeral", "--instances", value]).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && errors.contains(word), "{value}: {errors}");
    }
    // An error of the service itself is printed with the name of the instance.
    let file = setup.data().join("wrong.toml");
    fs::write(&file, "[services.warehouse]\nno_such_setting = 1").unwrap();
    let child = setup.up(&["--instances", "warehouse=1", "--config", file.to_str().unwrap()]).spawn().unwrap();
    let status = wait_for_exit(child, Duration::from_secs(90)).expect("up gives up");
    let log = setup.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("warehouse-1 | ") && log.contains("no_such_setting"), "{log}");
    assert!(log.contains("warehouse-1 does not start"), "{log}");
}
