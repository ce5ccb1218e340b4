//! Whether another process runs under the name of this one.
//!
//! A worker may be fenced by a request of its own: a repeated request to join the group, or a producer of an earlier incarnation.
//! So a single fence proves nothing; repeated ones do.

use std::time::Duration;

/// A member that the group fences twice within this time shares its name with another process.
const MEMBER_FENCED_TWICE: Duration = Duration::from_secs(120);
/// A producer that is fenced in this many incarnations in a row shares its transactional id with another process.
const PRODUCER_FENCED: u32 = 5;

/// When a worker was fenced, as the time since any fixed moment.
#[derive(Debug, Default)]
pub struct Fencing {
    member_fenced_at: Option<Duration>,
    producer_fenced: u32,
}

impl Fencing {
    /// Counts that the group has fenced the member. Returns true if another process runs under its name.
    pub fn member_fenced(&mut self, now: Duration) -> bool {
        let before = self.member_fenced_at.replace(now);
        before.is_some_and(|before| now.saturating_sub(before) < MEMBER_FENCED_TWICE)
    }

    /// Counts that a newer producer with this transactional id has fenced a transaction. Returns true if another process uses the
    /// id.
    pub fn producer_fenced(&mut self) -> bool {
        self.producer_fenced += 1;
        self.producer_fenced >= PRODUCER_FENCED
    }

    /// Notes a committed transaction: no other producer uses the id.
    pub fn committed(&mut self) {
        self.producer_fenced = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_is_fenced_rarely_continues() {
        let (mut fencing, start) = (Fencing::default(), Duration::from_secs(7));
        assert!(!fencing.member_fenced(start));
        assert!(!fencing.member_fenced(start + MEMBER_FENCED_TWICE));
        assert!(fencing.member_fenced(start + MEMBER_FENCED_TWICE + Duration::from_secs(119)));
    }

    #[test]
    fn a_commit_shows_that_no_other_producer_uses_the_id() {
        let mut fencing = Fencing::default();
        for _ in 0..PRODUCER_FENCED - 1 {
            assert!(!fencing.producer_fenced());
        }
        fencing.committed();
        assert!(!fencing.producer_fenced());
        assert!((0..PRODUCER_FENCED).any(|_| fencing.producer_fenced()));
    }
}
