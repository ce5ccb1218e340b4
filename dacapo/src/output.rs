//! Output of the commands. A closed pipe (`| head`) ends the process with success, not with an error.

use std::io::{self, Write};

use runtime::projection::ViewHealth;
use tokio::signal::unix::{SignalKind, signal};

/// Writes a line to standard output.
///
/// # Errors
/// Standard output cannot be written to, for a reason other than a closed pipe.
pub fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other,
    }
}

/// Makes Ctrl-C end the process at once, with success, even while a reader of standard output (a pager) blocks the writer. For
/// read-only commands.
///
/// # Errors
/// The signal handler cannot be installed.
pub fn end_on_interrupt() -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        interrupt.recv().await;
        std::process::exit(0);
    });
    Ok(())
}

/// Notes the partitions that a command could not read to their ends, with the reasons.
pub fn note_held(health: &ViewHealth) {
    for piece in &health.held {
        note(&format!("not read further: {piece}"));
    }
}

/// Writes a line to standard error, for people; no program reads it.
pub fn note(text: &str) {
    if writeln!(io::stderr().lock(), "{text}").is_err() {
        tracing::debug!("standard error is closed");
    }
}
