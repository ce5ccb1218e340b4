//! All checks, by area, in the order they are reported.

mod offsets;
mod records;
mod topics;

use crate::check::Check;

pub(crate) fn all() -> Vec<Check> {
    let areas = [topics::CHECKS, records::CHECKS, offsets::CHECKS];
    areas.into_iter().flatten().map(|check| Check { ..*check }).collect()
}
