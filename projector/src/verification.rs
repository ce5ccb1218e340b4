//! Proves that the live view matches the topics: a second view is folded from the topics, and both are compared at the same
//! offsets.
//!
//! The live view is frozen as a set of offsets and the digest of each saga at these offsets ([`LiveSnapshot::read`]). The
//! second view reads exactly up to these offsets. [`compare`] compares every saga and fetches the first difference in full.

use std::collections::{BTreeMap, HashMap};

use crate::{
    api::{SagaCounts, SnapshotHead},
    client::{ClientError, ProjectorClient},
    digest::{self, SetDigest},
    present::first_difference,
    progress::SagaFlag,
    view::SagaView,
};

/// A difference between the live view and the topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewDifference {
    /// The declaration's name.
    pub saga: String,
    /// The correlation id; empty if counts differ.
    pub id: String,
    /// The path of the field in the saga.
    pub field: String,
    /// The value in the live view.
    pub live: String,
    /// The value derived from the topics.
    pub rebuilt: String,
}

/// The result of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewComparison {
    /// The offsets at which both were compared.
    pub positions: crate::api::NextOffsets,
    /// The number of records that were folded for it.
    pub records: u64,
    /// The number of sagas of the rebuilt view.
    pub sagas: u64,
    /// The digest of the rebuilt view.
    pub digest: String,
    /// The digest of the live view.
    pub live_digest: String,
    /// The number of sagas that differ or that only one view has.
    pub differing: u64,
    /// The first difference.
    pub first: Option<ViewDifference>,
}

impl ViewComparison {
    /// True if the live view matches the topics.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.first.is_none() && self.digest == self.live_digest
    }
}

/// A snapshot of the live view: its head, and the digest of each saga.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveSnapshot {
    /// Positions, counts, and the snapshot number by which single sagas are requested.
    pub head: SnapshotHead,
    digests: HashMap<(String, String), String>,
    digest: String,
}

/// Why the live view cannot be read at one moment.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The projector is unreachable.
    #[error("cannot read the live view")]
    ProjectorClient(#[source] ClientError),
    /// Records were replaced while the snapshot was written.
    #[error("the live view replaced records while it was read; try again when fewer records arrive")]
    Disturbed,
}

impl LiveSnapshot {
    /// Reads a snapshot of a live view.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub async fn read(live: &ProjectorClient) -> Result<Self, SnapshotError> {
        for _ in 0..ATTEMPTS {
            if let Some(frozen) = Self::attempt(live).await.map_err(SnapshotError::ProjectorClient)? {
                return Ok(frozen);
            }
        }
        Err(SnapshotError::Disturbed)
    }

    /// One attempt; `None` if the snapshot was disturbed.
    async fn attempt(live: &ProjectorClient) -> Result<Option<Self>, ClientError> {
        let mut snapshot = live.snapshot(false).await?;
        let head = snapshot.head()?.clone();
        let mut digests = HashMap::new();
        while let Some(line) = snapshot.next().await? {
            digests.insert((line.saga, line.id), line.digest);
        }
        let tail = snapshot.tail().filter(|tail| !tail.disturbed);
        Ok(tail.map(|tail| Self { head, digests, digest: tail.digest.clone() }))
    }
}

const ATTEMPTS: usize = 3;

/// Compares a snapshot of the live view with a view that was folded from the topics up to the same offsets.
///
/// # Errors
/// [`ClientError`] if the first saga that differs cannot be fetched.
pub async fn compare(
    live: &ProjectorClient,
    mut frozen: LiveSnapshot,
    rebuilt: &SagaView,
) -> Result<ViewComparison, ClientError> {
    let mut set = SetDigest::default();
    let mut differing: BTreeMap<(String, String), ()> = BTreeMap::new();
    let mut sagas = 0;
    for instance in 0..u32::try_from(rebuilt.sagas()).unwrap_or(u32::MAX) {
        let context = rebuilt.subject(instance);
        let Some(canonical) = context.canonical() else { continue };
        let digest = digest::of(&canonical);
        set.add(digest);
        sagas += 1;
        let key = (context.declaration.name.clone(), context.id.to_owned());
        if frozen.digests.remove(&key).is_none_or(|there| there != format!("{digest:032x}")) {
            differing.insert(key, ());
        }
    }
    // The remaining sagas are in the live view only.
    differing.extend(frozen.digests.into_keys().map(|key| (key, ())));
    let first = match differing.first_key_value() {
        Some(((saga, id), ())) => Some(difference(live, frozen.head.snapshot, rebuilt, saga, id).await?),
        None => counts_difference(&frozen.head.counts, &rebuilt.counts()),
    };
    Ok(ViewComparison {
        records: rebuilt.records(),
        sagas,
        digest: set.to_string(),
        live_digest: frozen.digest,
        differing: differing.len() as u64,
        first,
        positions: frozen.head.positions,
    })
}

/// The difference of one saga.
async fn difference(
    live: &ProjectorClient,
    snapshot: u64,
    rebuilt: &SagaView,
    saga: &str,
    id: &str,
) -> Result<ViewDifference, ClientError> {
    let there = match live.frozen(snapshot, saga, id).await {
        Err(error) if error.is_not_found() => None,
        other => Some(other?),
    };
    let here = rebuilt.canonical(saga, id).and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    let (field, live, rebuilt) = match (&there, &here) {
        (Some(there), Some(here)) => first_difference(there, here).unwrap_or_default(),
        (there, _) => {
            let presence = |is: bool| if is { "present" } else { "absent" }.to_owned();
            (String::new(), presence(there.is_some()), presence(there.is_none()))
        }
    };
    Ok(ViewDifference { saga: saga.to_owned(), id: id.to_owned(), field, live, rebuilt })
}

/// Counts are maintained beside the sagas, so they can be wrong although every saga is right.
fn counts_difference(live: &[SagaCounts], rebuilt: &[SagaCounts]) -> Option<ViewDifference> {
    // Whether a saga is stuck depends on the moment.
    let timeless = |counts: &SagaCounts| {
        let mut counts = counts.clone();
        counts.flags.remove(SagaFlag::Stuck.name());
        serde_json::to_value(counts).unwrap_or_default()
    };
    let pairs = live.iter().zip(rebuilt);
    pairs.into_iter().find_map(|(there, here)| {
        let (field, live, rebuilt) = first_difference(&timeless(there), &timeless(here))?;
        Some(ViewDifference {
            saga: there.saga.clone(),
            id: String::new(),
            field: format!("/counts{field}"),
            live,
            rebuilt,
        })
    })
}

impl std::fmt::Display for ViewComparison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let partitions: usize = self.positions.values().map(BTreeMap::len).sum();
        let read = format!("{} records of {partitions} partitions", self.records);
        match &self.first {
            None if self.agrees() => {
                write!(f, "the view matches the topics: {} sagas from {read}, digest {}", self.sagas, self.digest)
            }
            None => {
                write!(f, "the view differs from the topics: digest {} and {} ({read})", self.live_digest, self.digest)
            }
            Some(first) => {
                let plain = crate::render::plain;
                let whose = if first.id.is_empty() { "counts".to_owned() } else { plain(&first.id) };
                writeln!(f, "the view differs from the topics in {} sagas of {} ({read})", self.differing, self.sagas)?;
                writeln!(
                    f,
                    "first difference: {} {whose} at {}",
                    plain(&first.saga),
                    plain(if first.field.is_empty() { "/" } else { &first.field })
                )?;
                write!(f, "  live:    {}\n  rebuilt: {}", plain(&first.live), plain(&first.rebuilt))
            }
        }
    }
}
