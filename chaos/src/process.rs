//! One process of the system: it can be started, killed, frozen, thawed and stopped. Its output goes to its own log file.

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

/// The interval between two checks of an awaited condition.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How many lines of the log are shown for a process that exited unexpectedly.
const LAST_LINES: usize = 8;

/// A process, running or not.
#[derive(Debug)]
pub struct Process {
    name: String,
    role: String,
    args: Vec<OsString>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// A process that does not run yet. `role` is the program that the executable runs as (`roles`), `name` appears in reports.
    #[must_use]
    pub fn new(name: impl Into<String>, role: &str, args: Vec<OsString>, logs: &Path) -> Self {
        let name = name.into();
        let log = logs.join(format!("{name}.log"));
        Self { name, role: role.to_owned(), args, log, child: None }
    }

    /// The path of its log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Starts the process, unless it runs.
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
            if ["DACAPO_", "KAFKA_", "SCHEMA_REGISTRY_"].iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        self.child = Some(command.spawn().with_context(|| format!("cannot start {}", self.name))?);
        Ok(())
    }

    fn open_log(&self) -> std::io::Result<File> {
        OpenOptions::new().create(true).append(true).open(&self.log)
    }

    /// Whether it was started and neither killed nor stopped.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.child.is_some()
    }

    /// Kills the process (SIGKILL), if it runs.
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

    /// Suspends the process (SIGSTOP): it keeps its connections and does nothing.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Resumes the process (SIGCONT).
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Stops the process (SIGTERM) and waits until it has exited, which must be with success.
    ///
    /// # Errors
    /// It fails, or does not exit within `patience`; then it is killed.
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
                None => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
        Ok(())
    }

    /// The status and the end of the log of a process that exited unexpectedly.
    pub fn exited(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(self.describe_exit(status))
    }

    fn describe_exit(&self, status: ExitStatus) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n    ");
        format!("{} exited unexpectedly with {status}; the end of {}:\n    {last}", self.name, self.log.display())
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

/// A free port of this host. It is below the usual ephemeral range, so that no outgoing connection takes it while its process is
/// down.
///
/// # Errors
/// No port is free.
pub fn free_port() -> anyhow::Result<u16> {
    const RANGE: std::ops::Range<u16> = 10_000..32_000;
    const TRIES: u64 = 1_000;
    let begin = uuid::Uuid::now_v7().as_u128();
    for attempt in 0..TRIES {
        let mut rng = dacapo::rng::SeededRng::new(begin as u64, attempt);
        let port = RANGE.start + u16::try_from(rng.below(u64::from(RANGE.end - RANGE.start)))?;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port from {} to {}", RANGE.start, RANGE.end)
}
