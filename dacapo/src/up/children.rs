//! Keeps the processes of `--instances` running: starts each, marks what it says with its name, starts it again when it dies.
//!
//! A child's standard input is held open here and carries nothing: it ends when this process does, however it does, and the child
//! stops when it ends. So a child never outlives its parent, and is asked to stop by the same means.

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

/// The pause before a child that died is started again; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A child that lived so long starts over with the first pause.
const LONG_LIFE: Duration = Duration::from_secs(60);
/// So often a child may end by itself before it was ever ready. The pauses between add up to more than a child of an earlier `up`
/// that was killed needs to stop: until then it holds its name's store.
const TRIES: u32 = 7;
/// How long a child may take to stop: a little more than it gives itself.
const STOP_PATIENCE: Duration = Duration::from_secs(12);
/// How often a child that is not ready is asked again.
const LOOK: Duration = Duration::from_millis(20);
/// How long a child may take to say how it is.
const ANSWER: Duration = Duration::from_secs(5);

/// The children.
pub(super) struct Children {
    each: Vec<Arc<Kept>>,
    keepers: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    /// Counts up whenever an address changes.
    moved: watch::Sender<u64>,
}

/// A child that is kept running.
struct Kept {
    instance: Instance,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Where this life of it listens, or the last one did.
    address: Option<SocketAddr>,
    /// True from the first time that it was ready.
    was_ready: bool,
    /// How often it ended by itself before it was.
    tries: u32,
}

impl Kept {
    fn state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Children {
    /// Starts all of them. Needs a tokio runtime.
    pub(super) fn start(instances: Vec<Instance>) -> Self {
        let (stop, moved) = (watch::channel(false).0, watch::channel(0).0);
        let each: Vec<Arc<Kept>> =
            instances.into_iter().map(|instance| Arc::new(Kept { instance, state: Mutex::default() })).collect();
        let keepers =
            each.iter().map(|kept| tokio::spawn(keep(Arc::clone(kept), stop.subscribe(), moved.clone()))).collect();
        Self { each, keepers, stop, moved }
    }

    /// Waits until every one of them is ready.
    ///
    /// # Errors
    /// One ended by itself again and again before it was.
    pub(super) async fn ready(&self) -> anyhow::Result<()> {
        let client = reqwest::Client::builder().no_proxy().timeout(ANSWER).build()?;
        for kept in &self.each {
            let name = &kept.instance.name;
            while !is_ready(&client, kept).await {
                if kept.state(|state| state.tries) >= TRIES {
                    bail!("{name} does not start; what it said stands above");
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// Those that have not been ready yet.
    pub(super) fn not_ready(&self) -> Vec<String> {
        let waiting = self.each.iter().filter(|kept| !kept.state(|state| state.was_ready));
        waiting.map(|kept| kept.instance.name.clone()).collect()
    }

    /// The HTTP address of every instance that has one: service, instance, address.
    pub(super) fn addresses(&self) -> Vec<(&'static str, String, String)> {
        let address = |kept: &Arc<Kept>| {
            let address = kept.state(|state| state.address)?;
            Some((kept.instance.service, kept.instance.name.clone(), format!("http://{address}")))
        };
        self.each.iter().filter_map(address).collect()
    }

    /// Tells whenever an address changes.
    pub(super) fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// Stops all of them at once, and waits for it.
    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        for keeper in self.keepers {
            if let Err(error) = keeper.await {
                tracing::warn!(%error, "an instance was not stopped cleanly");
            }
        }
    }
}

async fn is_ready(client: &reqwest::Client, kept: &Kept) -> bool {
    let Some(address) = kept.state(|state| state.address) else { return false };
    let answer = client.get(format!("http://{address}/readyz")).send().await;
    let is_ready = answer.is_ok_and(|answer| answer.status().is_success());
    kept.state(|state| state.was_ready |= is_ready);
    is_ready
}

/// Lives a child's lives, one after the other, until it is to stop.
async fn keep(kept: Arc<Kept>, mut stop: watch::Receiver<bool>, moved: watch::Sender<u64>) {
    let name = &kept.instance.name;
    let mut pause = FIRST_PAUSE;
    loop {
        let born = Instant::now();
        let reason = match live(&kept, &mut stop, &moved).await {
            Ok(Life::Stopped) => return,
            Ok(Life::Ended(status)) => ended(&kept, status),
            Err(error) => format!("{error:#}"),
        };
        if born.elapsed() >= LONG_LIFE {
            pause = FIRST_PAUSE;
        }
        output::note(&format!("{name} {reason}; it is started again in {:.1} s", pause.as_secs_f64()));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = asked(&mut stop) => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn asked(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody holds the children any more, which is a reason to stop as well.
    if stop.wait_for(|stop| *stop).await.is_err() {
        tracing::debug!("the handle of the instances was dropped");
    }
}

/// What is said of a child that has ended by itself.
fn ended(kept: &Kept, status: ExitStatus) -> String {
    // A signal comes from outside; an exit code is its own word.
    let refused = status.code().is_some();
    kept.state(|state| state.tries += u32::from(refused && !state.was_ready));
    format!("has died ({status})")
}

/// How a life ended.
enum Life {
    /// As it was asked to.
    Stopped,
    /// By itself.
    Ended(ExitStatus),
}

/// One life of a child.
async fn live(kept: &Arc<Kept>, stop: &mut watch::Receiver<bool>, moved: &watch::Sender<u64>) -> anyhow::Result<Life> {
    // Where it was before, so that whoever asks it finds it again; a port that cannot be had is not asked for twice.
    let before = kept.state(|state| state.address.take());
    let mut child = kept.instance.command(before).spawn().context("cannot be started")?;
    let held = child.stdin.take();
    let said = listen(kept, &mut child, moved);
    let life = tokio::select! {
        status = child.wait() => Ok(Life::Ended(status.context("cannot be waited for")?)),
        () = asked(stop) => {
            drop(held);
            stopped(&kept.instance.name, child).await;
            Ok(Life::Stopped)
        }
    };
    // Its last words come before what is said about it.
    for listener in said {
        if listener.await.is_err() {
            tracing::warn!(instance = kept.instance.name, "some of what it said was lost");
        }
    }
    life
}

async fn stopped(name: &str, mut child: Child) {
    match tokio::time::timeout(STOP_PATIENCE, child.wait()).await {
        Ok(Ok(status)) if status.success() => {}
        Ok(Ok(status)) => output::note(&format!("{name} did not stop cleanly ({status})")),
        Ok(Err(error)) => tracing::warn!(%error, name, "cannot wait for an instance"),
        Err(_) => {
            output::note(&format!("{name} does not stop, and is killed"));
            if let Err(error) = child.kill().await {
                tracing::warn!(%error, name, "cannot kill an instance");
            }
        }
    }
}

/// Takes a child's address from its standard output, and passes on what it says on standard error.
fn listen(kept: &Arc<Kept>, child: &mut Child, moved: &watch::Sender<u64>) -> Vec<JoinHandle<()>> {
    let mut listeners = Vec::new();
    if let Some(out) = child.stdout.take() {
        let (kept, moved) = (Arc::clone(kept), moved.clone());
        listeners.push(tokio::spawn(each_line(out, move |line| {
            if let Some(address) = line.strip_prefix("http://").and_then(|address| address.parse().ok()) {
                kept.state(|state| state.address = Some(address));
                moved.send_modify(|times| *times += 1);
            }
        })));
    }
    if let Some(err) = child.stderr.take() {
        let name = kept.instance.name.clone();
        listeners.push(tokio::spawn(each_line(err, move |line| output::note(&format!("{name} | {line}")))));
    }
    listeners
}

async fn each_line(from: impl AsyncRead + Unpin, mut tell: impl FnMut(&str)) {
    let (mut from, mut line) = (BufReader::new(from), Vec::new());
    // An error is an end, too: a pipe that cannot be read says nothing more.
    while from.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        tell(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
}
