//! One executable for all: `chaos` by its own name, and each of the processes that it strikes by theirs.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let name = std::env::args().next().unwrap_or_default();
    match chaos::roles::play(&name) {
        Some(code) => code,
        None => chaos::cli::main(&chaos::cli::Cli::parse()),
    }
}
