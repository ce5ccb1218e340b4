//! One executable for all processes: `chaos` under its own name, and each process that it injects faults into under that process's.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let name = std::env::args().next().unwrap_or_default();
    match chaos::roles::run(&name) {
        Some(code) => code,
        None => chaos::cli::main(&chaos::cli::Cli::parse()),
    }
}
