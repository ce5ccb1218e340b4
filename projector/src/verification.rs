//! The proof that the live view is what the topics say: a second view folded from them, both compared at the same offsets.
//!
//! The live view is frozen as a set of offsets and the digest of each saga at these offsets ([`Frozen::read`]); the second view
//! reads exactly as far; [`compare`] looks at every saga and fetches in full the first that differs.

use std::collections::{BTreeMap, HashMap};

use crate::{
    api::{SagaCounts, SnapshotHead},
    client::{Client, ClientError},
    digest::{self, SetDigest},
    present::first_difference,
    standing::Flag,
    view::View,
};

/// A view that differs from what the topics say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The declaration's name.
    pub saga: String,
    /// The correlation id; empty if counts differ.
    pub id: String,
    /// Where in the saga, as a path.
    pub field: String,
    /// What the live view has there.
    pub live: String,
    /// What the topics say.
    pub rebuilt: String,
}

/// What a comparison has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The offsets at which both were compared.
    pub positions: crate::api::Positions,
    /// Records that were folded for it.
    pub records: u64,
    /// Sagas of the rebuilt view.
    pub sagas: u64,
    /// The digest of the rebuilt view.
    pub digest: String,
    /// The digest of the live view.
    pub live_digest: String,
    /// Sagas that differ or that only one of both has.
    pub differing: u64,
    /// The first of them.
    pub first: Option<Difference>,
}

impl Verdict {
    /// Whether the live view is what the topics say.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.first.is_none() && self.digest == self.live_digest
    }
}

/// The live view as it was at one moment: its head, and the digest of each saga.
#[derive(Debug, Clone, PartialEq)]
pub struct Frozen {
    /// Positions, counts, and the number by which single sagas are asked for.
    pub head: SnapshotHead,
    digests: HashMap<(String, String), String>,
    digest: String,
}

/// The live view could not be had as it was at one moment.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// The projector did not answer.
    #[error("cannot read the live view")]
    Client(#[source] ClientError),
    /// Rows were replaced while the snapshot was written.
    #[error("the live view changed what it had shown while it was read; try again when it is calmer")]
    Disturbed,
}

impl Frozen {
    /// Reads a snapshot of a live view.
    ///
    /// # Errors
    /// [`FreezeError`].
    pub async fn read(live: &Client) -> Result<Self, FreezeError> {
        for _ in 0..ATTEMPTS {
            if let Some(frozen) = Self::attempt(live).await.map_err(FreezeError::Client)? {
                return Ok(frozen);
            }
        }
        Err(FreezeError::Disturbed)
    }

    /// One attempt; `None` if the snapshot was disturbed.
    async fn attempt(live: &Client) -> Result<Option<Self>, ClientError> {
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

/// Compares a frozen live view with one that was folded from the topics up to the same offsets.
///
/// # Errors
/// [`ClientError`] if the first saga that differs cannot be fetched.
pub async fn compare(live: &Client, mut frozen: Frozen, rebuilt: &View) -> Result<Verdict, ClientError> {
    let mut set = SetDigest::default();
    let mut differing: BTreeMap<(String, String), ()> = BTreeMap::new();
    let mut sagas = 0;
    for instance in 0..u32::try_from(rebuilt.sagas()).unwrap_or(u32::MAX) {
        let subject = rebuilt.subject(instance);
        let Some(canonical) = subject.canonical() else { continue };
        let digest = digest::of(&canonical);
        set.add(digest);
        sagas += 1;
        let key = (subject.declaration.name.clone(), subject.id.to_owned());
        if frozen.digests.remove(&key).is_none_or(|there| there != format!("{digest:032x}")) {
            differing.insert(key, ());
        }
    }
    // What is left is in the live view only.
    differing.extend(frozen.digests.into_keys().map(|key| (key, ())));
    let first = match differing.first_key_value() {
        Some(((saga, id), ())) => Some(difference(live, frozen.head.snapshot, rebuilt, saga, id).await?),
        None => counts_difference(&frozen.head.counts, &rebuilt.counts()),
    };
    Ok(Verdict {
        records: rebuilt.records(),
        sagas,
        digest: set.to_string(),
        live_digest: frozen.digest,
        differing: differing.len() as u64,
        first,
        positions: frozen.head.positions,
    })
}

/// Where one saga differs.
async fn difference(
    live: &Client,
    snapshot: u64,
    rebuilt: &View,
    saga: &str,
    id: &str,
) -> Result<Difference, ClientError> {
    let there = match live.frozen(snapshot, saga, id).await {
        Err(error) if error.is_not_found() => None,
        other => Some(other?),
    };
    let here = rebuilt.canonical(saga, id).and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    let (field, live, rebuilt) = match (&there, &here) {
        (Some(there), Some(here)) => first_difference(there, here).unwrap_or_default(),
        (there, _) => {
            let said = |is: bool| if is { "is there" } else { "is not there" }.to_owned();
            (String::new(), said(there.is_some()), said(there.is_none()))
        }
    };
    Ok(Difference { saga: saga.to_owned(), id: id.to_owned(), field, live, rebuilt })
}

/// Counts are kept beside the sagas, so they could be wrong where every saga is right.
fn counts_difference(live: &[SagaCounts], rebuilt: &[SagaCounts]) -> Option<Difference> {
    // Whether something is stuck depends on the moment.
    let timeless = |counts: &SagaCounts| {
        let mut counts = counts.clone();
        counts.flags.remove(Flag::Stuck.name());
        serde_json::to_value(counts).unwrap_or_default()
    };
    let pairs = live.iter().zip(rebuilt);
    pairs.into_iter().find_map(|(there, here)| {
        let (field, live, rebuilt) = first_difference(&timeless(there), &timeless(here))?;
        Some(Difference {
            saga: there.saga.clone(),
            id: String::new(),
            field: format!("/counts{field}"),
            live,
            rebuilt,
        })
    })
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let partitions: usize = self.positions.values().map(BTreeMap::len).sum();
        let read = format!("{} records of {partitions} partitions", self.records);
        match &self.first {
            None if self.agrees() => {
                write!(f, "the view agrees with the topics: {} sagas from {read}, digest {}", self.sagas, self.digest)
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
