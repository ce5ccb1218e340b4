//! dacapo-embedded
