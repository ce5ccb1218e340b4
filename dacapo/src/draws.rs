//! Numbers drawn from a seed: the same on every machine, and far apart for neighbouring seeds (`SplitMix64`, Steele, Lea and Flood
//! 2014).

/// A sequence of drawn numbers.
#[derive(Debug, Clone)]
pub struct Draws(u64);

impl Draws {
    /// The sequence of a seed that has this index.
    #[must_use]
    pub fn new(seed: u64, index: u64) -> Self {
        let mut draws = Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        draws.any();
        draws
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.any() % bound
    }
}
