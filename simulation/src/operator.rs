//! Who looks after what is parked: has it tried again, and gives up what nobody can ever read.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use runtime::{
    core::{DropParked, ParkedRecord, ParkingCommand, ParkingUpdate, RetryParked, partition_of},
    envelope::{Envelope, Position, derived_id},
};

use crate::{
    cast::{Service, Workshop},
    cluster::{Cluster, Place, Stored},
    driver::{Violation, World},
};

/// What waits in a service, by entity, each entity's in its order.
pub(crate) fn waiting(cluster: &Cluster, system: &str, topic: usize) -> Result<Vec<ParkedRecord>, Violation> {
    let mut waiting: BTreeMap<Position, ParkedRecord> = BTreeMap::new();
    let name = cluster.log.name(topic);
    for place in cluster.log.places().filter(|place| place.topic == topic) {
        for (offset, stored) in cluster.log.committed(place) {
            let news = stored.with_record(name, place.partition, offset, |record| ParkingUpdate::read(system, record));
            match news.map_err(|e| Violation::new("what is parked can be read", e.to_string()))? {
                ParkingUpdate::Parked(parked) => drop(waiting.insert(parked.position.clone(), parked)),
                ParkingUpdate::Released(left) => {
                    let gone = waiting.remove(&left.position);
                    if left.dropped && gone.is_none() {
                        return Err(Violation::new("only what waits is dropped", left.position.to_string()));
                    }
                }
            }
        }
    }
    let mut waiting: Vec<ParkedRecord> = waiting.into_values().collect();
    waiting.sort_by(|a, b| (&a.entity, a.number).cmp(&(&b.entity, b.number)));
    Ok(waiting)
}

/// Acts on the first of what waits for one entity of a service. Answers whether there was anything.
pub(crate) fn act(
    service: &dyn Service,
    workshop: &Workshop,
    world: &mut World,
    is_patient: bool,
) -> Result<bool, Violation> {
    let contract = service.contract();
    let topic = world.cluster.topic(&contract.parked_topic);
    let waiting = waiting(&world.cluster, workshop.system(), topic)?;
    let firsts: Vec<&ParkedRecord> = waiting.iter().filter(|parked| parked.failure.is_some()).collect();
    if firsts.is_empty() {
        return Ok(false);
    }
    let parked = *world.chance.pick(&firsts);
    let (place, by) = (parked.position.to_string(), "an operator".to_owned());
    // Who is patient gives up only what cannot be read; who is not tries that as well.
    let drops = world.poisons.contains(&parked.position) && (is_patient || world.chance.permille(500));
    let command: ParkingCommand = if drops {
        world.trace.sometimes("an operator gives a parked record up");
        DropParked { place, by, reason: "nobody can read it".to_owned() }.into()
    } else {
        world.trace.sometimes("an operator has a parked record tried again");
        RetryParked { place, by }.into()
    };
    world.operated += 1;
    send(service, workshop, world, &parked.entity, &command)?;
    Ok(true)
}

fn send(
    service: &dyn Service,
    workshop: &Workshop,
    world: &mut World,
    entity: &str,
    command: &ParkingCommand,
) -> Result<(), Violation> {
    let contract = service.contract();
    let mut value = Vec::new();
    let unfit = |what: String| Violation::new("an operator's command can be written", what);
    let writers = workshop.operators()?;
    let name = Arc::clone(writers.encode(command, &mut value).map_err(|e| unfit(e.to_string()))?);
    let id = derived_id(&["operator", &world.operated.to_string()]);
    let source = runtime::envelope::source(workshop.system(), "operator");
    let envelope = Envelope::new(id, source, name, world.now_ms).about(entity).correlated(entity);
    let headers = crate::driver::headers_of(&envelope);
    let (timestamp_ms, key) = (world.now_ms, Some(entity.as_bytes().to_vec()));
    let stored = Stored { timestamp_ms, key, value: Some(value), headers };
    let topic = world.cluster.topic(&contract.inputs[0]);
    let place = Place { topic, partition: partition_of(entity.as_bytes(), contract.partitions) };
    world.append(place, Rc::new(stored), "an operator");
    Ok(())
}
