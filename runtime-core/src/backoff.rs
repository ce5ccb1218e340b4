//! Pauses that grow from one failure to the next.

use std::time::Duration;

/// The pauses between attempts: each is twice as long as the one before, up to a limit.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `first` to `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause
    }

    /// Starts over, because the last attempt worked for long enough.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// A pause extended by up to a half, so that workers do not retry at the same moment. `random` may be any number.
#[must_use]
pub fn spread(pause: Duration, random: u64) -> Duration {
    pause + pause.mul_f64(f64::from(u16::try_from(random % 1_000).unwrap_or(0)) / 2_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_start_over() {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_millis(500));
        let pauses: Vec<u128> = (0..4).map(|_| backoff.pause().as_millis()).collect();
        assert_eq!(pauses, [200, 400, 500, 500]);
        backoff.reset();
        assert_eq!(backoff.pause().as_millis(), 200);
    }

    #[test]
    fn a_spread_pause_is_at_most_half_as_long_again() {
        let pause = Duration::from_secs(2);
        assert_eq!(spread(pause, 0), pause);
        assert!(spread(pause, 999) < pause + pause / 2);
    }
}
