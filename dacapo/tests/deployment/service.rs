//! `dacapo service`, `dacapo health` and `dacapo prepare` by themselves: what they say, and how they end.

use std::{
    io::Read as _,
    process::{Child, Output, Stdio},
    time::{Duration, Instant},
};

use crate::support::{PATIENCE, Place, Signal, ended, ground, pair::Pair, signal};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn dacapo(args: &[&str]) -> Output {
    Place::new(&ground()).command().args(args).output().unwrap()
}

#[test]
fn a_wrong_name_is_answered_with_the_names_that_there_are() {
    let output = dacapo(&["service", "wharehouse", "--instance", "a"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    for name in dacapo::service::names() {
        assert!(said.contains(name), "{name} is not in: {said}");
    }
    let help = dacapo(&["service", "--help"]);
    assert!(text(&help.stdout).contains("warehouse        Holds stock"), "{}", text(&help.stdout));
}

#[test]
fn a_setting_that_makes_no_sense_is_told_and_ends_it() {
    let output = dacapo(&["service", "warehouse", "--instance", "../x"]);
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), String::new()), "{said}");
    assert!(said.contains("setting instance must be letters"), "{said}");
    assert_eq!(dacapo(&["service", "warehouse", "--no-such-flag"]).status.code(), Some(2));
}

/// A service on a pair, once it has said where it listens.
fn started(pair: &Pair, extra: &[&str]) -> (Child, String) {
    let place = Place::new(&ground());
    let mut command = place.command();
    command.args(["service", "payment", "--bootstrap", &pair.bootstrap(), "--registry", &pair.registry()]);
    command.args(["--listen", "127.0.0.1:0"]).args(extra);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut address = Vec::new();
    let out = child.stdout.as_mut().unwrap();
    while !address.ends_with(b"\n") {
        let mut byte = [0];
        assert_eq!(out.read(&mut byte).unwrap(), 1, "it says where it listens");
        address.extend(byte);
    }
    (child, text(&address).trim().to_owned())
}

#[test]
fn before_its_broker_is_there_it_lives_and_is_not_ready_and_each_way_to_stop_it_is_a_good_end() {
    let pair = Pair::absent();
    let (terminated, address) = started(&pair, &[]);
    let live = dacapo(&["health", &format!("{address}/livez")]);
    assert!(live.status.success(), "{}", text(&live.stderr));
    let ready = dacapo(&["health", &format!("{address}/readyz")]);
    assert_eq!(ready.status.code(), Some(1));
    assert!(text(&ready.stderr).contains("503"), "{}", text(&ready.stderr));
    let (interrupted, _) = started(&pair, &[]);
    let (mut left_alone, _) = started(&pair, &["--until-stdin-ends"]);
    // Its standard input ends, and it is not asked to care.
    let (mut indifferent, elsewhere) = started(&pair, &[]);
    drop((left_alone.stdin.take(), indifferent.stdin.take()));
    signal(terminated.id(), Signal::TERM);
    signal(interrupted.id(), Signal::INT);
    for child in [terminated, interrupted, left_alone] {
        let status = ended(child, Duration::from_secs(30));
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
    }
    assert!(dacapo(&["health", &format!("{elsewhere}/livez")]).status.success());
    indifferent.kill().unwrap();
    indifferent.wait().unwrap();
    let gone = dacapo(&["health", &format!("{elsewhere}/livez"), "--timeout", "2"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(text(&gone.stderr).contains("does not answer"), "{}", text(&gone.stderr));
}

#[test]
fn a_name_that_is_taken_over_ends_the_one_that_had_it() {
    let pair = Pair::start();
    let prepared = dacapo(&["prepare", "--bootstrap", &pair.bootstrap(), "--registry", &pair.registry()]);
    assert!(prepared.status.success(), "{}", text(&prepared.stderr));
    let ready = |address: &str| {
        let deadline = Instant::now() + PATIENCE;
        while !dacapo(&["health", &format!("{address}/readyz")]).status.success() {
            assert!(Instant::now() < deadline, "{address} is not ready");
            std::thread::park_timeout(Duration::from_millis(50));
        }
    };
    let (first, address) = started(&pair, &["--instance", "a"]);
    ready(&address);
    let (second, address) = started(&pair, &["--instance", "a"]);
    let status = ended(first, PATIENCE).expect("the first one ends");
    assert_eq!(status.code(), Some(1));
    ready(&address);
    signal(second.id(), Signal::TERM);
    assert!(ended(second, Duration::from_secs(30)).is_some_and(|status| status.success()));
}

#[test]
fn preparing_waits_for_broker_and_registry_and_does_nothing_twice() {
    let mut pair = Pair::absent();
    let place = Place::new(&ground());
    let (bootstrap, registry) = (pair.bootstrap(), pair.registry());
    let prepare = |extra: &[&str]| {
        let mut command = place.command();
        command.args(["prepare", "--bootstrap", &bootstrap, "--registry", &registry]).args(extra);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut early = prepare(&["--partitions", "3", "--replication", "1", "--seed"]);
    let mut said = String::new();
    let errors = early.stderr.as_mut().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !said.contains("waiting") && Instant::now() < deadline {
        let mut piece = [0; 256];
        let read = errors.read(&mut piece).unwrap();
        assert!(read > 0, "it ended before anything was there: {said}");
        said.push_str(&text(&piece[..read]));
    }
    pair.start_broker();
    pair.start_registry();
    let output = early.wait_with_output().unwrap();
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("are in the inboxes"), "{}", text(&output.stdout));
    let again = prepare(&[]).wait_with_output().unwrap();
    assert!(again.status.success(), "{}", text(&again.stderr));
    let topics = place.command().args(["topics", "create", "--bootstrap", &bootstrap]).output().unwrap();
    assert!(text(&topics.stdout).contains("nothing to do"), "{}", text(&topics.stdout));
    // Topics that are there keep their number: a key must stay in its partition.
    let other = prepare(&["--partitions", "5"]).wait_with_output().unwrap();
    assert_eq!(other.status.code(), Some(1), "{}", text(&other.stdout));
}
