//! A service as a program: its command line, and its run from the settings to the exit code.
//!
//! A service's crate offers one [`Program`]. Its `main` runs it, and so does every other program that starts services, so both accept
//! the same flags and behave alike.

use std::{
    io::{self, Write},
    net::SocketAddr,
    pin::Pin,
    process::ExitCode,
};

use clap::{ArgMatches, Args as _, FromArgMatches};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::oneshot;

use crate::{
    config::{Args, Config, Sources},
    service::{Running, StartError},
    telemetry,
};

/// The settings of a service without settings of its own.
#[derive(Debug, Clone, Copy, Default, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

/// Flags for the process itself.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
struct ProcessArgs {
    /// Stop, as on SIGTERM, when standard input ends: for a parent process that this one must not outlive
    #[arg(long)]
    until_stdin_ends: bool,
}

/// A started program.
pub trait RunningProgram {
    /// The address of its HTTP API.
    fn address(&self) -> Option<SocketAddr>;

    /// Waits until it has failed for good.
    fn failed(&self) -> impl Future<Output = anyhow::Error>;

    /// Stops it gracefully. Returns whether this was done in time.
    fn stop(self) -> impl Future<Output = bool>;
}

impl RunningProgram for Running {
    fn address(&self) -> Option<SocketAddr> {
        self.http_addr()
    }

    async fn failed(&self) -> anyhow::Error {
        let failure: StartError = Running::failed(self).await;
        failure.into()
    }

    async fn stop(self) -> bool {
        Running::stop(self).await
    }
}

type ProgramFuture = Pin<Box<dyn Future<Output = anyhow::Result<()>>>>;

/// A service as a program: it reads flags, environment and file, starts the service, waits for a stop signal, and stops it.
///
/// A service's `main` is `program().main()`. The example of [a whole service](crate) has one; this one is without a decider:
///
/// ```
/// use runtime::{Config, NoSettings, Program, health::HealthChecks, service};
///
/// fn program() -> Program {
///     Program::new("status", "Serves its health and nothing else", |config: Config, _: NoSettings| async move {
///         Ok(service::start_reader("status", config, axum::Router::new(), HealthChecks::default()).await?)
///     })
/// }
///
/// let command = program().command();
/// assert!(command.clone().try_get_matches_from(["status", "--listen", "127.0.0.1:8080"]).is_ok());
/// assert!(command.try_get_matches_from(["status", "--listen", "nowhere"]).is_err());
/// ```
///
/// It stops on SIGTERM and SIGINT, and with `--until-stdin-ends` also when standard input ends. Standard output gets one line, as
/// soon as the service listens: the address of its HTTP API. The log goes to standard error.
pub struct Program {
    name: &'static str,
    about: &'static str,
    augment: fn(clap::Command) -> clap::Command,
    run: Box<dyn FnOnce(ArgMatches) -> ProgramFuture>,
}

impl Program {
    /// The program of the service `name`; `start` starts the service.
    pub fn new<Own, Started, Starting>(
        name: &'static str,
        about: &'static str,
        start: impl FnOnce(Config, Own) -> Starting + 'static,
    ) -> Self
    where
        Own: clap::Args + Serialize + DeserializeOwned + 'static,
        Started: RunningProgram + 'static,
        Starting: Future<Output = anyhow::Result<Started>> + 'static,
    {
        let run = move |matches: ArgMatches| -> ProgramFuture {
            Box::pin(async move {
                let process = ProcessArgs::from_arg_matches(&matches)?;
                let (config, own) = settings::<Own>(name, &matches)?;
                run_until_stopped(process, start(config, own)).await
            })
        };
        Self { name, about, augment: augment::<Own>, run: Box::new(run) }
    }

    /// The service's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its command line.
    #[must_use]
    pub fn command(&self) -> clap::Command {
        // Set last, because the flags' types overwrite the description.
        (self.augment)(clap::Command::new(self.name).version(env!("CARGO_PKG_VERSION"))).about(self.about)
    }

    /// Runs it as this process, with this process's command line. The exit code is 0 after a requested stop; 1 if a setting is invalid,
    /// or if the service failed or did not stop in time; 2 if the command line is invalid.
    #[must_use]
    pub fn main(self) -> ExitCode {
        let matches = self.command().get_matches();
        let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                telemetry::init_logs();
                tracing::error!(service = self.name, %error, "cannot start threads");
                return ExitCode::FAILURE;
            }
        };
        let ended_well = runtime.block_on(self.run(&matches));
        // Dropping the runtime would wait for calls to an unreachable broker; every part that needs a clean stop has stopped by now.
        runtime.shutdown_background();
        if ended_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Runs it until a stop signal. Returns whether it succeeded; if not, the log has the reason.
    pub async fn run(self, matches: &ArgMatches) -> bool {
        telemetry::init_logs();
        match (self.run)(matches.clone()).await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(service = self.name, "{error:#}");
                false
            }
        }
    }
}

fn augment<Own: clap::Args>(command: clap::Command) -> clap::Command {
    ProcessArgs::augment_args(Own::augment_args(Args::augment_args(command)))
}

fn settings<Own>(service: &'static str, matches: &ArgMatches) -> anyhow::Result<(Config, Own)>
where
    Own: clap::Args + Serialize + DeserializeOwned,
{
    let sources = Sources::load(&Args::from_arg_matches(matches)?)?;
    let own = sources.own(service, &Own::from_arg_matches(matches)?)?;
    let config = sources.config(service)?;
    telemetry::record_metrics()?;
    config.log_effective();
    Ok((config, own))
}

async fn run_until_stopped<Started: RunningProgram>(
    process: ProcessArgs,
    starting: impl Future<Output = anyhow::Result<Started>>,
) -> anyhow::Result<()> {
    let mut signals = StopSignals::listen(process)?;
    let running = tokio::select! {
        running = starting => running?,
        () = signals.wait() => return Ok(()),
    };
    if let Some(address) = running.address() {
        announce(address);
    }
    let failure = tokio::select! {
        () = signals.wait() => None,
        failure = running.failed() => Some(failure),
    };
    let stopped = running.stop().await;
    match failure {
        Some(failure) => Err(failure),
        None if stopped => Ok(()),
        None => anyhow::bail!("did not stop in time"),
    }
}

/// Prints the address of the HTTP API: with port 0 the caller does not know it.
fn announce(address: SocketAddr) {
    let mut out = io::stdout().lock();
    if let Err(error) = writeln!(out, "http://{address}").and_then(|()| out.flush()) {
        tracing::debug!(%error, "nobody reads the address");
    }
}

/// The signals that stop the program.
struct StopSignals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    stdin_ended: Option<oneshot::Receiver<()>>,
}

impl StopSignals {
    fn listen(process: ProcessArgs) -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            stdin_ended: process.until_stdin_ends.then(watch_stdin).transpose()?,
        })
    }

    async fn wait(&mut self) {
        let stdin_ended = async {
            match &mut self.stdin_ended {
                // The watching thread ends only with standard input.
                Some(ended) => drop(ended.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = stdin_ended => tracing::info!("standard input has ended"),
        }
    }
}

/// Reads standard input to its end on a thread of its own: a blocking read cannot be cancelled, but the process may exit during it.
fn watch_stdin() -> io::Result<oneshot::Receiver<()>> {
    let (ended, watched) = oneshot::channel();
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        if let Err(error) = io::copy(&mut io::stdin().lock(), &mut io::sink()) {
            tracing::warn!(%error, "standard input cannot be read");
        }
        if ended.send(()).is_err() {
            tracing::debug!("already stopped");
        }
    })?;
    Ok(watched)
}
