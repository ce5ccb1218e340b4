//! The operator of parked records: retries them, and drops those that can never be read.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use runtime::{
    core::{DropParked, ParkedRecord, ParkingCommand, ParkingUpdate, RetryParked, partition_of},
    envelope::{Envelope, Position, derived_id},
};

use crate::{
    cluster::{Cluster, StoredRecord, TopicPartition},
    driver::{Violation, World},
    setup::{Fixtures, Service},
};

/// The parked records of a service, by entity, those of one entity in their order.
pub(crate) fn waiting(cluster: &Cluster, system: &str, topic: usize) -> Result<Vec<ParkedRecord>, Violation> {
    let mut waiting: BTreeMap<Position, ParkedRecord> = BTreeMap::new();
    let name = cluster.log.name(topic);
    for topic_partition in cluster.log.topic_partitions().filter(|known| known.topic == topic) {
        for (offset, stored) in cluster.log.committed(topic_partition) {
            let update = stored
                .with_record(name, topic_partition.partition, offset, |record| ParkingUpdate::read(system, record));
            match update.map_err(|e| Violation::new("every parked record can be read", e.to_string()))? {
                ParkingUpdate::Parked(parked) => drop(waiting.insert(parked.position.clone(), parked)),
                ParkingUpdate::Released(released) => {
                    let known = waiting.remove(&released.position);
                    if released.dropped && known.is_none() {
                        return Err(Violation::new("only parked records are dropped", released.position.to_string()));
                    }
                }
            }
        }
    }
    let mut waiting: Vec<ParkedRecord> = waiting.into_values().collect();
    waiting.sort_by(|a, b| (&a.entity, a.number).cmp(&(&b.entity, b.number)));
    Ok(waiting)
}

/// Acts on the first parked record of one entity of a service. Returns whether there was one.
pub(crate) fn act(
    service: &dyn Service,
    fixtures: &Fixtures,
    world: &mut World,
    is_patient: bool,
) -> Result<bool, Violation> {
    let contract = service.contract();
    let topic = world.cluster.topic(&contract.parked_topic);
    let waiting = waiting(&world.cluster, fixtures.system(), topic)?;
    let firsts: Vec<&ParkedRecord> = waiting.iter().filter(|parked| parked.failure.is_some()).collect();
    if firsts.is_empty() {
        return Ok(false);
    }
    let parked = *world.random.pick(&firsts);
    let (position, by) = (parked.position.to_string(), "an operator".to_owned());
    // A patient operator drops only records that cannot be read; an impatient one also retries them.
    let drops = world.poison_records.contains(&parked.position) && (is_patient || world.random.permille(500));
    let command: ParkingCommand = if drops {
        world.trace.sometimes("an operator drops a parked record");
        DropParked { position, by, reason: "it cannot be read".to_owned() }.into()
    } else {
        world.trace.sometimes("an operator retries a parked record");
        RetryParked { position, by }.into()
    };
    world.operator_actions += 1;
    send(service, fixtures, world, &parked.entity, &command)?;
    Ok(true)
}

fn send(
    service: &dyn Service,
    fixtures: &Fixtures,
    world: &mut World,
    entity: &str,
    command: &ParkingCommand,
) -> Result<(), Violation> {
    let contract = service.contract();
    let mut value = Vec::new();
    let unwritable = |what: String| Violation::new("an operator's command can be written", what);
    let writers = fixtures.operator_writers()?;
    let name = Arc::clone(writers.encode(command, &mut value).map_err(|e| unwritable(e.to_string()))?);
    let id = derived_id(&["operator", &world.operator_actions.to_string()]);
    let source = runtime::envelope::source(fixtures.system(), "operator");
    let envelope = Envelope::new(id, source, name, world.now_ms).about(entity).correlated(entity);
    let headers = crate::driver::headers_of(&envelope);
    let (timestamp_ms, key) = (world.now_ms, Some(entity.as_bytes().to_vec()));
    let stored = StoredRecord { timestamp_ms, key, value: Some(value), headers };
    let topic = world.cluster.topic(&contract.inputs[0]);
    let topic_partition = TopicPartition { topic, partition: partition_of(entity.as_bytes(), contract.partitions) };
    world.append(topic_partition, Rc::new(stored), "an operator");
    Ok(())
}
