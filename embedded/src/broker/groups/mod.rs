//! Consumer groups: one state machine per group behind its own lock, and the requests that wait for it.
//!
//! Owns the map of groups and the tokens of waiting requests. The rules are in `machine`; offsets are the coordinator's.

pub(crate) mod handlers;
pub(crate) mod machine;
mod subscription;
#[cfg(test)]
mod tests;

use super::config::BrokerConfig;
use super::sync::lock;
use kafka_protocol::ResponseError;
use machine::{Answer, Committer, Group, Joined, Refused, Synced, Token};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::oneshot;

/// A group and who waits for its answers.
#[derive(Debug)]
pub(crate) struct Cell {
    pub group: Group,
    joins: HashMap<Token, oneshot::Sender<Result<Joined, Refused>>>,
    syncs: HashMap<Token, oneshot::Sender<Result<Synced, ResponseError>>>,
    next_token: Token,
    /// Taken out of the map: whoever still holds it must look the group up again.
    removed: bool,
}

impl Cell {
    fn wait_for_join(&mut self) -> (Token, oneshot::Receiver<Result<Joined, Refused>>) {
        let (sender, receiver) = oneshot::channel();
        self.next_token += 1;
        self.joins.insert(self.next_token, sender);
        (self.next_token, receiver)
    }

    fn wait_for_sync(&mut self) -> (Token, oneshot::Receiver<Result<Synced, ResponseError>>) {
        let (sender, receiver) = oneshot::channel();
        self.next_token += 1;
        self.syncs.insert(self.next_token, sender);
        (self.next_token, receiver)
    }

    /// Sends what the group has answered. A receiver that is gone was a connection that is gone.
    fn deliver(&mut self) {
        for answer in self.group.take_answers() {
            match answer {
                Answer::Join(token, joined) => {
                    if let Some(sender) = self.joins.remove(&token) {
                        drop(sender.send(joined));
                    }
                }
                Answer::Sync(token, synced) => {
                    if let Some(sender) = self.syncs.remove(&token) {
                        drop(sender.send(synced));
                    }
                }
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Groups {
    cells: Mutex<HashMap<String, Arc<Mutex<Cell>>>>,
    /// Last generation of groups without members: the next one must be higher, also after a restart.
    generations: Mutex<HashMap<String, i32>>,
    initial_delay_ms: i64,
    members_max: usize,
}

impl Groups {
    pub(crate) fn new(config: &BrokerConfig, generations: HashMap<String, i32>) -> Self {
        Groups {
            cells: Mutex::new(HashMap::new()),
            generations: Mutex::new(generations),
            initial_delay_ms: i64::try_from(config.initial_rebalance_delay.as_millis()).unwrap_or(i64::MAX),
            members_max: config.limits.group_members_max,
        }
    }

    fn find(&self, id: &str) -> Option<Arc<Mutex<Cell>>> {
        lock(&self.cells).get(id).cloned()
    }

    /// Works on a group under its lock, making it when it is not there, and delivers what it answers.
    fn with<T>(&self, id: &str, work: impl FnOnce(&mut Cell) -> T) -> T {
        loop {
            let cell = Arc::clone(lock(&self.cells).entry(id.to_owned()).or_insert_with(|| self.new_cell(id)));
            let mut cell = lock(&cell);
            if !cell.removed {
                let done = work(&mut cell);
                cell.deliver();
                return done;
            }
        }
    }

    /// As [`Groups::with`], for a group that must have members or be on the way to.
    fn with_known<T>(&self, id: &str, work: impl FnOnce(&mut Cell) -> T) -> Option<T> {
        let cell = self.find(id)?;
        let mut cell = lock(&cell);
        if cell.removed {
            return None;
        }
        let done = work(&mut cell);
        cell.deliver();
        Some(done)
    }

    fn new_cell(&self, id: &str) -> Arc<Mutex<Cell>> {
        let generation = lock(&self.generations).get(id).copied().unwrap_or(0);
        Arc::new(Mutex::new(Cell {
            group: Group::new(generation, self.initial_delay_ms, self.members_max),
            joins: HashMap::new(),
            syncs: HashMap::new(),
            next_token: 0,
            removed: false,
        }))
    }

    /// Does `work` if this committer may commit now; the group cannot change meanwhile.
    pub(crate) fn while_allowed(
        &self,
        id: &str,
        committer: &Committer<'_>,
        work: impl FnOnce() -> Result<(), ResponseError>,
    ) -> Result<(), ResponseError> {
        if id.is_empty() && !committer.in_txn && committer.generation >= 0 {
            return Err(ResponseError::InvalidGroupId);
        }
        let Some(cell) = self.find(id) else {
            // No member is known, so nobody may speak in a member's name: it is from before a restart.
            let anonymous = committer.generation < 0 && committer.member_id.is_empty();
            return if anonymous { work() } else { Err(ResponseError::UnknownMemberId) };
        };
        let mut cell = lock(&cell);
        cell.group.allows(committer)?;
        if !committer.member_id.is_empty() {
            cell.group.touch(committer.member_id, super::sync::now_ms());
        }
        work()
    }

    /// Topics in use by members; `None` when no member is known.
    pub(crate) fn subscribed_topics(&self, id: &str) -> Option<HashSet<String>> {
        self.with_known(id, |cell| cell.group.subscribed_topics())
    }

    /// Id, state and protocol type of every group in use.
    pub(crate) fn states(&self) -> Vec<(String, &'static str, String)> {
        let cells: Vec<(String, Arc<Mutex<Cell>>)> =
            lock(&self.cells).iter().map(|(id, cell)| (id.clone(), Arc::clone(cell))).collect();
        cells
            .into_iter()
            .map(|(id, cell)| {
                let cell = lock(&cell);
                (id, cell.group.state.name(), cell.group.protocol_type.clone())
            })
            .collect()
    }

    /// Lets time pass in every group and forgets those that nobody uses.
    pub(crate) fn tick(&self, now_ms: i64) {
        let cells: Vec<(String, Arc<Mutex<Cell>>)> =
            lock(&self.cells).iter().map(|(id, cell)| (id.clone(), Arc::clone(cell))).collect();
        for (id, cell) in cells {
            let mut cell = lock(&cell);
            cell.group.tick(now_ms);
            cell.deliver();
            self.forget_if_unused(&id, cell);
        }
    }

    /// Forgets a group that nobody uses at once, so that a deleted group is not there any more when its deletion is answered.
    pub(crate) fn forget(&self, id: &str) {
        if let Some(cell) = self.find(id) {
            self.forget_if_unused(id, lock(&cell));
        }
    }

    fn forget_if_unused(&self, id: &str, mut cell: MutexGuard<'_, Cell>) {
        if cell.group.is_unused() && cell.joins.is_empty() && cell.syncs.is_empty() {
            lock(&self.generations).insert(id.to_owned(), cell.group.generation);
            cell.removed = true;
            drop(cell);
            lock(&self.cells).remove(id);
        }
    }
}
