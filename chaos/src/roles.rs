//! The programs that this executable runs as when it is started under another name.
//!
//! Chaos needs a dozen programs, and `cargo run -p chaos` builds one executable. It chooses the program by the name it is started under
//! (`argv[0]`, like busybox). Each service is the same program as its own binary, with the same flags. Every program exits when its
//! standard input ends, so no process outlives chaos.

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

/// Runs the program of that name to its end; `None` if there is none.
#[must_use]
pub fn run(name: &str) -> Option<ExitCode> {
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
        // The end of input and an error both mean that the parent process is gone.
        let _end = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(3);
    });
}

/// Flags of the broker and the registry.
#[derive(Debug, Parser)]
struct ServerArgs {
    #[arg(long)]
    data: PathBuf,
    #[arg(long)]
    listen: SocketAddr,
}

async fn broker(args: ServerArgs) -> anyhow::Result<()> {
    let config = BrokerConfig { data_dir: Some(args.data), listen: args.listen, ..BrokerConfig::default() };
    let _broker = Broker::start(config).context("cannot start the broker")?;
    std::future::pending().await
}

async fn registry(args: ServerArgs) -> anyhow::Result<()> {
    let (data_dir, listen) = (Some(args.data), args.listen);
    let config = RegistryConfig { data_dir, listen, default_level: Level::FullTransitive, fsync: false };
    let _registry = Registry::start(config).await.context("cannot start the registry")?;
    std::future::pending().await
}

fn until_signal<Running: Future<Output = anyhow::Result<()>>>(role: fn(ServerArgs) -> Running) -> ExitCode {
    block_on(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            ended = role(ServerArgs::parse()) => ended,
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
