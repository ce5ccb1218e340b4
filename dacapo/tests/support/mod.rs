//! Shared by the tests of the whole system: the built binary on an embedded broker or on an Apache Kafka, and clients for it.
//!
//! Every wait is for a condition, with a deadline.

#![expect(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod long_running;
pub(crate) mod pair;
pub(crate) mod records;

/// The signals that Ctrl-C, a container engine and an operating system send.
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

/// The broker and the registry that a system runs on.
#[derive(Debug, Clone)]
pub(crate) enum Infrastructure {
    /// The embedded broker and registry.
    Embedded,
    /// An Apache Kafka and a registry that run already.
    Apache { bootstrap: String, registry: String },
}

/// The infrastructure of the tests: an Apache Kafka if the environment names one, else the embedded broker.
pub(crate) fn infrastructure() -> Infrastructure {
    match (std::env::var("DACAPO_TEST_KAFKA"), std::env::var("DACAPO_TEST_REGISTRY")) {
        (Ok(bootstrap), Ok(registry)) => Infrastructure::Apache { bootstrap, registry },
        _ => Infrastructure::Embedded,
    }
}

/// What one system needs: a data folder, a unique name, and the infrastructure.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) folder: TempDir,
    system: String,
    infrastructure: Infrastructure,
}

impl Setup {
    pub(crate) fn new(infrastructure: &Infrastructure) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let unique = folder.path().file_name().unwrap().to_string_lossy().to_lowercase();
        let unique: String = unique.chars().filter(char::is_ascii_alphanumeric).collect();
        let system = match infrastructure {
            Infrastructure::Embedded => "musiccorp".to_owned(),
            // Several tests share one cluster.
            Infrastructure::Apache { .. } => format!("test{}{unique}", std::process::id()),
        };
        Self { folder, system, infrastructure: infrastructure.clone() }
    }

    pub(crate) fn data(&self) -> &Path {
        self.folder.path()
    }

    /// `dacapo up` with these arguments, not started yet. Its output goes into the data folder.
    pub(crate) fn up(&self, args: &[&str]) -> Command {
        let mut command = self.command();
        command.arg("up").arg("--data").arg(self.data()).args(["--system", &self.system]);
        for listen in ["--listen-kafka", "--listen-registry", "--listen-http", "--listen-stubs"] {
            command.args([listen, "127.0.0.1:0"]);
        }
        if let Infrastructure::Apache { bootstrap, registry } = &self.infrastructure {
            command.args(["--bootstrap", bootstrap, "--registry", registry]);
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(self.data().join("up.log")).unwrap();
        command.args(args).stdout(log.try_clone().unwrap()).stderr(log);
        command
    }

    /// Starts `dacapo up` and waits until it has published its addresses.
    pub(crate) fn start(&self, args: &[&str]) -> RunningSystem<'_> {
        let mut system = self.launch(args);
        system.wait_until_up();
        system
    }

    /// Starts `dacapo up` and does not wait.
    pub(crate) fn launch(&self, args: &[&str]) -> RunningSystem<'_> {
        drop(fs::remove_file(self.data().join("endpoints.json")));
        RunningSystem { setup: self, child: Some(self.up(args).spawn().unwrap()) }
    }

    /// Another `dacapo` command on this system.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let mut command = self.command();
        command.args(args).arg("--data").arg(self.data()).args(["--system", &self.system]);
        command.output().unwrap()
    }

    /// Another `dacapo` command on this system, not started yet: for a command that runs until Ctrl-C, or whose output is read.
    pub(crate) fn command_on_this(&self, args: &[&str]) -> Command {
        let mut command = self.command();
        command.args(args).arg("--data").arg(self.data()).args(["--system", &self.system]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command that must fail: exit code 1, nothing on standard output. Returns its standard error.
    #[track_caller]
    pub(crate) fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "dacapo {args:?}: {}{errors}", text(&output.stdout));
        assert_eq!(text(&output.stdout), "", "dacapo {args:?} prints nothing on standard output when it fails");
        errors
    }

    /// The system's name.
    pub(crate) fn system(&self) -> &str {
        &self.system
    }

    /// Runs a command that must succeed. Returns its standard output.
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

    /// The end of the output of `up`.
    pub(crate) fn log(&self) -> String {
        let log = fs::read_to_string(self.data().join("up.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("--- the end of up.log:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"))
    }

    /// The content of `endpoints.json`.
    pub(crate) fn endpoints(&self) -> Value {
        serde_json::from_slice(&fs::read(self.data().join("endpoints.json")).unwrap()).unwrap()
    }

    /// `dacapo`, without the environment variables that name a system.
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

/// A running `dacapo up`. The process is killed when this value is dropped.
pub(crate) struct RunningSystem<'a> {
    setup: &'a Setup,
    child: Option<Child>,
}

impl RunningSystem<'_> {
    /// Waits until it has published its addresses.
    #[track_caller]
    pub(crate) fn wait_until_up(&mut self) {
        let endpoints = self.setup.data().join("endpoints.json");
        self.wait_for("endpoints.json", || endpoints.exists());
    }

    /// Waits for a condition while the process runs.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().unwrap()) {
                panic!("dacapo up ended with {status} before {what}\n{}", self.setup.log());
            }
            assert!(Instant::now() < deadline, "{what} did not come\n{}", self.setup.log());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Waits until it exits, which must be with success. Returns the end of its output.
    #[track_caller]
    pub(crate) fn exits_successfully(mut self) -> String {
        let status = wait_for_exit(self.child.take().unwrap(), PATIENCE);
        let log = self.setup.log();
        assert!(status.is_some_and(|status| status.success()), "dacapo up ended: {status:?}\n{log}");
        log
    }

    /// Kills the process (SIGKILL).
    pub(crate) fn kill(mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Stops it as Ctrl-C does; it must exit with success within seconds.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        let mut child = self.child.take().unwrap();
        signal(child.id(), Signal::INT);
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "dacapo up ended with {status} after Ctrl-C\n{}", self.setup.log());
                return;
            }
            assert!(Instant::now() < deadline, "dacapo up does not stop\n{}", self.setup.log());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for RunningSystem<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Waits until a process exits, and returns its status. A process that does not exit in time is killed; the result is then `None`.
pub(crate) fn wait_for_exit(mut child: Child, patience: Duration) -> Option<ExitStatus> {
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

/// Waits until a process exits. Returns whether it exited with success.
pub(crate) fn exits_with_success(child: Child, patience: Duration) -> bool {
    wait_for_exit(child, patience).is_some_and(|status| status.success())
}

/// A blocking client for the HTTP APIs of the system.
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

    /// The status and the body of a GET whose response is not JSON.
    pub(crate) fn get_text(&self, url: &str) -> (u16, String) {
        self.runtime.block_on(async {
            let response = self.client.get(url).timeout(Duration::from_secs(60)).send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        })
    }

    /// Whether the process at this address is ready.
    pub(crate) fn ready(&self, url: &str) -> bool {
        let request = self.client.get(format!("{url}/readyz")).timeout(Duration::from_secs(5));
        self.runtime.block_on(async { request.send().await.is_ok_and(|response| response.status().is_success()) })
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
