//! The partitions that a reader leaves out of what it reads, and until when.
//!
//! The client reports an unreadable batch as an error without a place. From the first such error on an [`Inspector`] looks at the
//! next batch of every partition, and then, for as long as something is wrong, at those that wait. A partition whose next batch
//! cannot be read is left out, so the other partitions continue; it is read again once the batch can be read, or once an operator has
//! decided to skip it. The watch outlives the reader's client: a batch on which the client itself hangs must not be given to the next
//! client.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{BatchSkipped, Found, Inspected, Inspector, PartitionAt, UnreadableBatch};
use crate::{codec::Readers, config::Config, health::DegradedPiece};

/// How often partitions are inspected while something is wrong.
const EVERY: Duration = Duration::from_secs(1);
/// How often every partition is inspected after the client has reported an error.
const ROUNDS: u32 = 3;

/// A topic and a partition.
pub(crate) type Partition = (Arc<str>, i32);

/// Who reads, as operators name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReaderName {
    /// A consumer group.
    Group(String),
    /// A view.
    View(String),
}

impl ReaderName {
    fn name(&self) -> &str {
        match self {
            Self::Group(name) | Self::View(name) => name,
        }
    }

    /// The command with which an operator skips a batch.
    fn hint(&self, batch: &UnreadableBatch) -> String {
        let flag = match self {
            Self::Group(name) => format!("--group {name}"),
            Self::View(name) => format!("--view {name}"),
        };
        format!("`dacapo parked skip {} {flag} --reason ...`", batch.position())
    }
}

/// An operator's decision about the next batch of a partition.
pub(crate) struct Skip {
    pub(crate) batch: UnreadableBatch,
    pub(crate) decision: BatchSkipped,
    /// The position from which the batch was found.
    pub(crate) from: i64,
}

/// The watch of one reader.
pub(crate) struct Watch {
    config: Config,
    readers: Readers,
    reader: ReaderName,
    inspector: Option<Inspector>,
    inspect_at: Option<Instant>,
    /// How many more times every partition is inspected.
    rounds: u32,
    issues: BTreeMap<Partition, DegradedPiece>,
    left_out: BTreeMap<Partition, UnreadableBatch>,
    /// The client may have hung on a batch. Nothing is read before the partitions were inspected.
    is_blind: bool,
    skips: Vec<Skip>,
}

impl Watch {
    pub(crate) fn new(config: &Config, readers: Readers, reader: ReaderName) -> Self {
        Self {
            config: config.clone(),
            readers,
            reader,
            inspector: None,
            inspect_at: None,
            rounds: 0,
            issues: BTreeMap::new(),
            left_out: BTreeMap::new(),
            is_blind: false,
            skips: Vec::new(),
        }
    }

    /// The client has reported that it cannot read a partition.
    pub(crate) fn suspect(&mut self) {
        self.rounds = ROUNDS;
        self.inspect_at.get_or_insert_with(Instant::now);
    }

    /// The client has lost its brokers. It looks the same if the client hangs on a batch.
    pub(crate) fn suspect_hang(&mut self) {
        self.suspect();
        self.is_blind = true;
    }

    /// True if the client may read this partition.
    pub(crate) fn admits(&self, topic: &Arc<str>, partition: i32) -> bool {
        !self.is_blind && (self.left_out.is_empty() || !self.left_out.contains_key(&(Arc::clone(topic), partition)))
    }

    /// The partitions that cannot be read, and why.
    pub(crate) fn issues(&self) -> impl Iterator<Item = (&Partition, &DegradedPiece)> {
        self.issues.iter()
    }

    /// The batches in front of which partitions wait.
    pub(crate) fn left_out(&self) -> impl Iterator<Item = &UnreadableBatch> {
        self.left_out.values()
    }

    /// The reader owns no partition any more.
    pub(crate) fn released(&mut self) {
        if !self.left_out.is_empty() {
            self.suspect();
        }
        self.issues.clear();
        self.left_out.clear();
        self.skips.clear();
    }

    /// The skips that operators have decided and that are not applied yet.
    pub(crate) fn take_skips(&mut self) -> Vec<Skip> {
        std::mem::take(&mut self.skips)
    }

    /// A batch was skipped: its partition is read again from behind it.
    pub(crate) fn skipped(&mut self, batch: &UnreadableBatch) {
        let partition = (Arc::clone(&batch.topic), batch.partition);
        self.issues.remove(&partition);
        self.left_out.remove(&partition);
        self.suspect();
    }

    /// Inspects the partitions if that is due, and takes the last findings. `partitions` returns the next offset of each that the
    /// reader owns. Returns true if there were findings: the client may have to read other partitions than before.
    pub(crate) fn watch(&mut self, partitions: impl FnOnce() -> Vec<PartitionAt>) -> bool {
        let taken = self.inspector.as_mut().and_then(Inspector::take);
        let has_findings = taken.is_some();
        self.learn(taken.unwrap_or_default(), has_findings);
        let is_due = self.inspect_at.is_some_and(|at| at <= Instant::now());
        if is_due && !self.inspector.as_ref().is_some_and(Inspector::is_busy) {
            self.ask(partitions());
        }
        has_findings
    }

    fn ask(&mut self, mut partitions: Vec<PartitionAt>) {
        self.inspect_at = Some(Instant::now() + EVERY);
        if self.rounds == 0 {
            partitions.retain(|at| self.issues.contains_key(&(Arc::clone(&at.topic), at.partition)));
        }
        if partitions.is_empty() {
            return;
        }
        if self.inspector.is_none() {
            match Inspector::start(&self.config, self.readers.clone(), self.reader.name()) {
                Ok(inspector) => self.inspector = Some(inspector),
                Err(error) => tracing::warn!(reader = self.reader.name(), %error, "partitions cannot be inspected"),
            }
        }
        if let Some(inspector) = &mut self.inspector {
            inspector.ask(partitions);
        }
    }

    fn learn(&mut self, inspected: Vec<Inspected>, has_findings: bool) {
        if !has_findings {
            return;
        }
        self.is_blind = false;
        self.skips.clear();
        for Inspected { at, found } in inspected {
            self.note(&at, found);
        }
        self.rounds = self.rounds.saturating_sub(1);
        if self.rounds == 0 && self.issues.is_empty() {
            self.inspect_at = None;
        }
    }

    fn note(&mut self, at: &PartitionAt, found: Found) {
        let partition = (Arc::clone(&at.topic), at.partition);
        let place = format!("{}/{}/{}", at.topic, at.partition, at.position);
        match found {
            Found::Readable => {
                self.issues.remove(&partition);
                self.left_out.remove(&partition);
            }
            Found::Unreadable(waits) => {
                let (batch, decision) = *waits;
                self.issues.insert(partition.clone(), self.issue(&batch));
                if let Some(decision) = decision {
                    self.skips.push(Skip { batch: batch.clone(), decision, from: at.position });
                }
                self.left_out.insert(partition, batch);
            }
            Found::Refused(reason) => {
                self.left_out.remove(&partition);
                self.issues.insert(partition, DegradedPiece::new(place, reason));
            }
            // The brokers are away, which the reader reports itself.
            Found::Unknown(reason) => tracing::debug!(place, reason, "a partition could not be inspected"),
        }
    }

    /// What is wrong with a batch and what an operator can do, for people.
    fn issue(&self, batch: &UnreadableBatch) -> DegradedPiece {
        let UnreadableBatch { records, next, reason, .. } = batch;
        let (last, hint) = (next - 1, self.reader.hint(batch));
        DegradedPiece::new(
            batch.position().to_string(),
            format!(
                "a batch of {records} records up to offset {last} cannot be read: {reason}; its partition of this topic waits; \
                 hint: {hint}"
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{RegisteredSchema, SchemaRef, SchemaSource, SchemaSourceError};

    struct NoSchemas;

    impl SchemaSource for NoSchemas {
        fn schema(&self, schema: SchemaRef) -> Result<RegisteredSchema, SchemaSourceError> {
            Err(SchemaSourceError::Unavailable(format!("{schema} is not asked for").into()))
        }
    }

    fn watch() -> Watch {
        let config = Config::for_tests();
        Watch::new(&config, Readers::new(Arc::new(NoSchemas)), ReaderName::Group("m.payment".to_owned()))
    }

    fn batch(first: i64, next: i64) -> UnreadableBatch {
        UnreadableBatch {
            topic: "m.payment.inbox".into(),
            partition: 3,
            first,
            next,
            records: 1,
            reason: "not gzip".to_owned(),
            bytes: bytes::Bytes::new(),
            end: 100,
        }
    }

    fn inspected(found: Found) -> Vec<Inspected> {
        vec![Inspected { at: PartitionAt { topic: "m.payment.inbox".into(), partition: 3, position: 7 }, found }]
    }

    #[test]
    fn a_partition_is_left_out_until_its_batch_can_be_read() {
        let (mut watch, topic) = (watch(), Arc::from("m.payment.inbox"));
        watch.suspect();
        watch.learn(inspected(Found::Unreadable(Box::new((batch(8, 9), None)))), true);
        assert!(!watch.admits(&topic, 3) && watch.admits(&topic, 2));
        let (_, piece) = watch.issues().next().expect("an issue");
        assert_eq!(piece.place, "m.payment.inbox/3/8");
        assert!(piece.reason.contains("`dacapo parked skip m.payment.inbox/3/8 --group m.payment"), "{piece}");
        watch.learn(inspected(Found::Unknown("away".to_owned())), true);
        assert!(!watch.admits(&topic, 3), "nothing is known about it");
        watch.learn(inspected(Found::Readable), true);
        assert!(watch.admits(&topic, 3) && watch.issues().next().is_none());
        assert!(watch.inspect_at.is_none(), "nothing is wrong any more");
    }

    #[test]
    fn nothing_is_read_after_a_hang_before_the_partitions_were_inspected() {
        let (mut watch, topic) = (watch(), Arc::from("t"));
        watch.suspect_hang();
        assert!(!watch.admits(&topic, 0));
        watch.released();
        assert!(!watch.admits(&topic, 0));
        watch.learn(inspected(Found::Unknown("a broker that speaks TLS".to_owned())), true);
        assert!(watch.admits(&topic, 0));
    }

    #[test]
    fn a_partition_that_the_broker_refuses_is_named_and_left_to_the_client() {
        let (mut watch, topic) = (watch(), Arc::from("m.payment.inbox"));
        watch.learn(inspected(Found::Refused("not authorised".to_owned())), true);
        assert!(watch.admits(&topic, 3));
        assert_eq!(
            watch.issues().next().expect("an issue").1,
            &DegradedPiece::new("m.payment.inbox/3/7", "not authorised")
        );
    }

    #[test]
    fn a_decision_is_applied_once_and_found_again_as_long_as_the_batch_waits() {
        let mut watch = watch();
        let decision = BatchSkipped {
            position: "m.payment.inbox/3/8".to_owned(),
            next_offset: 9,
            reader: "m.payment".to_owned(),
            defect: String::new(),
            by: "ada".to_owned(),
            reason: "a test".to_owned(),
            occurred_at: 0,
        };
        watch.learn(inspected(Found::Unreadable(Box::new((batch(8, 9), Some(decision))))), true);
        let skips = watch.take_skips();
        assert_eq!((skips.len(), skips[0].from), (1, 7));
        assert!(watch.take_skips().is_empty());
        watch.skipped(&skips[0].batch);
        assert!(watch.admits(&"m.payment.inbox".into(), 3));
    }
}
