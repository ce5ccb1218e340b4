//! One process of the system: started, killed, frozen, thawed and stopped; its output goes to a file of its own.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How often something that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How many lines of a log are shown of a process that ended by itself.
const LAST_LINES: usize = 8;

/// A process that may run or not.
#[derive(Debug)]
pub struct Process {
    name: String,
    role: String,
    args: Vec<OsString>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// A process that does not run yet. `role` is what this executable plays in it (`roles`), `name` what it is called in reports.
    #[must_use]
    pub fn new(name: impl Into<String>, role: &str, args: Vec<OsString>, logs: &Path) -> Self {
        let name = name.into();
        let log = logs.join(format!("{name}.log"));
        Self { name, role: role.to_owned(), args, log, child: None }
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Starts it, unless it runs.
    ///
    /// # Errors
    /// The executable or the log file cannot be opened.
    pub fn start(&mut self, executable: &Path) -> anyhow::Result<()> {
        if self.child.is_some() {
            return Ok(());
        }
        let log = self.open_log().with_context(|| format!("cannot write to {}", self.log.display()))?;
        let mut command = Command::new(executable);
        command.arg0(&self.role).args(&self.args).stdin(Stdio::piped());
        command.stdout(log.try_clone()?).stderr(log);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if ["DACAPO_", "KAFKA_", "SCHEMA_REGISTRY_"].iter().any(|ours| name.starts_with(ours)) {
                command.env_remove(name);
            }
        }
        self.child = Some(command.spawn().with_context(|| format!("cannot start {}", self.name))?);
        Ok(())
    }

    fn open_log(&self) -> std::io::Result<File> {
        OpenOptions::new().create(true).append(true).open(&self.log)
    }

    /// True if it was started and not ended by us.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.child.is_some()
    }

    /// Kills it as `kill -9` does. Nothing if it does not run.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().with_context(|| format!("cannot kill {}", self.name))?;
            child.wait().with_context(|| format!("cannot wait for {}", self.name))?;
        }
        Ok(())
    }

    /// Freezes it (SIGSTOP): it keeps its connections and does nothing.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Asks it to stop (SIGTERM) and waits for its end, which must be a good one.
    ///
    /// # Errors
    /// It ends badly, or not within `patience`; then it is killed.
    pub async fn stop(&mut self, patience: Duration) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + patience;
        while let Some(child) = &mut self.child {
            match child.try_wait()? {
                Some(status) => {
                    self.child = None;
                    return if status.success() { Ok(()) } else { bail!("{} stopped with {status}", self.name) };
                }
                None if Instant::now() >= deadline => {
                    self.kill()?;
                    bail!("{} did not stop within {} s", self.name, patience.as_secs());
                }
                None => tokio::time::sleep(LOOK).await,
            }
        }
        Ok(())
    }

    /// How it ended, if it did so without being asked to; and the end of its log.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(self.story_of(status))
    }

    fn story_of(&self, status: ExitStatus) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n    ");
        format!("{} ended by itself with {status}; the end of {}:\n    {last}", self.name, self.log.display())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let Some(child) = &self.child else { return Ok(()) };
        send(child.id(), signal).with_context(|| format!("cannot send a signal to {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::warn!("{error:#}");
        }
    }
}

fn send(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process id")?;
    Ok(kill_process(pid, signal)?)
}

/// A port of this host that nobody listens on. Below the usual ephemeral range, so that no outgoing connection takes it while
/// the process that it is meant for is away.
///
/// # Errors
/// None is free.
pub fn free_port() -> anyhow::Result<u16> {
    const RANGE: std::ops::Range<u16> = 10_000..32_000;
    const TRIES: u64 = 1_000;
    let begin = uuid::Uuid::now_v7().as_u128();
    for attempt in 0..TRIES {
        let mut draws = dacapo::draws::Draws::new(begin as u64, attempt);
        let port = RANGE.start + u16::try_from(draws.below(u64::from(RANGE.end - RANGE.start)))?;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port from {} to {}", RANGE.start, RANGE.end)
}
