//! The `dacapo` command. What it does stands in the library beside it, so that tests can reach it.

use clap::Parser;
use dacapo::{cli, output};

/// Small allocations by many threads are a fifth of what `up` does with the C library's allocator. Overrides it for the Kafka
/// client's C code as well.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() {
    let code = match cli::run(cli::Cli::parse()).await {
        Ok(()) => 0,
        Err(error) => {
            output::note(&format!("dacapo: {error:#}"));
            1
        }
    };
    // Not by returning: that would wait for every thread that still talks to a broker, as long as a slow one lets it. What had to
    // be stopped is stopped by now.
    std::process::exit(code);
}
