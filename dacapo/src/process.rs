//! The process of the `dacapo` command: its threads and its exit code.
//!
//! They are not in `main.rs`, because the compiler translates an async function in the crate that polls it. `main.rs` would compile
//! every command, and the library would compile most of them again for its own callers.

use clap::Parser;
use tokio::runtime::Builder;

use crate::{cli, output};

/// Runs the command line of this process and ends the process. The exit code is 0 if the command succeeded, else 1.
pub fn main() -> ! {
    let cli = cli::Cli::parse();
    let threads = match Builder::new_multi_thread().enable_all().build() {
        Ok(threads) => threads,
        Err(error) => {
            output::note(&format!("dacapo: cannot start threads: {error}"));
            std::process::exit(1);
        }
    };
    let code = match threads.block_on(cli::run(cli)) {
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
