//! Digests of canonical forms, and of sets of them.
//!
//! They tell two views apart that should be the same; they are no defence against somebody who wants a collision.

use uuid::Uuid;

/// The digest of one canonical form: 128 bits of its SHA-1.
#[must_use]
pub fn of(canonical: &str) -> u128 {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, canonical.as_bytes()).as_u128()
}

/// The digest of many digests, whatever their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SetDigest(u128);

impl SetDigest {
    /// Adds one.
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
