//! What every service's `main` does: settings, log, start, wait for a signal, stop.

use std::process::ExitCode;

use clap::{Args as _, FromArgMatches};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    config::{Args, Config, Sources},
    service::Running,
    telemetry,
};

/// The settings of a service that has none of its own.
#[derive(Debug, Clone, Copy, Default, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

/// Runs a service as a program of its own: reads flags, environment and file, starts it, waits for SIGTERM or SIGINT, stops it.
///
/// ```ignore
/// fn main() -> std::process::ExitCode {
///     runtime::service::run("loyalty", |config, _: runtime::service::NoSettings| async move {
///         Ok(runtime::service::start(config, Loyalty::default(), NothingToPerform, axum::Router::new()).await?)
///     })
/// }
/// ```
pub fn run<Own, Starting>(service: &'static str, start: impl FnOnce(Config, Own) -> Starting) -> ExitCode
where
    Own: clap::Args + Serialize + DeserializeOwned,
    Starting: Future<Output = anyhow::Result<Running>>,
{
    telemetry::init_logs();
    let ran = settings::<Own>(service).and_then(|(config, own)| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(until_signal(start(config, own)))
    });
    match ran {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            tracing::error!(service, "did not stop in time");
            ExitCode::FAILURE
        }
        Err(error) => {
            tracing::error!(service, "{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn settings<Own>(service: &'static str) -> anyhow::Result<(Config, Own)>
where
    Own: clap::Args + Serialize + DeserializeOwned,
{
    let command = Own::augment_args(Args::augment_args(clap::Command::new(service)));
    let matches = command.get_matches();
    let sources = Sources::load(&Args::from_arg_matches(&matches)?)?;
    let own = sources.own(service, &Own::from_arg_matches(&matches)?)?;
    let config = sources.config(service)?;
    telemetry::record_metrics()?;
    config.log_effective();
    Ok((config, own))
}

async fn until_signal(starting: impl Future<Output = anyhow::Result<Running>>) -> anyhow::Result<bool> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let running = tokio::select! {
        running = starting => running?,
        _ = terminate.recv() => return Ok(true),
        _ = interrupt.recv() => return Ok(true),
    };
    let failure = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        failure = running.failed() => Some(failure),
    };
    let stopped = running.stop().await;
    match failure {
        Some(failure) => Err(failure.into()),
        None => Ok(stopped),
    }
}
