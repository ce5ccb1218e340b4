//! Every local store is deleted and the system started again: the same views, no new event, no effect.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{collections::BTreeSet, fs};

use support::{Http, PATIENCE, Place, files, ground, wait_until_ended};

/// What can be seen of a system from outside.
#[derive(Debug, PartialEq)]
struct Seen {
    /// Every event, as it lies on its topic.
    events: BTreeSet<String>,
    /// The digest of the rebuilt view, which equals the live one.
    view: String,
    /// What the payment gateway has done.
    ledger: serde_json::Value,
    /// The mails that were written.
    mails: usize,
}

fn look(place: &Place, http: &Http) -> Seen {
    let verified = place.ok(&["replay", "projection", "sagas", "--verify"]);
    let view = verified.lines().find(|line| line.contains("both views are equal")).unwrap_or(&verified).to_owned();
    let (_, ledger) = http.get(&format!("{}/ledger", place.endpoints()["outside"].as_str().unwrap()));
    let events = place.ok(&["events", "tail"]).lines().map(str::to_owned).collect();
    Seen { events, view, ledger, mails: files(&place.data().join("mail"), ".eml").len() }
}

#[test]
fn without_its_stores_it_is_the_same_system() {
    let ground = ground();
    let place = Place::new(&ground);
    let http = Http::new();
    let first = place.up(&["--orders", "150", "--seed", "5", "--until-settled"]).spawn().unwrap();
    assert!(wait_until_ended(first, PATIENCE), "{}", place.log());
    let system = place.start(&[]);
    let before = look(&place, &http);
    assert!(
        before.events.len() > 1_000 && before.mails > 100,
        "{} events, {} mails",
        before.events.len(),
        before.mails
    );
    system.stop();
    let stores = place.data().join("stores");
    assert!(stores.is_dir(), "the stores lie in {}", stores.display());
    fs::remove_dir_all(&stores).unwrap();
    let system = place.start(&[]);
    let after = look(&place, &http);
    assert_eq!(
        after.events.difference(&before.events).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "events that came anew"
    );
    assert_eq!(after, before, "on {ground:?}");
    system.stop();
}
