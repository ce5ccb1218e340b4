//! After every local store is deleted, a restart gives the same views, writes no event and runs no effect.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{collections::BTreeSet, fs};

use support::{Http, PATIENCE, Setup, exits_with_success, files, infrastructure};

/// The externally visible state of a system.
#[derive(Debug, PartialEq)]
struct VisibleState {
    /// Every event of every topic.
    events: BTreeSet<String>,
    /// The digest of the rebuilt view, which equals the live one.
    view: String,
    /// The ledger of the payment gateway.
    ledger: serde_json::Value,
    /// The mails that were written.
    mails: usize,
}

fn visible_state(setup: &Setup, http: &Http) -> VisibleState {
    let verified = setup.ok(&["replay", "projection", "sagas", "--verify"]);
    let view = verified.lines().find(|line| line.contains("both views are equal")).unwrap_or(&verified).to_owned();
    let (_, ledger) = http.get(&format!("{}/ledger", setup.endpoints()["stubs"].as_str().unwrap()));
    let events = setup.ok(&["events", "tail"]).lines().map(str::to_owned).collect();
    VisibleState { events, view, ledger, mails: files(&setup.data().join("mail"), ".eml").len() }
}

#[test]
fn a_system_without_its_stores_is_rebuilt_to_the_same_state() {
    let infrastructure = infrastructure();
    let setup = Setup::new(&infrastructure);
    let http = Http::new();
    let first = setup.up(&["--orders", "150", "--seed", "5", "--until-settled"]).spawn().unwrap();
    assert!(exits_with_success(first, PATIENCE), "{}", setup.log());
    let system = setup.start(&[]);
    let before = visible_state(&setup, &http);
    assert!(
        before.events.len() > 1_000 && before.mails > 100,
        "{} events, {} mails",
        before.events.len(),
        before.mails
    );
    system.stop();
    let stores = setup.data().join("stores");
    assert!(stores.is_dir(), "the stores are in {}", stores.display());
    fs::remove_dir_all(&stores).unwrap();
    let system = setup.start(&[]);
    let after = visible_state(&setup, &http);
    assert_eq!(after.events.difference(&before.events).collect::<Vec<_>>(), Vec::<&String>::new(), "new events");
    assert_eq!(after, before, "on {infrastructure:?}");
    system.stop();
}
