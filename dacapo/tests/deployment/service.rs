//! `dacapo service`, `dacapo health` and `dacapo prepare`: their output and their exit codes.

use std::{
    io::Read as _,
    process::{Child, Output, Stdio},
    time::{Duration, Instant},
};

use crate::support::{PATIENCE, Setup, Signal, infrastructure, pair::Pair, signal, wait_for_exit};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn dacapo(args: &[&str]) -> Output {
    Setup::new(&infrastructure()).command().args(args).output().unwrap()
}

#[test]
fn the_error_for_an_unknown_service_lists_the_services() {
    let output = dacapo(&["service", "wharehouse", "--instance", "a"]);
    assert_eq!(output.status.code(), Some(2));
    let errors = text(&output.stderr);
    for name in dacapo::service::names() {
        assert!(errors.contains(name), "{name} is not in: {errors}");
    }
    let help = dacapo(&["service", "--help"]);
    assert!(text(&help.stdout).contains("warehouse        Holds stock"), "{}", text(&help.stdout));
}

#[test]
fn an_invalid_setting_is_reported_and_fails() {
    let output = dacapo(&["service", "warehouse", "--instance", "../x"]);
    let errors = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), String::new()), "{errors}");
    assert!(errors.contains("setting instance must be letters"), "{errors}");
    assert_eq!(dacapo(&["service", "warehouse", "--no-such-flag"]).status.code(), Some(2));
}

/// A service on a pair, and its address.
fn started(pair: &Pair, extra: &[&str]) -> (Child, String) {
    let setup = Setup::new(&infrastructure());
    let mut command = setup.command();
    command.args(["service", "payment", "--bootstrap", &pair.bootstrap(), "--registry", &pair.registry()]);
    command.args(["--listen", "127.0.0.1:0"]).args(extra);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut address = Vec::new();
    let out = child.stdout.as_mut().unwrap();
    while !address.ends_with(b"\n") {
        let mut byte = [0];
        assert_eq!(out.read(&mut byte).unwrap(), 1, "it prints its address");
        address.extend(byte);
    }
    (child, text(&address).trim().to_owned())
}

#[test]
fn without_a_broker_a_service_is_live_but_not_ready_and_every_way_to_stop_it_succeeds() {
    let pair = Pair::absent();
    let (terminated, address) = started(&pair, &[]);
    let live = dacapo(&["health", &format!("{address}/livez")]);
    assert!(live.status.success(), "{}", text(&live.stderr));
    let ready = dacapo(&["health", &format!("{address}/readyz")]);
    assert_eq!(ready.status.code(), Some(1));
    assert!(text(&ready.stderr).contains("503"), "{}", text(&ready.stderr));
    let (interrupted, _) = started(&pair, &[]);
    let (mut left_alone, _) = started(&pair, &["--until-stdin-ends"]);
    // Without the flag, the end of standard input has no effect.
    let (mut indifferent, elsewhere) = started(&pair, &[]);
    drop((left_alone.stdin.take(), indifferent.stdin.take()));
    signal(terminated.id(), Signal::TERM);
    signal(interrupted.id(), Signal::INT);
    for child in [terminated, interrupted, left_alone] {
        let status = wait_for_exit(child, Duration::from_secs(30));
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
fn a_second_instance_with_the_same_name_ends_the_first() {
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
    let status = wait_for_exit(first, PATIENCE).expect("the first instance ends");
    assert_eq!(status.code(), Some(1));
    ready(&address);
    signal(second.id(), Signal::TERM);
    assert!(wait_for_exit(second, Duration::from_secs(30)).is_some_and(|status| status.success()));
}

#[test]
fn prepare_waits_for_broker_and_registry_and_is_idempotent() {
    let mut pair = Pair::absent();
    let setup = Setup::new(&infrastructure());
    let (bootstrap, registry) = (pair.bootstrap(), pair.registry());
    let prepare = |extra: &[&str]| {
        let mut command = setup.command();
        command.args(["prepare", "--bootstrap", &bootstrap, "--registry", &registry]).args(extra);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut early = prepare(&["--partitions", "3", "--replication", "1", "--sample-data"]);
    let mut errors = String::new();
    let stderr = early.stderr.as_mut().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !errors.contains("waiting") && Instant::now() < deadline {
        let mut piece = [0; 256];
        let read = stderr.read(&mut piece).unwrap();
        assert!(read > 0, "it ended before broker and registry ran: {errors}");
        errors.push_str(&text(&piece[..read]));
    }
    pair.start_broker();
    pair.start_registry();
    let output = early.wait_with_output().unwrap();
    assert!(output.status.success(), "{errors}{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("are in the inboxes"), "{}", text(&output.stdout));
    let again = prepare(&[]).wait_with_output().unwrap();
    assert!(again.status.success(), "{}", text(&again.stderr));
    let topics = setup.command().args(["topics", "create", "--bootstrap", &bootstrap]).output().unwrap();
    assert!(text(&topics.stdout).contains("nothing to do"), "{}", text(&topics.stdout));
    // Existing topics keep their number of partitions: a key must stay in its partition.
    let other = prepare(&["--partitions", "5"]).wait_with_output().unwrap();
    assert_eq!(other.status.code(), Some(1), "{}", text(&other.stdout));
}
