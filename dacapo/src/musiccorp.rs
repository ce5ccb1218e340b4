//! MusicCorp as this build knows it: its services, and every record type they write.

use runtime::message::{Message, RecordType};

/// The services that decide, in the order in which `up` starts them.
pub const SERVICES: [&str; 7] =
    ["customers", "catalogue", "order-processor", "warehouse", "payment", "loyalty", "notifications"];

/// Every record type that a service or the projector writes, with the schema that is compiled in.
#[must_use]
pub fn records() -> Vec<RecordType> {
    let groups: [&[RecordType]; 17] = [
        customers::events::Event::RECORDS,
        customers::inbox::Command::RECORDS,
        catalogue::events::Event::RECORDS,
        catalogue::inbox::Command::RECORDS,
        order_processor::events::Event::RECORDS,
        order_processor::inbox::Command::RECORDS,
        warehouse::events::Event::RECORDS,
        warehouse::inbox::Command::RECORDS,
        payment::events::Event::RECORDS,
        payment::inbox::Command::RECORDS,
        loyalty::events::Event::RECORDS,
        notifications::events::Event::RECORDS,
        notifications::inbox::Command::RECORDS,
        runtime::core::RuntimeRecord::RECORDS,
        runtime::core::ParkingCommand::RECORDS,
        runtime::unreadable::OperatorEvent::RECORDS,
        projector::status::StatusMessage::RECORDS,
    ];
    groups.concat()
}
