//! What the tests of the whole system share: the built binary on a broker of its own or on an Apache Kafka, and questions to it.
//!
//! Every wait is for a condition, with a deadline.

#![expect(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod endless;
pub(crate) mod pair;
pub(crate) mod records;

/// What a person's Ctrl-C, a container engine and an operating system send.
pub(crate) use rustix::process::Signal;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// Sends a signal to a process.
#[track_caller]
pub(crate) fn signal(process: u32, signal: Signal) {
    let process = rustix::process::Pid::from_raw(process.try_into().unwrap()).unwrap();
    rustix::process::kill_process(process, signal).unwrap();
}

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// What the system runs on.
#[derive(Debug, Clone)]
pub(crate) enum Ground {
    /// The embedded broker and registry.
    Embedded,
    /// An Apache Kafka and a registry that are there already.
    Apache { bootstrap: String, registry: String },
}

/// The ground to test on: an Apache Kafka if the environment names one, else the embedded broker.
pub(crate) fn ground() -> Ground {
    match (std::env::var("DACAPO_TEST_KAFKA"), std::env::var("DACAPO_TEST_REGISTRY")) {
        (Ok(bootstrap), Ok(registry)) => Ground::Apache { bootstrap, registry },
        _ => Ground::Embedded,
    }
}

/// A place for one system: a data folder, a name of its own, a ground.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) folder: TempDir,
    system: String,
    ground: Ground,
}

impl Place {
    pub(crate) fn new(ground: &Ground) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let unique = folder.path().file_name().unwrap().to_string_lossy().to_lowercase();
        let unique: String = unique.chars().filter(char::is_ascii_alphanumeric).collect();
        let system = match ground {
            Ground::Embedded => "musiccorp".to_owned(),
            // Several tests share one cluster.
            Ground::Apache { .. } => format!("test{}{unique}", std::process::id()),
        };
        Self { folder, system, ground: ground.clone() }
    }

    pub(crate) fn data(&self) -> &Path {
        self.folder.path()
    }

    /// `dacapo up` with these arguments, not started yet. Its output goes into the data folder.
    pub(crate) fn up(&self, args: &[&str]) -> Command {
        let mut command = self.command();
        command.arg("up").arg("--data").arg(self.data()).args(["--system", &self.system]);
        for listen in ["--listen-kafka", "--listen-registry", "--listen-http", "--listen-outside"] {
            command.args([listen, "127.0.0.1:0"]);
        }
        if let Ground::Apache { bootstrap, registry } = &self.ground {
            command.args(["--bootstrap", bootstrap, "--registry", registry]);
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(self.data().join("up.log")).unwrap();
        command.args(args).stdout(log.try_clone().unwrap()).stderr(log);
        command
    }

    /// Starts `dacapo up` and waits until it says where it listens.
    pub(crate) fn start(&self, args: &[&str]) -> System<'_> {
        let mut system = self.launch(args);
        system.wait_until_up();
        system
    }

    /// Starts `dacapo up` and does not wait.
    pub(crate) fn launch(&self, args: &[&str]) -> System<'_> {
        drop(fs::remove_file(self.data().join("endpoints.json")));
        System { place: self, child: Some(self.up(args).spawn().unwrap()) }
    }

    /// Another `dacapo` command on this system.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let mut command = self.command();
        command.args(args).arg("--data").arg(self.data()).args(["--system", &self.system]);
        command.output().unwrap()
    }

    /// Another `dacapo` command on this system, not started yet: for one that does not end by itself, or whose output is read.
    pub(crate) fn command_on_this(&self, args: &[&str]) -> Command {
        let mut command = self.command();
        command.args(args).arg("--data").arg(self.data()).args(["--system", &self.system]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A command that must fail: exit code 1, nothing on standard output. Answers what it says.
    #[track_caller]
    pub(crate) fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "dacapo {args:?}: {}{said}", text(&output.stdout));
        assert_eq!(text(&output.stdout), "", "dacapo {args:?} prints nothing for programs when it fails");
        said
    }

    /// The system's name.
    pub(crate) fn system(&self) -> &str {
        &self.system
    }

    /// The same, which must succeed. Answers its standard output.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "dacapo {args:?}: {}\n{}{}\n{}",
            output.status,
            text(&output.stdout),
            text(&output.stderr),
            self.log()
        );
        text(&output.stdout)
    }

    /// The end of what `up` printed.
    pub(crate) fn log(&self) -> String {
        let log = fs::read_to_string(self.data().join("up.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("--- the end of up.log:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"))
    }

    /// What `endpoints.json` says.
    pub(crate) fn endpoints(&self) -> Value {
        serde_json::from_slice(&fs::read(self.data().join("endpoints.json")).unwrap()).unwrap()
    }

    /// `dacapo` without anything of the environment that names a system.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dacapo"));
        for variable in [
            "KAFKA_BOOTSTRAP_SERVERS",
            "SCHEMA_REGISTRY_URL",
            "DACAPO_PROJECTOR",
            "DACAPO_DATA",
            "DACAPO_SYSTEM",
            "DACAPO_CONFIG",
        ] {
            command.env_remove(variable);
        }
        command.stdin(Stdio::null());
        command
    }
}

/// A running `dacapo up`. It is killed when it goes out of scope.
pub(crate) struct System<'a> {
    place: &'a Place,
    child: Option<Child>,
}

impl System<'_> {
    /// Waits until it says where it listens.
    #[track_caller]
    pub(crate) fn wait_until_up(&mut self) {
        let endpoints = self.place.data().join("endpoints.json");
        self.wait_for("endpoints.json", || endpoints.exists());
    }

    /// Waits for a condition, as long as the process lives.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().unwrap()) {
                panic!("dacapo up ended with {status} before {what}\n{}", self.place.log());
            }
            assert!(Instant::now() < deadline, "{what} did not come\n{}", self.place.log());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Waits until it has ended by itself, which must be a good end. Answers what it printed last.
    #[track_caller]
    pub(crate) fn ends_well(mut self) -> String {
        let status = ended(self.child.take().unwrap(), PATIENCE);
        let log = self.place.log();
        assert!(status.is_some_and(|status| status.success()), "dacapo up ended: {status:?}\n{log}");
        log
    }

    /// Kills the process as `kill -9` does.
    pub(crate) fn kill(mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks it to stop as Ctrl-C does; it must end well, within seconds.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        let mut child = self.child.take().unwrap();
        signal(child.id(), Signal::INT);
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(
                    status.success(),
                    "dacapo up ended with {status} when it was asked to stop\n{}",
                    self.place.log()
                );
                return;
            }
            assert!(Instant::now() < deadline, "dacapo up does not stop\n{}", self.place.log());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for System<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Waits for a process that ends by itself. Answers how it ended; one that does not in time is killed, and that is no answer.
pub(crate) fn ended(mut child: Child, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Waits for a process that ends by itself. Answers whether it ended well.
pub(crate) fn wait_until_ended(child: Child, patience: Duration) -> bool {
    ended(child, patience).is_some_and(|status| status.success())
}

/// A blocking client for the system's HTTP sides.
pub(crate) struct Http {
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
}

impl Http {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, client: reqwest::Client::new() }
    }

    /// The status and the body of a GET.
    pub(crate) fn get(&self, url: &str) -> (u16, Value) {
        self.send(self.client.get(url))
    }

    /// The status and the body of a GET that is no JSON.
    pub(crate) fn get_text(&self, url: &str) -> (u16, String) {
        self.runtime.block_on(async {
            let response = self.client.get(url).timeout(Duration::from_secs(60)).send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        })
    }

    /// True if a process that serves there is ready.
    pub(crate) fn ready(&self, url: &str) -> bool {
        let asked = self.client.get(format!("{url}/readyz")).timeout(Duration::from_secs(5));
        self.runtime.block_on(async { asked.send().await.is_ok_and(|answer| answer.status().is_success()) })
    }

    /// The status and the body of a POST.
    pub(crate) fn post(&self, url: &str, idempotency_key: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        let request = self.client.post(url).header("content-type", "application/json");
        self.send(request.header("idempotency-key", idempotency_key).body(body))
    }

    /// The status and the body of a DELETE.
    pub(crate) fn delete(&self, url: &str) -> (u16, Value) {
        self.send(self.client.delete(url))
    }

    fn send(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        self.runtime.block_on(async {
            let response = request.timeout(Duration::from_secs(60)).send().await.unwrap();
            let status = response.status().as_u16();
            let body = response.bytes().await.unwrap();
            (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
        })
    }
}

/// Every file below a folder with this ending.
pub(crate) fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found
}
