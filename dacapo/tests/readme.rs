//! Runs the commands that README.md and docs/ show, in their order, in a folder that looks like a checkout.
//!
//! [`SHOWN`] lists them: what is replaced for the test (numbers, addresses, ports), what must be printed, and why a command is not run
//! here. A command that is not listed fails the test, and so does an entry that no document shows.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use serde_json::Value;
use support::{PATIENCE, long_running::LongRunning, pair::Pair};
use tempfile::TempDir;

/// How the test runs a command of a document.
#[derive(Clone, Copy)]
enum DocumentTest {
    /// Runs it to its end, which must be a success, and looks for these words in its output.
    Run(&'static [&'static str]),
    /// Runs it until it prints this word, and keeps it running for the following commands, until the next `up`.
    KeepRunning(&'static str),
    /// Runs it until it prints this word, and sends Ctrl-C.
    Interrupt(&'static str),
    /// Skips it, for this reason.
    Skip(&'static str),
}

use DocumentTest::{Interrupt, KeepRunning, Run, Skip};

struct Shown {
    command: &'static str,
    /// Texts of the document, and their replacements here. [`Checkout::fill`] fills in the texts in capitals.
    change: &'static [(&'static str, &'static str)],
    test: DocumentTest,
}

const fn shown(command: &'static str, change: &'static [(&'static str, &'static str)], test: DocumentTest) -> Shown {
    Shown { command, change, test }
}

/// The built program instead of one that is built first, and free ports instead of the well-known ones.
const HERE: &[(&str, &str)] =
    &[("cargo run --release -- up", "dacapo up FREE_PORTS"), ("dacapo up --", "dacapo up FREE_PORTS --")];

/// Meaningful figures need an idle machine and minutes.
const BENCH: DocumentTest = Skip("a release build, and minutes on an idle machine");

/// A hundred faults take minutes.
const CHAOS: DocumentTest = Skip("a release build, and minutes; chaos/tests injects a few faults");

/// These commands need a parked record.
const PARKED: DocumentTest = Skip("bad_topics.rs runs them on a system with parked records");

/// The simulation's commands run for minutes.
const SIMULATED: DocumentTest =
    Skip("a release build; .ci/run runs these seeds and mutants, and the simulation's own tests its scenarios");

/// Not every machine has a container engine.
const CONTAINERS: DocumentTest =
    Skip("needs a container engine; dacapo/tests/deployment checks the files against the programs");

/// Every command that a document shows, in the order of the documents.
const SHOWN: &[Shown] = &[
    shown(
        "cargo run --release -- up --orders 1000 --until-settled --ephemeral",
        &[("1000", "40")],
        Run(&["| completed", "40 orders in ", "orders/s", "money: captured", "stock: received", "audit: clean"]),
    ),
    shown("cargo test --workspace", &[], Skip("this test is one of them")),
    shown("cargo run --release -- up --orders 200", &[("200", "20")], KeepRunning("20 orders placed")),
    shown("dacapo sagas list --state completed", &[], Run(&["order-fulfilment", "completed"])),
    shown("dacapo sagas show ORDER", &[], Run(&["order-fulfilment", "OrderPlaced"])),
    shown("dacapo sagas watch", &[], Interrupt("Ctrl-C ends")),
    shown("dacapo sagas counts", &[], Run(&["order-fulfilment", "completed"])),
    shown("dacapo audit", &[], Run(&["audit: clean"])),
    shown("dacapo replay projection sagas --verify", &[], Run(&["both views are equal"])),
    shown("dacapo parked list", &[], Run(&["nothing is parked"])),
    shown("dacapo events tail --follow", &[], Interrupt("OrderCompleted")),
    shown(
        r#"dacapo send catalogue ChangePrice --key lp-trout '{"sku":"lp-trout","new_price":{"amount_minor":990,"currency":"EUR"}}'"#,
        &[],
        Run(&["musiccorp.catalogue.inbox/", "dacapo events tail --correlation lp-trout"]),
    ),
    shown(
        "dacapo schemas register --bootstrap kafka:9092 --registry http://registry:8081",
        &[("kafka:9092", "OWN_KAFKA"), ("http://registry:8081", "OWN_REGISTRY")],
        Run(&["would make ", "--apply does it"]),
    ),
    shown(
        "dacapo topics create --bootstrap kafka:9092",
        &[("kafka:9092", "OWN_KAFKA")],
        Run(&["would create 30 topics; --apply does it"]),
    ),
    shown(
        "dacapo up --bootstrap kafka:9092 --registry http://registry:8081",
        &[("kafka:9092", "OWN_KAFKA"), ("http://registry:8081", "OWN_REGISTRY")],
        KeepRunning("up after "),
    ),
    shown(
        "DACAPO_FUZZ_SECONDS=3600 cargo test --release -p dacapo-embedded --lib fuzz -- --nocapture",
        &[],
        Skip("an hour; every test run fuzzes for some seconds"),
    ),
    shown("cargo run --release -p chaos -- --seed 42 --faults 100", &[], CHAOS),
    shown("cargo run --release -p chaos -- --seed 42 --faults 100 --brokers apache", &[], CHAOS),
    shown("cargo run --release -p chaos -- --seed 42 --faults 100 --plan-only", &[], CHAOS),
    shown("dacapo up --instances warehouse=3,order-processor=2", &[], Interrupt("Ctrl-C stops")),
    shown(
        "dacapo prepare --bootstrap kafka:9092 --registry http://registry:8081 --sample-data",
        &[("kafka:9092", "OWN_KAFKA"), ("http://registry:8081", "OWN_REGISTRY")],
        Run(&["topics and schemas exist", "are in the inboxes"]),
    ),
    shown("dacapo stubs --listen 0.0.0.0:8090", &[("0.0.0.0:8090", "127.0.0.1:0")], Interrupt("listen on http")),
    shown(
        "dacapo service warehouse --bootstrap kafka:9092 --registry http://registry:8081 --instance a --data stores --listen 0.0.0.0:8080",
        &[("kafka:9092", "OWN_KAFKA"), ("http://registry:8081", "OWN_REGISTRY"), ("0.0.0.0:8080", "127.0.0.1:0")],
        Interrupt("partitions assigned"),
    ),
    shown(
        "dacapo health http://127.0.0.1:8080/readyz",
        &[],
        Skip("dacapo/tests/deployment runs it for every process, at free ports"),
    ),
    shown("docker compose up --build --detach", &[], CONTAINERS),
    shown("docker compose up --build --detach --no-deps warehouse-a", &[], CONTAINERS),
    shown("docker compose up --build --detach --no-deps warehouse-b", &[], CONTAINERS),
    shown("scripts/processes.sh", &[], Skip("runs a test of dacapo/tests/deployment, which runs anyway")),
    shown(
        "dacapo up --orders-from docs/examples/orders.ndjson --until-settled --ephemeral",
        &[],
        Skip("stories.rs places this file twice"),
    ),
    shown("dacapo orders 220 --seed 2026 > orders.ndjson", &[], Run(&[])),
    shown(
        "dacapo orders 50 --short 40 | dacapo up --orders-from - --until-settled --ephemeral",
        &[("50", "20")],
        Run(&["| short", "20 orders in ", "audit: clean"]),
    ),
    shown("dacapo parked list", &[], PARKED),
    shown("dacapo parked show POSITION", &[], PARKED),
    shown("dacapo sagas list --flag parked", &[], PARKED),
    shown("dacapo parked retry POSITION", &[], PARKED),
    shown("dacapo parked retry --all", &[], PARKED),
    shown(r#"dacapo parked drop POSITION --reason "a test record""#, &[], PARKED),
    shown("cargo build --release -p dacapo", &[], Skip("a long build; the tests have their own")),
    shown(
        "/usr/bin/time -v target/release/dacapo up --orders 10000 --until-settled --ephemeral",
        &[("10000", "20"), ("/usr/bin/time -v target/release/dacapo up", "dacapo up FREE_PORTS")],
        Run(&["20 orders in ", "orders/s", "audit: clean"]),
    ),
    shown("cargo build --profile profiling -p dacapo", &[], Skip("a long build; the tests have their own")),
    shown(
        "perf record -F 499 -g -o perf.data target/profiling/dacapo up --orders 5000 --until-settled --ephemeral",
        &[],
        Skip("not every machine has perf and a release build"),
    ),
    shown(
        "perf report -i perf.data --no-children -g none --sort comm,dso",
        &[],
        Skip("reads the output of the command before it"),
    ),
    shown("cargo run --release -p bench -- latency", &[], BENCH),
    shown("cargo run --release -p bench -- parked", &[], BENCH),
    shown("cargo run --release -p bench -- recovery", &[], BENCH),
    shown("cargo run --release -p simulation -- --seeds 10000", &[], SIMULATED),
    shown("cargo run --release -p simulation -- --minutes 60 --from 1", &[], SIMULATED),
    shown("cargo run --release -p simulation -- --minutes 60 --wild", &[], SIMULATED),
    shown("cargo run --release -p simulation -- --mutants", &[], SIMULATED),
    shown("cargo run --release -p simulation -- --seed 42", &[], SIMULATED),
    shown("cargo run --release -p simulation -- --seed 42 --saga ID", &[], SIMULATED),
];

#[test]
fn the_commands_of_the_documents_work() {
    let checkout = Checkout::new();
    let (mut running, mut next) = (None, SHOWN.iter());
    for (document, command) in commands() {
        let expected = next.next().map(|shown| shown.command);
        assert_eq!(Some(command.as_str()), expected, "{document} shows a command that this test does not list there");
        let shown = &SHOWN[SHOWN.len() - next.len() - 1];
        let line = checkout.fill(shown);
        if let Some(before) = running.take_if(|_| line.contains("dacapo up ")) {
            LongRunning::interrupt(before);
        }
        match shown.test {
            Run(words) => checkout.run(&line, words),
            KeepRunning(word) => {
                let up = LongRunning::start(&mut checkout.shell(&line));
                up.wait_for(word);
                checkout.wait_until_settled(orders_of(&line));
                running = Some(up);
            }
            Interrupt(word) => {
                let long_running = LongRunning::start(&mut checkout.shell(&line));
                long_running.wait_for(word);
                long_running.interrupt();
            }
            Skip(reason) => assert!(!reason.is_empty()),
        }
    }
    if let Some(last) = running {
        LongRunning::interrupt(last);
    }
    assert_eq!(next.next().map(|shown| shown.command), None, "no document shows this command");
    let (made, kept) = (checkout.read("orders.ndjson"), checkout.read("docs/examples/orders.ndjson"));
    assert_eq!(made, kept, "docs/orders.md names the command that made the example");
    assert_eq!(kept.lines().count(), 220);
}

/// Every line of every `sh` block of README.md and docs/, without its comment, and its document.
fn commands() -> Vec<(String, String)> {
    let root = root();
    let mut documents = support::files(&root.join("docs"), ".md");
    documents.sort();
    documents.insert(0, root.join("README.md"));
    let mut commands = Vec::new();
    for document in documents {
        let (name, text) =
            (document.strip_prefix(&root).unwrap().display().to_string(), fs::read_to_string(&document).unwrap());
        for block in text.split("```sh\n").skip(1) {
            let block = block.split("```").next().unwrap();
            let lines =
                block.lines().map(|line| line.split(" # ").next().unwrap().trim()).filter(|line| !line.is_empty());
            commands.extend(lines.map(|line| (name.clone(), line.to_owned())));
        }
    }
    assert!(!commands.is_empty());
    commands
}

/// How many orders an `up` places.
fn orders_of(line: &str) -> u64 {
    line.split_once("--orders ").map_or(0, |(_, rest)| rest.split(' ').next().unwrap().parse().unwrap())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// A folder with the documents and the schemas of the checkout, `dacapo` on the path, and a separate Kafka.
struct Checkout {
    folder: TempDir,
    pair: Pair,
}

impl Checkout {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for part in ["docs", "schemas"] {
            std::os::unix::fs::symlink(root().join(part), folder.path().join(part)).unwrap();
        }
        fs::create_dir(folder.path().join("bin")).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_dacapo"), folder.path().join("bin/dacapo")).unwrap();
        Self { folder, pair: Pair::start() }
    }

    /// The command line that is run here.
    fn fill(&self, shown: &Shown) -> String {
        let mut line = shown.command.to_owned();
        for (from, to) in shown.change.iter().chain(HERE) {
            assert!(HERE.iter().any(|(here, _)| here == from) || line.contains(from), "{from:?} is not in {line:?}");
            line = line.replace(from, to);
        }
        let line = line.replace("OWN_KAFKA", &self.pair.bootstrap()).replace("OWN_REGISTRY", &self.pair.registry());
        let free = ["kafka", "registry", "http", "stubs"].map(|part| format!("--listen-{part} 127.0.0.1:0"));
        let line = line.replace("FREE_PORTS", &free.join(" "));
        if line.contains(" ORDER") { line.replace("ORDER", &self.some_order()) } else { line }
    }

    /// A shell command in this folder.
    fn shell(&self, line: &str) -> Command {
        let path = format!("{}:{}", self.folder.path().join("bin").display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        // A single process, so that Ctrl-C reaches it.
        let line = if line.contains(['|', '>']) { line.to_owned() } else { format!("exec {line}") };
        command.args(["-c", &line]).current_dir(&self.folder).env("PATH", path);
        for (name, _) in std::env::vars() {
            if name.starts_with("DACAPO_") || name.starts_with("KAFKA_") || name.starts_with("SCHEMA_") {
                command.env_remove(name);
            }
        }
        command
    }

    #[track_caller]
    fn output(&self, line: &str) -> String {
        let Output { status, stdout, stderr } = self.shell(line).output().unwrap();
        let printed = String::from_utf8([stdout, stderr].concat()).unwrap();
        assert!(status.success(), "{line}: {status}\n{printed}");
        printed
    }

    #[track_caller]
    fn run(&self, line: &str, words: &[&str]) {
        let printed = self.output(line);
        for word in words {
            assert!(printed.contains(word), "{line} does not print {word:?}:\n{printed}");
        }
    }

    fn wait_until_settled(&self, orders: u64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let counts: Value = serde_json::from_str(&self.output("dacapo sagas counts --json")).unwrap();
            if counts["sagas"][0]["open"] == 0 && counts["sagas"][0]["total"] == orders {
                return;
            }
            assert!(Instant::now() < deadline, "not settled: {counts}");
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    fn some_order(&self) -> String {
        let list: Value =
            serde_json::from_str(&self.output("dacapo sagas list --saga order-fulfilment --json --limit 1")).unwrap();
        list["items"][0]["id"].as_str().unwrap().to_owned()
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.path().join(file)).unwrap()
    }
}
