//! dacapo
