//! The projector as a process of its own.

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use projector::Declaration;
use tracing_subscriber::EnvFilter;

/// Reads every event and shows where each saga stands.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    common: runtime::Args,
    /// A saga's declaration; may be given several times. Without one, those that ship are used.
    #[arg(long = "saga", value_name = "FILE")]
    sagas: Vec<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let cli = Cli::parse();
    let config = runtime::Config::load("projector", &cli.common)?;
    config.log_effective();
    let declarations = match cli.sagas.as_slice() {
        [] => Declaration::shipped()?,
        files => files.iter().map(|file| Declaration::load(file)).collect::<Result<_, _>>()?,
    };
    let running = projector::start(&config, &declarations).await?;
    asked_to_end().await?;
    running.stop().await;
    Ok(())
}

async fn asked_to_end() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot listen for Ctrl-C"),
        _ = terminate.recv() => Ok(()),
    }
}
