//! All checks by area, in the order of the report.

mod batches;
mod fencing;
mod groups;
mod log;
mod lookups;
mod offsets;
mod ownership;
mod records;
mod registry;
mod topics;
mod transactions;
mod versions;
mod wire;

use crate::check::ConformanceCheck;

pub(crate) fn all() -> Vec<ConformanceCheck> {
    let areas = [
        topics::CHECKS,
        records::CHECKS,
        offsets::CHECKS,
        transactions::CHECKS,
        fencing::CHECKS,
        groups::CHECKS,
        ownership::CHECKS,
        log::CHECKS,
        batches::CHECKS,
        lookups::CHECKS,
        wire::CHECKS,
        versions::CHECKS,
        registry::CHECKS,
    ];
    areas.into_iter().flatten().map(|check| ConformanceCheck { ..*check }).collect()
}
