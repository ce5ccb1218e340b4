//! What this executable is when it is started under another name: the process that a fault strikes.
//!
//! Chaos needs a dozen programs and `cargo run -p chaos` builds one, so that one is all of them, told by the name it is started
//! under (`argv[0]`, as busybox is). Each service is the very program that its own binary runs, with the same flags.
//! Every role ends when its standard input does: a chaos that dies leaves nobody behind.

use std::{io::Read, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use embedded::{
    broker::{Broker, BrokerConfig},
    registry::{Level, Registry, RegistryConfig},
};
use runtime::telemetry;

/// The role of a broker.
pub const BROKER: &str = "broker";
/// The role of a schema registry.
pub const REGISTRY: &str = "registry";
/// The role of the `dacapo` command.
pub const DACAPO: &str = "dacapo";

/// Plays the role of that name to its end; `None` if it is none.
#[must_use]
pub fn play(name: &str) -> Option<ExitCode> {
    let program = dacapo::service::programs().into_iter().find(|program| program.name() == name);
    let role: Box<dyn FnOnce() -> ExitCode> = match (name, program) {
        (_, Some(program)) => Box::new(|| program.main()),
        (BROKER, None) => Box::new(|| until_signal(broker)),
        (REGISTRY, None) => Box::new(|| until_signal(registry)),
        (DACAPO, None) => Box::new(|| block_on(async { dacapo::cli::run(dacapo::cli::Cli::parse()).await })),
        _ => return None,
    };
    end_with_standard_input();
    Some(role())
}

fn end_with_standard_input() {
    std::thread::spawn(|| {
        // The end and an error mean the same: nobody is there any more.
        let _end = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(3);
    });
}

/// Flags of a broker or a registry of its own.
#[derive(Debug, Parser)]
struct Place {
    #[arg(long)]
    data: PathBuf,
    #[arg(long)]
    listen: SocketAddr,
}

async fn broker(place: Place) -> anyhow::Result<()> {
    let config = BrokerConfig { data_dir: Some(place.data), listen: place.listen, ..BrokerConfig::default() };
    let _broker = Broker::start(config).context("cannot start the broker")?;
    std::future::pending().await
}

async fn registry(place: Place) -> anyhow::Result<()> {
    let (data_dir, listen) = (Some(place.data), place.listen);
    let config = RegistryConfig { data_dir, listen, default_level: Level::FullTransitive, fsync: false };
    let _registry = Registry::start(config).await.context("cannot start the registry")?;
    std::future::pending().await
}

fn until_signal<Running: Future<Output = anyhow::Result<()>>>(role: fn(Place) -> Running) -> ExitCode {
    block_on(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            ended = role(Place::parse()) => ended,
            _ = terminate.recv() => Ok(()),
        }
    })
}

fn block_on(role: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    telemetry::init_logs();
    let ran = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(role));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
