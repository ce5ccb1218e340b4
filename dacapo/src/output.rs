//! Text for people and programs on standard output. A reader that went away (`| head`) is a success, not an error.

use std::io::{self, Write};

/// Writes a line to standard output.
///
/// # Errors
/// Standard output cannot be written to, for another reason than that nobody reads it any more.
pub fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other,
    }
}

/// Writes a line to standard error: what a person should know and no program reads.
pub fn note(text: &str) {
    if writeln!(io::stderr().lock(), "{text}").is_err() {
        tracing::debug!("standard error is closed");
    }
}
