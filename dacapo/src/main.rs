//! The `dacapo` command. Its code is in the library beside it, so that tests can call it.

use clap::Parser;
use dacapo::{cli, output};

#[tokio::main]
async fn main() {
    let code = match cli::run(cli::Cli::parse()).await {
        Ok(()) => 0,
        Err(error) => {
            output::note(&format!("dacapo: {error:#}"));
            1
        }
    };
    // Returning would wait for every thread that still talks to a broker, however slow the broker is. Everything that needs a clean
    // stop has stopped by now.
    std::process::exit(code);
}
