//! The broker and the registry: own processes that can be killed, or external ones.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::net::TcpStream;

use crate::{
    process::{Process, free_port},
    proxy::{Proxy, ProxyMode, ProxyTarget},
    roles::{BROKER, REGISTRY},
};

/// How long a broker or a registry may take until it accepts connections.
const PATIENCE: Duration = Duration::from_secs(60);
/// The interval between two connection attempts.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Which brokers to run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Brokers {
    /// The embedded broker and registry, each as its own process
    Embedded,
    /// An Apache Kafka, started by `scripts/kafka.sh`
    Apache,
}

enum InfrastructureKind {
    Embedded { broker: Box<Process>, registry: Box<Process>, executable: PathBuf },
    Apache(Script),
    External,
}

/// Broker and registry.
pub struct Infrastructure {
    kind: InfrastructureKind,
    kafka: SocketAddr,
    registry: SocketAddr,
    registry_url: String,
    registry_proxy: Proxy,
}

impl Infrastructure {
    /// Starts the embedded broker and registry.
    ///
    /// # Errors
    /// They cannot be started.
    pub async fn embedded(executable: &Path, folder: &Path) -> anyhow::Result<Self> {
        let address = || Ok::<_, anyhow::Error>(SocketAddr::from(([127, 0, 0, 1], free_port()?)));
        let (kafka, registry_at) = (address()?, address()?);
        let process = |role: &str, listen: SocketAddr| {
            let data = folder.join(role);
            let args = vec!["--data".into(), data.into(), "--listen".into(), listen.to_string().into()];
            Box::new(Process::new(role, role, args, folder))
        };
        let (mut broker, mut registry) = (process(BROKER, kafka), process(REGISTRY, registry_at));
        broker.start(executable)?;
        registry.start(executable)?;
        let kind = InfrastructureKind::Embedded { broker, registry, executable: executable.to_owned() };
        Self::at(kind, kafka, &format!("http://{registry_at}")).await
    }

    /// Starts an Apache Kafka and its registry.
    ///
    /// # Errors
    /// They cannot be started; the message has the output of the script.
    pub async fn apache(script: PathBuf, folder: &Path) -> anyhow::Result<Self> {
        let script = Script { path: script, folder: folder.join("kafka") };
        let output = script.run("start").await?;
        let of = |name: &str| {
            let value = output.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            value.map(str::to_owned).with_context(|| format!("{} did not print {name}", script.path.display()))
        };
        let (kafka, registry) = (of("KAFKA_BOOTSTRAP")?, of("REGISTRY_URL")?);
        let kafka = kafka.parse().context("the broker's address")?;
        Self::at(InfrastructureKind::Apache(script), kafka, &registry).await
    }

    /// External ones, which are never killed.
    ///
    /// # Errors
    /// An address is invalid, or does not accept connections.
    pub async fn external(bootstrap: &str, registry: &str) -> anyhow::Result<Self> {
        let address = bootstrap.to_socket_addrs().ok().and_then(|mut addresses| addresses.find(SocketAddr::is_ipv4));
        let kafka = address.with_context(|| format!("--bootstrap must be one HOST:PORT, not {bootstrap}"))?;
        Self::at(InfrastructureKind::External, kafka, registry).await
    }

    async fn at(kind: InfrastructureKind, kafka: SocketAddr, registry_url: &str) -> anyhow::Result<Self> {
        let rest = registry_url.strip_prefix("http://").context("the registry's address must begin with http://")?;
        let (host, path) =
            rest.split_once('/').map_or((rest, String::new()), |(host, path)| (host, format!("/{path}")));
        let registry = host.to_socket_addrs().ok().and_then(|mut addresses| addresses.find(SocketAddr::is_ipv4));
        let registry = registry.with_context(|| format!("--registry must name HOST:PORT, not {host}"))?;
        let registry_proxy = Proxy::start(registry, ProxyTarget::Tcp).await?;
        let registry_url = format!("http://{}{path}", registry_proxy.address());
        let infrastructure = Self { kind, kafka, registry, registry_url, registry_proxy };
        infrastructure.wait_until_reachable().await?;
        Ok(infrastructure)
    }

    async fn wait_until_reachable(&self) -> anyhow::Result<()> {
        for (what, address) in [("broker", self.kafka), ("registry", self.registry)] {
            let deadline = Instant::now() + PATIENCE;
            while let Err(error) = TcpStream::connect(address).await {
                if Instant::now() >= deadline {
                    bail!("the {what} does not answer at {address}: {error}");
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
        Ok(())
    }

    /// The address of the broker itself, without a proxy.
    #[must_use]
    pub fn kafka(&self) -> SocketAddr {
        self.kafka
    }

    /// The address of the registry, behind a proxy that a fault can close.
    #[must_use]
    pub fn registry_url(&self) -> &str {
        &self.registry_url
    }

    /// Whether the broker may be killed.
    #[must_use]
    pub fn may_kill_broker(&self) -> bool {
        !matches!(self.kind, InfrastructureKind::External)
    }

    /// Kills the broker (SIGKILL).
    ///
    /// # Errors
    /// It cannot be killed.
    pub async fn kill_broker(&mut self) -> anyhow::Result<()> {
        match &mut self.kind {
            InfrastructureKind::Embedded { broker, .. } => broker.kill(),
            InfrastructureKind::Apache(script) => script.run("kill-broker").await.map(drop),
            InfrastructureKind::External => bail!("an external broker is never killed"),
        }
    }

    /// Starts the broker again on the same data and port.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn start_broker(&mut self) -> anyhow::Result<()> {
        match &mut self.kind {
            InfrastructureKind::Embedded { broker, executable, .. } => broker.start(executable)?,
            InfrastructureKind::Apache(script) => drop(script.run("restart-broker").await?),
            InfrastructureKind::External => bail!("an external broker is never started"),
        }
        self.wait_until_reachable().await
    }

    /// Suspends the broker, or resumes it.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub async fn freeze_broker(&mut self, frozen: bool) -> anyhow::Result<()> {
        match &mut self.kind {
            InfrastructureKind::Embedded { broker, .. } if frozen => broker.freeze(),
            InfrastructureKind::Embedded { broker, .. } => broker.thaw(),
            InfrastructureKind::Apache(script) => {
                script.run(if frozen { "freeze-broker" } else { "thaw-broker" }).await.map(drop)
            }
            InfrastructureKind::External => bail!("an external broker is never frozen"),
        }
    }

    /// Makes the registry unreachable: the embedded registry is killed, any other is disconnected.
    ///
    /// # Errors
    /// The registry cannot be killed.
    pub async fn stop_registry(&mut self) -> anyhow::Result<()> {
        self.registry_proxy.set(ProxyMode::Disconnected);
        match &mut self.kind {
            InfrastructureKind::Embedded { registry, .. } => registry.kill(),
            InfrastructureKind::Apache(_) | InfrastructureKind::External => Ok(()),
        }
    }

    /// Makes the registry reachable again.
    ///
    /// # Errors
    /// The registry cannot be started.
    pub async fn start_registry(&mut self) -> anyhow::Result<()> {
        self.registry_proxy.set(ProxyMode::Open);
        match &mut self.kind {
            InfrastructureKind::Embedded { registry, executable, .. } => {
                registry.start(executable)?;
                self.wait_until_reachable().await
            }
            InfrastructureKind::Apache(_) | InfrastructureKind::External => Ok(()),
        }
    }

    /// The processes that exited unexpectedly.
    pub fn exited(&mut self) -> Vec<String> {
        match &mut self.kind {
            InfrastructureKind::Embedded { broker, registry, .. } => {
                broker.exited().into_iter().chain(registry.exited()).collect()
            }
            InfrastructureKind::Apache(_) | InfrastructureKind::External => Vec::new(),
        }
    }
}

/// `scripts/kafka.sh`, for one folder.
struct Script {
    path: PathBuf,
    folder: PathBuf,
}

impl Script {
    async fn run(&self, command: &'static str) -> anyhow::Result<String> {
        let cannot = format!("cannot run {} {command}", self.path.display());
        let mut program = self.command(command);
        let output = tokio::task::spawn_blocking(move || program.output()).await?.context(cannot.clone())?;
        if !output.status.success() {
            bail!("{cannot}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn command(&self, command: &str) -> Command {
        let mut program = Command::new(&self.path);
        program.arg(command).arg(&self.folder).stdin(Stdio::null());
        program
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // Also after a failure: a broker that outlives its run would slow down the next one.
        if let Err(error) = self.command("stop").output() {
            tracing::warn!(%error, "the broker was not stopped");
        }
    }
}
