//! One batch as the requests of one transaction, and what the cluster makes of them.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use runtime::{
    Decider,
    core::{Batch, Output, OutputHeaders, Target, log_bounds::own_end_of, partition_of, turn::Turn},
    envelope::Envelope,
};

use super::{Kit, World};
use crate::{
    cluster::{Headers, Membership, Offset, Offsets, Place, Reply, Request, Session, Stored},
    faults::Fault,
    mutant::Mutant,
};

/// A transaction under way.
#[derive(Debug)]
pub(crate) struct Transaction {
    requests: VecDeque<Request>,
    /// The ends of what was appended to the own log.
    pub(crate) own_ends: BTreeMap<i32, i64>,
    pub(crate) begun_ms: i64,
    events: usize,
}

/// How one request went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Went {
    /// It is done; more follow.
    On,
    /// The transaction is committed.
    Committed,
    /// Not now; the same request again.
    Again,
    /// It is not known, or known to have failed: the process must throw everything away.
    Failed(String),
}

pub(crate) fn headers_of(envelope: &Envelope) -> Headers {
    let mut headers = Headers::with_capacity(14);
    envelope.for_each_header(|name, value| headers.push((Cow::Borrowed(name), Some(value.as_bytes().to_vec()))));
    headers
}

fn stored(batch: &Batch, output: &Output) -> Rc<Stored> {
    let headers = match &output.headers {
        OutputHeaders::Envelope(envelope) => headers_of(envelope),
        OutputHeaders::Verbatim(headers) => {
            headers.iter().map(|(name, value)| (Cow::Owned(name.clone()), value.clone())).collect()
        }
    };
    let (key, value) = (batch.key(output).map(<[u8]>::to_vec), batch.value(output).map(<[u8]>::to_vec));
    Rc::new(Stored { timestamp_ms: output.timestamp_ms, key, value, headers })
}

impl Transaction {
    /// The requests that commit a batch. `fence` is the membership of the moment at which the batch began.
    pub(crate) fn of<D: Decider>(
        kit: &Kit<D>,
        turn: &Turn<D, Membership>,
        session: &Session,
        fence: Membership,
        world: &mut World,
    ) -> Self {
        let batch = turn.batch();
        let place_of = |output: &Output| {
            let topic = match output.to {
                Target::Events => kit.events,
                Target::Inbox => kit.inputs[0],
                Target::DeadLetters => kit.letters,
                Target::Parked => kit.parked,
            };
            let by_key = || partition_of(batch.key(output).unwrap_or_default(), kit.contract.partitions);
            Place { topic, partition: output.partition.unwrap_or_else(by_key) }
        };
        let mut by_place: BTreeMap<Place, Vec<Rc<Stored>>> = BTreeMap::new();
        for output in batch.outputs() {
            by_place.entry(place_of(output)).or_default().push(stored(batch, output));
        }
        let offsets = turn
            .offsets()
            .map(|(input, partition, next, note)| {
                (Place { topic: kit.inputs[input], partition }, Offset { next, own_end: own_end_of(&note) })
            })
            .collect();
        let mut requests: Vec<Request> = by_place
            .into_iter()
            .map(|(place, records)| Request::Produce { session: session.clone(), place, records })
            .collect();
        let requests = order(&mut requests, offsets, kit.group, session, fence, world);
        Self { requests, own_ends: BTreeMap::new(), begun_ms: world.now_ms, events: kit.events }
    }

    /// Sends the next request.
    pub(crate) fn step(&mut self, world: &mut World, whom: &str) -> Went {
        let Some(request) = self.requests.pop_front() else { return Went::Committed };
        let careless = world.is(Mutant::GoOnAfterError);
        let lost = |what: &str| if careless { None } else { Some(Went::Failed(what.to_owned())) };
        let mut failed = None;
        let reply = if world.strikes(Fault::RequestLost, whom) {
            failed = lost("a request got no reply");
            None
        } else if world.strikes(Fault::RequestLate, whom) {
            let at_ms = world.now_ms + world.faults.extent().within(50..=6_000);
            world.cluster.serve_later(at_ms, request.clone());
            failed = lost("a request got no reply in time");
            None
        } else {
            let reply = world.cluster.serve(&request, world.now_ms, &mut world.trace);
            if reply != Reply::Busy && world.strikes(Fault::ReplyLost, whom) {
                failed = lost("the reply to a request was lost");
            }
            Some(reply)
        };
        if let Some(failed) = failed {
            return failed;
        }
        match reply {
            Some(Reply::Busy) => {
                self.requests.push_front(request);
                return Went::Again;
            }
            Some(Reply::Fenced) => return Went::Failed("fenced: another producer has this one's id".to_owned()),
            Some(Reply::TooLarge) => return Went::Failed("a record is larger than its topic takes".to_owned()),
            Some(Reply::NotAMember) => return Went::Failed("fenced: not a member of this generation".to_owned()),
            Some(Reply::NoTransaction) if !careless => return Went::Failed("there is no transaction".to_owned()),
            Some(Reply::Done { end }) => self.note_end(&request, end),
            Some(Reply::NoTransaction) | None => {}
        }
        if self.requests.is_empty() { Went::Committed } else { Went::On }
    }

    fn note_end(&mut self, request: &Request, end: i64) {
        if let Request::Produce { place, .. } = request
            && place.topic == self.events
        {
            let known = self.own_ends.entry(place.partition).or_default();
            *known = (*known).max(end);
        }
    }

    /// True if its last request may have been sent: it may be committed although nobody was told.
    pub(crate) fn is_ending(&self) -> bool {
        self.requests.len() <= 1
    }
}

/// The order in which requests go out: records and positions side by side, then the end. Mutants have orders of their own.
fn order(
    produce: &mut Vec<Request>,
    offsets: Offsets,
    group: usize,
    session: &Session,
    fence: Membership,
    world: &mut World,
) -> VecDeque<Request> {
    let session = || session.clone();
    let end = || Request::End { session: session(), commits: true };
    let bare = |offsets| Request::CommitOffsets { group, offsets };
    let membership = (!world.is(Mutant::NoGeneration)).then_some(fence);
    let fenced = |offsets| Request::Offsets { session: session(), group, membership, offsets };
    // From the end, so that what is taken out does not move what stands before it.
    let mut shuffled = VecDeque::new();
    while !produce.is_empty() {
        shuffled.push_back(produce.swap_remove(world.chance.index(produce.len())));
    }
    match world.mutant {
        Some(Mutant::CommitFirst) => {
            let nothing_said = shuffled.is_empty();
            shuffled.push_front(bare(offsets));
            if !nothing_said {
                shuffled.push_back(end());
            }
        }
        Some(Mutant::OffsetsOutsideFence) => {
            if !shuffled.is_empty() {
                shuffled.push_back(end());
            }
            shuffled.push_back(bare(offsets));
        }
        Some(Mutant::SplitDecision) => {
            let rest = shuffled.split_off(shuffled.len() / 2);
            if !shuffled.is_empty() {
                shuffled.push_back(end());
            }
            shuffled.extend(rest);
            shuffled.push_back(fenced(offsets));
            shuffled.push_back(end());
        }
        _ => {
            let at = world.chance.index(shuffled.len() + 1);
            shuffled.insert(at, fenced(offsets));
            shuffled.push_back(end());
        }
    }
    shuffled
}
