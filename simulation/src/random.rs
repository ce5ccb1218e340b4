//! Random numbers from a seed. Each concern has a stream of its own, so leaving out a fault does not shift what the schedule
//! draws.

use std::ops::RangeInclusive;

/// One stream of random numbers.
#[derive(Debug, Clone)]
pub struct SeededRandom(u64);

impl SeededRandom {
    /// The stream of this number of a seed.
    #[must_use]
    pub fn new(seed: u64, number: u64) -> Self {
        let mut stream = Self(seed ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
        stream.draw();
        stream
    }

    /// The next number: splitmix64.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound.max(1)
    }

    /// An index below `bound`; 0 if `bound` is 0.
    pub fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap_or_default()
    }

    /// A number in a range.
    pub fn within(&mut self, range: RangeInclusive<i64>) -> i64 {
        let span = range.end().saturating_sub(*range.start()).max(0).unsigned_abs() + 1;
        range.start() + i64::try_from(self.below(span)).unwrap_or_default()
    }

    /// True in `share` of a thousand cases.
    pub fn permille(&mut self, share: u64) -> bool {
        self.below(1_000) < share
    }

    /// One element of a slice.
    ///
    /// # Panics
    /// The slice is empty.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.index(of.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_and_its_streams_differ() {
        let draw = |seed, stream| {
            let mut random = SeededRandom::new(seed, stream);
            [random.draw(), random.draw(), random.draw()]
        };
        assert_eq!(draw(7, 1), draw(7, 1));
        assert_ne!(draw(7, 1), draw(7, 2));
        assert_ne!(draw(7, 1), draw(8, 1));
    }

    #[test]
    fn numbers_stay_within_their_bounds() {
        let mut random = SeededRandom::new(1, 1);
        for _ in 0..1_000 {
            assert!((-3..=4).contains(&random.within(-3..=4)));
            assert!(random.below(3) < 3);
        }
        assert_eq!(random.below(0), 0);
    }
}
