//! Consumer groups: one state machine per group behind its own lock, and the requests that wait for it.
//!
//! Owns the map of groups and the tokens of waiting requests. The rules are in `machine`; the coordinator stores the offsets.

pub(crate) mod handlers;
pub(crate) mod machine;
mod subscription;
#[cfg(test)]
mod tests;

use super::config::BrokerConfig;
use super::sync::lock;
use kafka_protocol::ResponseError;
use machine::{Group, GroupResponse, JoinAccepted, JoinRefused, OffsetCommitter, RequestToken, SyncAccepted};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::oneshot;

/// A group and the requests that wait for its responses.
#[derive(Debug)]
pub(crate) struct GroupCell {
    pub group: Group,
    joins: HashMap<RequestToken, oneshot::Sender<Result<JoinAccepted, JoinRefused>>>,
    syncs: HashMap<RequestToken, oneshot::Sender<Result<SyncAccepted, ResponseError>>>,
    next_token: RequestToken,
    /// Removed from the map. A caller that still holds the cell must look the group up again.
    removed: bool,
}

impl GroupCell {
    fn register_join(&mut self) -> (RequestToken, oneshot::Receiver<Result<JoinAccepted, JoinRefused>>) {
        let (sender, receiver) = oneshot::channel();
        self.next_token += 1;
        self.joins.insert(self.next_token, sender);
        (self.next_token, receiver)
    }

    fn register_sync(&mut self) -> (RequestToken, oneshot::Receiver<Result<SyncAccepted, ResponseError>>) {
        let (sender, receiver) = oneshot::channel();
        self.next_token += 1;
        self.syncs.insert(self.next_token, sender);
        (self.next_token, receiver)
    }

    /// Sends the group's responses. A closed receiver belongs to a closed connection.
    fn deliver(&mut self) {
        for response in self.group.take_responses() {
            match response {
                GroupResponse::Join(token, joined) => {
                    if let Some(sender) = self.joins.remove(&token) {
                        drop(sender.send(joined));
                    }
                }
                GroupResponse::Sync(token, synced) => {
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
    cells: Mutex<HashMap<String, Arc<Mutex<GroupCell>>>>,
    /// The last generation of each group without members. The next generation must be higher, also after a restart.
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

    fn find(&self, id: &str) -> Option<Arc<Mutex<GroupCell>>> {
        lock(&self.cells).get(id).cloned()
    }

    /// Runs an operation on a group under its lock, creating the group if needed, then sends its responses.
    fn with<T>(&self, id: &str, operation: impl FnOnce(&mut GroupCell) -> T) -> T {
        loop {
            let cell = Arc::clone(lock(&self.cells).entry(id.to_owned()).or_insert_with(|| self.new_cell(id)));
            let mut cell = lock(&cell);
            if !cell.removed {
                let result = operation(&mut cell);
                cell.deliver();
                return result;
            }
        }
    }

    /// As [`Groups::with`], but only for a group that has members or pending joins.
    fn with_existing<T>(&self, id: &str, operation: impl FnOnce(&mut GroupCell) -> T) -> Option<T> {
        let cell = self.find(id)?;
        let mut cell = lock(&cell);
        if cell.removed {
            return None;
        }
        let result = operation(&mut cell);
        cell.deliver();
        Some(result)
    }

    fn new_cell(&self, id: &str) -> Arc<Mutex<GroupCell>> {
        let generation = lock(&self.generations).get(id).copied().unwrap_or(0);
        Arc::new(Mutex::new(GroupCell {
            group: Group::new(generation, self.initial_delay_ms, self.members_max),
            joins: HashMap::new(),
            syncs: HashMap::new(),
            next_token: 0,
            removed: false,
        }))
    }

    /// Runs `operation` if this committer may commit now. The group cannot change meanwhile.
    pub(crate) fn commit_if_allowed(
        &self,
        id: &str,
        committer: &OffsetCommitter<'_>,
        operation: impl FnOnce() -> Result<(), ResponseError>,
    ) -> Result<(), ResponseError> {
        if id.is_empty() && !committer.in_txn && committer.generation >= 0 {
            return Err(ResponseError::InvalidGroupId);
        }
        let Some(cell) = self.find(id) else {
            // The group has no members, so a commit in a member's name comes from before a restart.
            let anonymous = committer.generation < 0 && committer.member_id.is_empty();
            return if anonymous { operation() } else { Err(ResponseError::UnknownMemberId) };
        };
        let mut cell = lock(&cell);
        cell.group.allows(committer)?;
        if !committer.member_id.is_empty() {
            cell.group.touch(committer.member_id, super::sync::now_ms());
        }
        operation()
    }

    /// The topics that members subscribe to; `None` when the group has no members.
    pub(crate) fn subscribed_topics(&self, id: &str) -> Option<HashSet<String>> {
        self.with_existing(id, |cell| cell.group.subscribed_topics())
    }

    fn all_cells(&self) -> Vec<(String, Arc<Mutex<GroupCell>>)> {
        lock(&self.cells).iter().map(|(id, cell)| (id.clone(), Arc::clone(cell))).collect()
    }

    /// Id, state and protocol type of every group in the map.
    pub(crate) fn states(&self) -> Vec<(String, &'static str, String)> {
        self.all_cells()
            .into_iter()
            .map(|(id, cell)| {
                let cell = lock(&cell);
                (id, cell.group.state.name(), cell.group.protocol_type.clone())
            })
            .collect()
    }

    /// Applies passed deadlines in every group and removes unused groups.
    pub(crate) fn tick(&self, now_ms: i64) {
        for (id, cell) in self.all_cells() {
            let mut cell = lock(&cell);
            cell.group.tick(now_ms);
            cell.deliver();
            self.forget_if_unused(&id, cell);
        }
    }

    /// Removes an unused group at once, so that a deleted group is gone before the response to its deletion is sent.
    pub(crate) fn forget(&self, id: &str) {
        if let Some(cell) = self.find(id) {
            self.forget_if_unused(id, lock(&cell));
        }
    }

    fn forget_if_unused(&self, id: &str, mut cell: MutexGuard<'_, GroupCell>) {
        if cell.group.is_unused() && cell.joins.is_empty() && cell.syncs.is_empty() {
            lock(&self.generations).insert(id.to_owned(), cell.group.generation);
            cell.removed = true;
            drop(cell);
            lock(&self.cells).remove(id);
        }
    }
}
