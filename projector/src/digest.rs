//! Digests of canonical forms, and of sets of them.
//!
//! They detect differences between two views. They do not resist deliberate collisions.

use uuid::Uuid;

/// The digest of one canonical form: 128 bits of its SHA-1.
#[must_use]
pub fn of(canonical: &str) -> u128 {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, canonical.as_bytes()).as_u128()
}

/// The digest of a set of digests, independent of their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SetDigest(u128);

impl SetDigest {
    /// Adds a digest.
    pub fn add(&mut self, digest: u128) {
        // Multiplying by an odd number keeps two changes from cancelling out as plain differences would.
        self.0 = self.0.wrapping_add(digest.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
    }
}

impl std::fmt::Display for SetDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
