//! Text for people and programs on standard output. A reader that went away (`| head`) is a success, not an error.

use std::io::{self, Write};

use tokio::signal::unix::{SignalKind, signal};

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

/// From now on Ctrl-C ends the process well, at once: also while a reader of standard output (a pager) does not take what is
/// written. For commands that only look.
///
/// # Errors
/// Signals cannot be listened for.
pub fn end_on_interrupt() -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        interrupt.recv().await;
        std::process::exit(0);
    });
    Ok(())
}

/// Writes a line to standard error: what a person should know and no program reads.
pub fn note(text: &str) {
    if writeln!(io::stderr().lock(), "{text}").is_err() {
        tracing::debug!("standard error is closed");
    }
}
