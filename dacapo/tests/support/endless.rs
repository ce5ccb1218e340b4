//! Commands that go on until Ctrl-C.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    time::{Duration, Instant},
};

use super::{PATIENCE, Signal, ended, signal};

/// A command that goes on until Ctrl-C, and the lines it prints.
pub(crate) struct Endless {
    child: Option<Child>,
    pub(crate) lines: Receiver<String>,
}

impl Endless {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (told, lines) = sync_channel(1_000);
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let errors = told.clone();
        std::thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).try_for_each(|line| told.send(line))
        });
        std::thread::spawn(move || {
            BufReader::new(err).lines().map_while(Result::ok).try_for_each(|line| errors.send(line))
        });
        Self { child: Some(child), lines }
    }

    /// Waits for a line with this word.
    #[track_caller]
    pub(crate) fn wait_for(&self, word: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("{word:?} was not printed"));
            if line.contains(word) {
                return;
            }
        }
    }

    /// Sends Ctrl-C: it ends well, soon.
    #[track_caller]
    pub(crate) fn interrupt(mut self) {
        let child = self.child.take().unwrap();
        signal(child.id(), Signal::INT);
        // Nobody reads what it prints meanwhile: a reader that is slow must not keep it.
        let status = ended(child, Duration::from_secs(30));
        let said: Vec<String> = self.lines.try_iter().collect();
        let how = status.map_or("not at all within 30 s".to_owned(), |status| status.to_string());
        let is_well = status.is_some_and(|status| status.success());
        assert!(is_well, "Ctrl-C must end it well; it ended: {how}, and said\n{}", said.join("\n"));
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}
