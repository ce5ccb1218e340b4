//! Whether another process runs under the name of this one.
//!
//! A worker may be fenced by a request of its own: a repeated request to join the group, or a producer of an earlier incarnation.
//! So a single fence proves nothing; repeated ones do.

use std::{collections::VecDeque, time::Duration};

/// Fences within this time belong together.
const TOGETHER: Duration = Duration::from_secs(120);
/// A producer that is fenced this often within that time shares its transactional id with another process. It may commit in between:
/// two processes that take turns both do.
const PRODUCER_FENCED: usize = 5;

/// When a worker was fenced, as the time since any fixed moment.
#[derive(Debug, Default)]
pub struct Fencing {
    member_fenced_at: Option<Duration>,
    producer_fenced_at: VecDeque<Duration>,
}

impl Fencing {
    /// Counts that the group has fenced the member. Returns true if another process runs under its name: it was fenced before, a
    /// short time ago.
    pub fn member_fenced(&mut self, now: Duration) -> bool {
        let before = self.member_fenced_at.replace(now);
        before.is_some_and(|before| now.saturating_sub(before) < TOGETHER)
    }

    /// Counts that a newer producer with this transactional id has fenced a transaction. Returns true if another process uses the
    /// id.
    pub fn producer_fenced(&mut self, now: Duration) -> bool {
        self.producer_fenced_at.push_back(now);
        while self.producer_fenced_at.front().is_some_and(|at| now.saturating_sub(*at) >= TOGETHER) {
            self.producer_fenced_at.pop_front();
        }
        self.producer_fenced_at.len() >= PRODUCER_FENCED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_is_fenced_rarely_continues() {
        let (mut fencing, start) = (Fencing::default(), Duration::from_secs(7));
        assert!(!fencing.member_fenced(start));
        assert!(!fencing.member_fenced(start + TOGETHER));
        assert!(fencing.member_fenced(start + TOGETHER + Duration::from_secs(119)));
    }

    #[test]
    fn a_producer_that_is_fenced_again_and_again_shares_its_id() {
        let (mut fencing, mut now) = (Fencing::default(), Duration::ZERO);
        for _ in 0..PRODUCER_FENCED * 3 {
            assert!(!fencing.producer_fenced(now), "it is fenced rarely");
            now += TOGETHER / 4;
        }
        now += TOGETHER;
        let often = (0..PRODUCER_FENCED).map(|_| fencing.producer_fenced(now));
        assert_eq!(often.filter(|is_taken| *is_taken).count(), 1, "the last one shows it");
    }
}
