//! Measures what the guarantees cost: how long an input takes to become a visible decision, whether a parked entity delays others,
//! and how long a killed instance takes to decide again.
//!
//! Figures are honest only on a machine that does nothing else. Ratios are of one run: what is compared runs in turns.

mod latency;
mod load;
mod meter;
mod raw;
mod recovery;
mod stage;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::stage::Where;

#[derive(Debug, Parser)]
#[command(name = "bench", about = "Measures the runtime on the embedded broker, or on one that is named")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// From the moment an input was to be sent to its decision in the hands of a reader of committed records, beside a raw
    /// transactional loop of librdkafka
    Latency(latency::Args),
    /// The same for the others while one entity is parked, beside a time when none is
    Parked(latency::Args),
    /// From kill -9 to the next decision that a reader of committed records sees
    Recovery(recovery::Args),
    /// The measured service as a process of its own
    #[command(hide = true)]
    Service {
        #[command(flatten)]
        at: Where,
        #[arg(long)]
        system: String,
        #[arg(long)]
        instance: Option<String>,
        #[arg(long)]
        data: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    runtime::telemetry::init_logs();
    let ran = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(anyhow::Error::from);
    let ran = ran.and_then(|runtime| {
        runtime.block_on(async {
            match Cli::parse().what {
                What::Latency(args) => latency::beside_raw(&args).await,
                What::Parked(args) => latency::beside_parked(&args).await,
                What::Recovery(args) => recovery::run(&args).await,
                What::Service { at, system, instance, data } => stage::serve(&at, system, instance, data).await,
            }
        })
    });
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Writes a line of the report.
fn say(line: &str) -> anyhow::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
