//! Supervises the processes of `--instances`: starts each, prefixes its output with its name, and restarts it after a crash.
//!
//! The supervisor holds the child's standard input open and writes nothing to it. A child stops when its standard input ends, which
//! happens whenever this process ends. So a child never outlives its parent; closing the pipe is also how a child is stopped.

use std::{
    net::SocketAddr,
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Child,
    sync::watch,
    task::JoinHandle,
};

use super::instances::Instance;
use crate::output;

/// The pause before the first restart of a child; each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// After a run of this length the next pause is the first pause again.
const STABLE_RUN: Duration = Duration::from_secs(60);
/// How often a child may exit before it was ready for the first time. The pauses between the attempts must exceed the time that a
/// child of a killed earlier `up` needs to stop: until then that child holds the lock on the store of this name.
const MAX_START_ATTEMPTS: u32 = 7;
/// How long a child may take to stop: a little more than its own timeout.
const STOP_PATIENCE: Duration = Duration::from_secs(12);
/// The interval between two readiness checks of a child.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// The timeout of a readiness check.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// The supervisor of all child processes.
pub(super) struct Supervisor {
    children: Vec<Arc<SupervisedInstance>>,
    tasks: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    /// Counts the changes of addresses.
    address_changes: watch::Sender<u64>,
}

/// An instance that the supervisor keeps running.
struct SupervisedInstance {
    instance: Instance,
    state: Mutex<ChildState>,
}

#[derive(Default)]
struct ChildState {
    /// The address of the current run, or of the last one.
    address: Option<SocketAddr>,
    /// Whether it has ever been ready.
    was_ready: bool,
    /// How often it exited before it was ready for the first time.
    failed_starts: u32,
}

impl SupervisedInstance {
    fn state<T>(&self, update: impl FnOnce(&mut ChildState) -> T) -> T {
        update(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Supervisor {
    /// Starts all instances. Needs a tokio runtime.
    pub(super) fn start(instances: Vec<Instance>) -> Self {
        let (stop, address_changes) = (watch::channel(false).0, watch::channel(0).0);
        let children: Vec<Arc<SupervisedInstance>> = instances
            .into_iter()
            .map(|instance| Arc::new(SupervisedInstance { instance, state: Mutex::default() }))
            .collect();
        let tasks = children
            .iter()
            .map(|child| tokio::spawn(supervise(Arc::clone(child), stop.subscribe(), address_changes.clone())))
            .collect();
        Self { children, tasks, stop, address_changes }
    }

    /// Waits until every instance is ready.
    ///
    /// # Errors
    /// An instance exited repeatedly before it was ready.
    pub(super) async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let client = reqwest::Client::builder().no_proxy().timeout(READY_TIMEOUT).build()?;
        for child in &self.children {
            let name = &child.instance.name;
            while !is_ready(&client, child).await {
                if child.state(|state| state.failed_starts) >= MAX_START_ATTEMPTS {
                    bail!("{name} does not start; its output is above");
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
        Ok(())
    }

    /// The instances that have not been ready yet.
    pub(super) fn not_ready(&self) -> Vec<String> {
        let waiting = self.children.iter().filter(|child| !child.state(|state| state.was_ready));
        waiting.map(|child| child.instance.name.clone()).collect()
    }

    /// Service, instance name and HTTP address of every instance that listens.
    pub(super) fn addresses(&self) -> Vec<(&'static str, String, String)> {
        let address = |child: &Arc<SupervisedInstance>| {
            let address = child.state(|state| state.address)?;
            Some((child.instance.service, child.instance.name.clone(), format!("http://{address}")))
        };
        self.children.iter().filter_map(address).collect()
    }

    /// Changes whenever an address changes.
    pub(super) fn address_changes(&self) -> watch::Receiver<u64> {
        self.address_changes.subscribe()
    }

    /// Stops all instances concurrently, and waits until they have stopped.
    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::warn!(%error, "an instance was not stopped cleanly");
            }
        }
    }
}

async fn is_ready(client: &reqwest::Client, child: &SupervisedInstance) -> bool {
    let Some(address) = child.state(|state| state.address) else { return false };
    let response = client.get(format!("http://{address}/readyz")).send().await;
    let is_ready = response.is_ok_and(|response| response.status().is_success());
    child.state(|state| state.was_ready |= is_ready);
    is_ready
}

/// Runs a child again and again until it is to stop.
async fn supervise(
    child: Arc<SupervisedInstance>,
    mut stop: watch::Receiver<bool>,
    address_changes: watch::Sender<u64>,
) {
    let name = &child.instance.name;
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        let reason = match run_once(&child, &mut stop, &address_changes).await {
            Ok(RunEnd::Stopped) => return,
            Ok(RunEnd::Exited(status)) => note_exit(&child, status),
            Err(error) => format!("{error:#}"),
        };
        if started.elapsed() >= STABLE_RUN {
            pause = FIRST_PAUSE;
        }
        output::note(&format!("{name} {reason}; restarting in {:.1} s", pause.as_secs_f64()));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop_requested(&mut stop) => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn stop_requested(stop: &mut watch::Receiver<bool>) {
    // An error means that the supervisor was dropped, which is a reason to stop as well.
    if stop.wait_for(|stop| *stop).await.is_err() {
        tracing::debug!("the supervisor was dropped");
    }
}

/// Counts an exit before the first readiness, and returns the text of the exit.
fn note_exit(child: &SupervisedInstance, status: ExitStatus) -> String {
    // A child that exits with a code refused to start; a signal comes from outside.
    let refused = status.code().is_some();
    child.state(|state| state.failed_starts += u32::from(refused && !state.was_ready));
    format!("exited ({status})")
}

/// How a run of a child ended.
enum RunEnd {
    /// The supervisor stopped it.
    Stopped,
    /// It exited.
    Exited(ExitStatus),
}

/// Runs a child once.
async fn run_once(
    child: &Arc<SupervisedInstance>,
    stop: &mut watch::Receiver<bool>,
    address_changes: &watch::Sender<u64>,
) -> anyhow::Result<RunEnd> {
    // The address of the last run, so that clients find the child again. It is taken out, so a port that is lost is not tried twice.
    let before = child.state(|state| state.address.take());
    let mut process = child.instance.command(before).spawn().context("cannot be started")?;
    let stdin = process.stdin.take();
    let readers = read_output(child, &mut process, address_changes);
    let end = tokio::select! {
        status = process.wait() => Ok(RunEnd::Exited(status.context("cannot be waited for")?)),
        () = stop_requested(stop) => {
            drop(stdin);
            wait_for_exit(&child.instance.name, process).await;
            Ok(RunEnd::Stopped)
        }
    };
    // The rest of its output comes before the line about its exit.
    for reader in readers {
        if reader.await.is_err() {
            tracing::warn!(instance = child.instance.name, "some of its output was lost");
        }
    }
    end
}

async fn wait_for_exit(name: &str, mut process: Child) {
    match tokio::time::timeout(STOP_PATIENCE, process.wait()).await {
        Ok(Ok(status)) if status.success() => {}
        Ok(Ok(status)) => output::note(&format!("{name} did not stop cleanly ({status})")),
        Ok(Err(error)) => tracing::warn!(%error, name, "cannot wait for an instance"),
        Err(_) => {
            output::note(&format!("{name} does not stop and is killed"));
            if let Err(error) = process.kill().await {
                tracing::warn!(%error, name, "cannot kill an instance");
            }
        }
    }
}

/// Reads a child's address from its standard output, and copies its standard error.
fn read_output(
    child: &Arc<SupervisedInstance>,
    process: &mut Child,
    address_changes: &watch::Sender<u64>,
) -> Vec<JoinHandle<()>> {
    let mut readers = Vec::new();
    if let Some(out) = process.stdout.take() {
        let (child, address_changes) = (Arc::clone(child), address_changes.clone());
        readers.push(tokio::spawn(each_line(out, move |line| {
            if let Some(address) = line.strip_prefix("http://").and_then(|address| address.parse().ok()) {
                child.state(|state| state.address = Some(address));
                address_changes.send_modify(|times| *times += 1);
            }
        })));
    }
    if let Some(err) = process.stderr.take() {
        let name = child.instance.name.clone();
        readers.push(tokio::spawn(each_line(err, move |line| output::note(&format!("{name} | {line}")))));
    }
    readers
}

async fn each_line(from: impl AsyncRead + Unpin, mut handle: impl FnMut(&str)) {
    let (mut from, mut line) = (BufReader::new(from), Vec::new());
    // A read error ends the output as well.
    while from.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        handle(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
}
