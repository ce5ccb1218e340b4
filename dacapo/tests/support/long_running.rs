//! Commands that run until Ctrl-C.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    time::{Duration, Instant},
};

use super::{PATIENCE, Signal, signal, wait_for_exit};

/// A command that runs until Ctrl-C, and the lines that it prints.
pub(crate) struct LongRunning {
    child: Option<Child>,
    pub(crate) lines: Receiver<String>,
}

impl LongRunning {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = sync_channel(1_000);
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let errors = sender.clone();
        std::thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        std::thread::spawn(move || {
            BufReader::new(err).lines().map_while(Result::ok).try_for_each(|line| errors.send(line))
        });
        Self { child: Some(child), lines }
    }

    /// Waits for a line that contains this word.
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

    /// Sends Ctrl-C; the command must exit with success soon.
    #[track_caller]
    pub(crate) fn interrupt(mut self) {
        let child = self.child.take().unwrap();
        signal(child.id(), Signal::INT);
        // Nothing reads its output meanwhile: a slow reader must not delay the exit.
        let status = wait_for_exit(child, Duration::from_secs(30));
        let printed: Vec<String> = self.lines.try_iter().collect();
        let how = status.map_or("not at all within 30 s".to_owned(), |status| status.to_string());
        let is_success = status.is_some_and(|status| status.success());
        assert!(is_success, "Ctrl-C must end it with success; it ended: {how}, and printed\n{}", printed.join("\n"));
    }
}

impl Drop for LongRunning {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}
