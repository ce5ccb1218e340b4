//! Measures the cost of the guarantees: the latency from an input to its visible decision, the effect of a parked entity on the
//! others, and the recovery time of a killed instance.
//!
//! The figures are meaningful only on an otherwise idle machine. Compared variants alternate within one run.

mod baseline;
mod environment;
mod latency;
mod load;
mod meter;
mod recovery;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::environment::BenchEndpoints;

#[derive(Debug, Parser)]
#[command(name = "bench", about = "Measures the runtime on the embedded broker, or on a given one")]
struct Cli {
    #[command(subcommand)]
    measurement: Measurement,
}

#[derive(Debug, Subcommand)]
enum Measurement {
    /// Latency from the scheduled send of an input until a read_committed consumer receives the decision, compared with a
    /// baseline: a transactional loop on librdkafka alone
    Latency(latency::LatencyArgs),
    /// The same latency of the other entities while one entity is parked, compared with no parked entity
    Parked(latency::LatencyArgs),
    /// Time from kill -9 until a read_committed consumer receives the next decision
    Recovery(recovery::RecoveryArgs),
    /// The measured service as a separate process
    #[command(hide = true)]
    Service {
        #[command(flatten)]
        endpoints: BenchEndpoints,
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
            match Cli::parse().measurement {
                Measurement::Latency(args) => latency::compare_with_baseline(&args).await,
                Measurement::Parked(args) => latency::compare_with_parked(&args).await,
                Measurement::Recovery(args) => recovery::run(&args).await,
                Measurement::Service { endpoints, system, instance, data } => {
                    environment::serve(&endpoints, system, instance, data).await
                }
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

/// Prints a line of the report.
fn print_line(line: &str) -> anyhow::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
