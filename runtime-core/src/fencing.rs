//! Whether another process runs under this one's name.
//!
//! A worker may be fenced by its own past: a request to join that was sent twice, or a producer that took long to go. So one fence
//! says nothing; what counts is how often.

use std::time::Duration;

/// A member that the group fences twice within this time shares its name with another process.
const MEMBER_FENCED_TWICE: Duration = Duration::from_secs(120);
/// A producer that is fenced in this many incarnations in a row shares its transactional id with another process.
const PRODUCER_FENCED: u32 = 5;

/// When a worker was fenced. Times are since any fixed moment.
#[derive(Debug, Default)]
pub struct Fencing {
    member_fenced_at: Option<Duration>,
    producer_fenced: u32,
}

impl Fencing {
    /// Counts that the group has fenced the member. Returns true if another process must have its name.
    pub fn member_fenced(&mut self, now: Duration) -> bool {
        let before = self.member_fenced_at.replace(now);
        before.is_some_and(|before| now.saturating_sub(before) < MEMBER_FENCED_TWICE)
    }

    /// Counts that a transaction was refused because a newer producer has this id. Returns true if another process must have it.
    pub fn producer_fenced(&mut self) -> bool {
        self.producer_fenced += 1;
        self.producer_fenced >= PRODUCER_FENCED
    }

    /// A transaction was committed: the producer has its id to itself.
    pub fn committed(&mut self) {
        self.producer_fenced = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_is_fenced_once_in_a_while_goes_on() {
        let (mut fencing, start) = (Fencing::default(), Duration::from_secs(7));
        assert!(!fencing.member_fenced(start));
        assert!(!fencing.member_fenced(start + MEMBER_FENCED_TWICE));
        assert!(fencing.member_fenced(start + MEMBER_FENCED_TWICE + Duration::from_secs(119)));
    }

    #[test]
    fn a_producer_that_commits_in_between_is_alone() {
        let mut fencing = Fencing::default();
        for _ in 0..PRODUCER_FENCED - 1 {
            assert!(!fencing.producer_fenced());
        }
        fencing.committed();
        assert!(!fencing.producer_fenced());
        assert!((0..PRODUCER_FENCED).any(|_| fencing.producer_fenced()));
    }
}
