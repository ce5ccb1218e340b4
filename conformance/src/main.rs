//! `conformance --bootstrap HOST:PORT --registry URL`: runs the suite against these servers.
//!
//! Owns the arguments and the output. Exits with 0 if every check passed, else with 1.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use conformance::{CheckFilter, TestTarget, catalogue, run_each};

/// The suite knows nothing of the runtime, which sets the allocator of every other program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Checks that a Kafka and a schema registry do what dacapo relies on.
#[derive(Parser)]
struct Arguments {
    /// A broker, as host:port
    #[arg(long, env = "KAFKA_BOOTSTRAP_SERVERS", required_unless_present = "list")]
    bootstrap: Option<String>,
    /// Base URL of the schema registry, including its path if it has one
    #[arg(long, env = "SCHEMA_REGISTRY_URL", required_unless_present = "list")]
    registry: Option<String>,
    /// Only checks of this area, or whose name contains this text; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Skip checks of this area, or whose name contains this text; may be repeated
    #[arg(long, value_name = "NAME")]
    except: Vec<String>,
    /// Require exactly the error codes of Confluent's registry
    #[arg(long)]
    exact_confluent_codes: bool,
    /// List the checks and run none
    #[arg(long)]
    list: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut out = io::stdout();
    if arguments.list {
        for (area, name) in catalogue() {
            writeln!(out, "[{}] {name}", area.name())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let target = TestTarget {
        bootstrap: arguments.bootstrap.context("--bootstrap is missing")?,
        registry: arguments.registry.context("--registry is missing")?.trim_end_matches('/').to_owned(),
        exact_confluent_codes: arguments.exact_confluent_codes,
    };
    let mut written = Ok(());
    let report = run_each(&target, &CheckFilter { only: arguments.only, except: arguments.except }, |outcome| {
        if written.is_ok() {
            written = writeln!(out, "{outcome}");
        }
    });
    written?;
    for outcome in report.failed() {
        writeln!(out, "failed: [{}] {}", outcome.area.name(), outcome.name)?;
    }
    writeln!(out, "{}", report.summary())?;
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
