//! `conformance --bootstrap HOST:PORT --registry URL`: runs the suite against what answers there.
//!
//! Owns nothing but arguments and output. Exits 0 when every check passed, 1 otherwise.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use conformance::{Filter, Target, catalogue, run_each};

/// Checks that a Kafka and a schema registry do what dacapo relies on.
#[derive(Parser)]
struct Arguments {
    /// A broker, as host:port.
    #[arg(long, env = "KAFKA_BOOTSTRAP_SERVERS", required_unless_present = "list")]
    bootstrap: Option<String>,
    /// Base address of the schema registry, with its path if it has one.
    #[arg(long, env = "SCHEMA_REGISTRY_URL", required_unless_present = "list")]
    registry: Option<String>,
    /// Only checks of this area, or whose name contains this text; may be repeated.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// All but the checks of this area, or whose name contains this text; may be repeated.
    #[arg(long, value_name = "NAME")]
    except: Vec<String>,
    /// Ask the registry for exactly the error codes of Confluent's own.
    #[arg(long)]
    exact_confluent_codes: bool,
    /// Say which checks there are, and run none.
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
    let target = Target {
        bootstrap: arguments.bootstrap.context("--bootstrap is missing")?,
        registry: arguments.registry.context("--registry is missing")?.trim_end_matches('/').to_owned(),
        exact_confluent_codes: arguments.exact_confluent_codes,
    };
    let mut written = Ok(());
    let report = run_each(&target, &Filter { only: arguments.only, except: arguments.except }, |outcome| {
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
