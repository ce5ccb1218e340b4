//! The parked topics of a system, read to their ends and followed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::bail;
use projector::render::plain;
use runtime::{
    codec::Readers,
    config::Config,
    core::{ParkedRecord, ParkingUpdate},
    envelope::Position,
    message::parked_topic,
    projection::{LiveView, LogRecord, Projection, Topics},
    registry::RegistryClient,
};

use crate::{
    musiccorp::SERVICES,
    target::{ConnectedSystem, Target},
};

/// How long reading the topics may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Flags for the parked topics to read.
#[derive(Debug, clap::Args)]
pub struct ParkedArgs {
    #[command(flatten)]
    target: Target,
    /// Only records that this service has parked
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
}

/// A parked record, with the service that has parked it.
pub(super) type ServiceRecord = (&'static str, ParkedRecord);

/// The parked records, by service and position.
#[derive(Debug, Clone, Default)]
pub(super) struct ParkedRecords {
    pub(super) records: BTreeMap<(&'static str, Position), ParkedRecord>,
    /// The service of each parked topic.
    services: BTreeMap<Arc<str>, &'static str>,
    system: String,
    /// How many records on parked topics are not parked records: another program writes there.
    pub(super) foreign: u64,
}

impl Projection for ParkedRecords {
    fn apply(&mut self, record: &LogRecord<'_>) {
        let Some(service) = self.services.get(record.topic).copied() else { return };
        match record.with_record(|record| ParkingUpdate::read(&self.system, record)) {
            Ok(ParkingUpdate::Parked(parked)) => drop(self.records.insert((service, parked.position.clone()), parked)),
            Ok(ParkingUpdate::Released(left)) => drop(self.records.remove(&(service, left.position))),
            Err(_) => self.foreign += 1,
        }
    }
}

impl ParkedRecords {
    /// The records of an entity, in order.
    pub(super) fn queue(&self, service: &str, entity: &str) -> Vec<&ParkedRecord> {
        let of_entity =
            |((of, _), parked): &(&(&str, Position), &ParkedRecord)| *of == service && *parked.entity == *entity;
        let mut queue: Vec<&ParkedRecord> = self.records.iter().filter(of_entity).map(|(_, parked)| parked).collect();
        queue.sort_by_key(|parked| parked.number);
        queue
    }

    /// The records that wait behind this one, in order.
    pub(super) fn behind(&self, service: &str, parked: &ParkedRecord) -> Vec<&ParkedRecord> {
        let queue = self.queue(service, &parked.entity);
        queue.into_iter().filter(|other| other.number > parked.number).collect()
    }
}

/// The parked topics of a system.
pub(super) struct ParkedView {
    pub(super) config: Config,
    pub(super) services: Vec<&'static str>,
    pub(super) view: LiveView<ParkedRecords>,
}

impl ParkedArgs {
    /// Reads the parked topics to their present ends.
    pub(super) async fn read(&self) -> anyhow::Result<ParkedView> {
        let services: Vec<&'static str> = match &self.service {
            None => SERVICES.to_vec(),
            Some(name) => match SERVICES.iter().find(|service| *service == name) {
                Some(service) => vec![*service],
                None => bail!("there is no service {name:?} that decides; the services are {}", SERVICES.join(", ")),
            },
        };
        let ConnectedSystem { config, partitions } = self.target.connect("dacapo").await?;
        let topics: BTreeMap<Arc<str>, &'static str> = services
            .iter()
            .copied()
            .map(|service| (Arc::from(parked_topic(&config.system, service)), service))
            .filter(|(name, _)| partitions.contains_key(&**name))
            .collect();
        let records =
            ParkedRecords { services: topics.clone(), system: config.system.clone(), ..ParkedRecords::default() };
        let readers = Readers::new(Arc::new(RegistryClient::new(&config)?));
        let raw = Topics::default().and_raw(topics.keys().map(|name| name.to_string()));
        let view = LiveView::start(&config, "parked", readers, raw, records)?;
        view.wait_until_caught_up(PATIENCE).await?;
        crate::output::note_held(&view.health());
        Ok(ParkedView { config, services, view })
    }
}

impl ParkedView {
    /// The parked records at this moment.
    pub(super) fn now(&self) -> ParkedRecords {
        self.view.read(Clone::clone)
    }

    /// The parked records that have failed: those that others wait behind.
    pub(super) fn failed(&self) -> Vec<ServiceRecord> {
        let parked = self.now();
        let failed = parked.records.iter().filter(|(_, parked)| parked.failure.is_some());
        failed.map(|((service, _), parked)| (*service, parked.clone())).collect()
    }

    /// The record at a position.
    pub(super) fn at(&self, position: &Position) -> anyhow::Result<ServiceRecord> {
        let parked = self.now();
        let found: Vec<ServiceRecord> = parked
            .records
            .iter()
            .filter(|((_, at), _)| at == position)
            .map(|((service, _), parked)| (*service, parked.clone()))
            .collect();
        match <[ServiceRecord; 1]>::try_from(found) {
            Ok([found]) => Ok(found),
            Err(found) if found.is_empty() => {
                bail!("nothing is parked at {position}; `dacapo parked list` shows the parked records")
            }
            Err(found) => {
                let services: Vec<&str> = found.iter().map(|(service, _)| *service).collect();
                bail!("{position} is parked in {}; choose one with --service", services.join(" and in "))
            }
        }
    }

    /// The record at a position, which must be the first of its entity's queue.
    pub(super) fn failed_at(&self, position: &Position) -> anyhow::Result<ServiceRecord> {
        let (service, parked) = self.at(position)?;
        let records = self.now();
        match records.queue(service, &parked.entity).first() {
            Some(first) if first.position != *position => bail!(
                "{position} waits behind {}, which has failed; retry or drop that record first: {service} keeps the order of {}",
                first.position,
                plain(&parked.entity)
            ),
            _ => Ok((service, parked)),
        }
    }
}
