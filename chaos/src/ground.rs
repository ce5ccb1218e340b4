//! What the system stands on: broker and registry as processes of their own that can be killed, or somebody else's.

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
    proxy::{Behind, Line, Proxy},
    roles::{BROKER, REGISTRY},
};

/// How long a broker or a registry may take until somebody can connect.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often something that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Which brokers to run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Brokers {
    /// The embedded broker and registry, each a process of its own
    Embedded,
    /// An Apache Kafka that `scripts/kafka.sh` starts
    Apache,
}

enum Kind {
    Embedded { broker: Box<Process>, registry: Box<Process>, executable: PathBuf },
    Apache(Script),
    Foreign,
}

/// Broker and registry.
pub struct Ground {
    kind: Kind,
    kafka: SocketAddr,
    registry: SocketAddr,
    registry_url: String,
    registry_door: Proxy,
}

impl Ground {
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
        let kind = Kind::Embedded { broker, registry, executable: executable.to_owned() };
        Self::at(kind, kafka, &format!("http://{registry_at}")).await
    }

    /// Starts an Apache Kafka and its registry.
    ///
    /// # Errors
    /// They cannot be started; the text says what the script said.
    pub async fn apache(script: PathBuf, folder: &Path) -> anyhow::Result<Self> {
        let script = Script { path: script, folder: folder.join("kafka") };
        let said = script.run("start").await?;
        let of = |name: &str| {
            let value = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            value.map(str::to_owned).with_context(|| format!("{} did not say {name}", script.path.display()))
        };
        let (kafka, registry) = (of("KAFKA_BOOTSTRAP")?, of("REGISTRY_URL")?);
        let kafka = kafka.parse().context("the broker's address")?;
        Self::at(Kind::Apache(script), kafka, &registry).await
    }

    /// Somebody else's: never killed.
    ///
    /// # Errors
    /// It is not where it is said to be.
    pub async fn foreign(bootstrap: &str, registry: &str) -> anyhow::Result<Self> {
        let address = bootstrap.to_socket_addrs().ok().and_then(|mut addresses| addresses.find(SocketAddr::is_ipv4));
        let kafka = address.with_context(|| format!("--bootstrap must be one HOST:PORT, not {bootstrap}"))?;
        Self::at(Kind::Foreign, kafka, registry).await
    }

    async fn at(kind: Kind, kafka: SocketAddr, registry_url: &str) -> anyhow::Result<Self> {
        let rest = registry_url.strip_prefix("http://").context("the registry's address must begin with http://")?;
        let (host, path) =
            rest.split_once('/').map_or((rest, String::new()), |(host, path)| (host, format!("/{path}")));
        let registry = host.to_socket_addrs().ok().and_then(|mut addresses| addresses.find(SocketAddr::is_ipv4));
        let registry = registry.with_context(|| format!("--registry must name HOST:PORT, not {host}"))?;
        let registry_door = Proxy::start(registry, Behind::Other).await?;
        let registry_url = format!("http://{}{path}", registry_door.address());
        let ground = Self { kind, kafka, registry, registry_url, registry_door };
        ground.wait_until_there().await?;
        Ok(ground)
    }

    async fn wait_until_there(&self) -> anyhow::Result<()> {
        for (what, address) in [("broker", self.kafka), ("registry", self.registry)] {
            let deadline = Instant::now() + PATIENCE;
            while let Err(error) = TcpStream::connect(address).await {
                if Instant::now() >= deadline {
                    bail!("the {what} does not answer at {address}: {error}");
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// The broker itself, past every proxy.
    #[must_use]
    pub fn kafka(&self) -> SocketAddr {
        self.kafka
    }

    /// The registry, behind a proxy that a fault can close.
    #[must_use]
    pub fn registry_url(&self) -> &str {
        &self.registry_url
    }

    /// Whether its broker may be killed.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        !matches!(self.kind, Kind::Foreign)
    }

    /// Kills the broker as `kill -9` does.
    ///
    /// # Errors
    /// It cannot be killed.
    pub async fn kill_broker(&mut self) -> anyhow::Result<()> {
        match &mut self.kind {
            Kind::Embedded { broker, .. } => broker.kill(),
            Kind::Apache(script) => script.run("kill-broker").await.map(drop),
            Kind::Foreign => bail!("the broker is not ours to kill"),
        }
    }

    /// Starts the broker again on the same data and port.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn start_broker(&mut self) -> anyhow::Result<()> {
        match &mut self.kind {
            Kind::Embedded { broker, executable, .. } => broker.start(executable)?,
            Kind::Apache(script) => drop(script.run("restart-broker").await?),
            Kind::Foreign => bail!("the broker is not ours to start"),
        }
        self.wait_until_there().await
    }

    /// Freezes the broker, or lets it go on.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub async fn freeze_broker(&mut self, frozen: bool) -> anyhow::Result<()> {
        match &mut self.kind {
            Kind::Embedded { broker, .. } if frozen => broker.freeze(),
            Kind::Embedded { broker, .. } => broker.thaw(),
            Kind::Apache(script) => script.run(if frozen { "freeze-broker" } else { "thaw-broker" }).await.map(drop),
            Kind::Foreign => bail!("the broker is not ours to freeze"),
        }
    }

    /// Takes the registry away (ours is killed, any other is cut off), or brings it back.
    ///
    /// # Errors
    /// It cannot be killed or started.
    pub async fn registry_is_gone(&mut self, gone: bool) -> anyhow::Result<()> {
        self.registry_door.set(if gone { Line::Cut } else { Line::Open });
        match &mut self.kind {
            Kind::Embedded { registry, .. } if gone => registry.kill(),
            Kind::Embedded { registry, executable, .. } => {
                registry.start(executable)?;
                self.wait_until_there().await
            }
            Kind::Apache(_) | Kind::Foreign => Ok(()),
        }
    }

    /// What ended by itself.
    pub fn ended(&mut self) -> Vec<String> {
        match &mut self.kind {
            Kind::Embedded { broker, registry, .. } => broker.ended().into_iter().chain(registry.ended()).collect(),
            Kind::Apache(_) | Kind::Foreign => Vec::new(),
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
        // Also after a failure: a broker that outlives its run would take the machine from the next one.
        if let Err(error) = self.command("stop").output() {
            tracing::warn!(%error, "the broker was not stopped");
        }
    }
}
