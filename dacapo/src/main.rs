//! The `dacapo` command. What it does stands in the library beside it, so that tests can reach it.

use std::process::ExitCode;

use clap::Parser;
use dacapo::{cli, output};

#[tokio::main]
async fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&format!("dacapo: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
