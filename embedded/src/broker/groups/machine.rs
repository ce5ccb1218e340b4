//! One consumer group as a state machine: requests and deadlines in, answers out.
//!
//! Pure: no clock, no lock, no socket. An answer that must wait is named by a [`Token`], which the shell gave with the request.
//!
//! ```text
//!            first join                 all joined, or deadline             leader's assignment
//!   Empty ───────────────► Preparing ─────────────────────────► Completing ─────────────────────► Stable
//!     ▲                     ▲  │  ▲                                  │                               │
//!     └─── no member left ──┼──┘  └───── join, leave, expiry ────────┴───────────────────────────────┘
//! ```

use bytes::Bytes;
use kafka_protocol::ResponseError;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Names a request whose answer comes later.
pub(crate) type Token = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Empty,
    Preparing { deadline_ms: i64 },
    Completing { deadline_ms: i64 },
    Stable,
}

impl State {
    /// The name Kafka's tools show.
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::Preparing { .. } => "PreparingRebalance",
            State::Completing { .. } => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }
}

/// What a member offers: assignors by preference, each with its own metadata.
pub(crate) type Protocols = Vec<(String, Bytes)>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i64,
    pub rebalance_timeout_ms: i64,
    pub protocols: Protocols,
    pub assignment: Bytes,
    /// Without a sign of life until then it is gone.
    deadline_ms: i64,
    joining: Option<Token>,
    syncing: Option<Token>,
    /// Has asked for its assignment in this generation.
    synced: bool,
}

impl Member {
    fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols.iter().find(|(name, _)| name == protocol).map(|(_, bytes)| bytes.clone()).unwrap_or_default()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Join {
    pub token: Token,
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i64,
    pub rebalance_timeout_ms: i64,
    pub protocol_type: String,
    pub protocols: Protocols,
    /// Id to use if this request makes a member.
    pub new_member_id: String,
    /// The client can be told its id first and come again with it.
    pub knows_member_id_required: bool,
    /// The client can be told that it leads and yet need not assign.
    pub knows_skip_assignment: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Sync<'a> {
    pub token: Token,
    pub member_id: &'a str,
    pub instance_id: Option<&'a str>,
    pub generation: i32,
    pub protocol_type: Option<&'a str>,
    pub protocol_name: Option<&'a str>,
    pub assignments: Vec<(String, Bytes)>,
}

/// Who wants to commit offsets, and in the name of which generation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Committer<'a> {
    pub member_id: &'a str,
    pub instance_id: Option<&'a str>,
    pub generation: i32,
    pub in_txn: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub generation: i32,
    pub protocol_type: String,
    pub protocol: String,
    pub leader: String,
    pub skip_assignment: bool,
    pub member_id: String,
    /// Id, instance and metadata of every member; for the leader only.
    pub members: Vec<(String, Option<String>, Bytes)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub error: ResponseError,
    pub member_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Synced {
    pub protocol_type: String,
    pub protocol: String,
    pub assignment: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Join(Token, Result<Joined, Refused>),
    Sync(Token, Result<Synced, ResponseError>),
}

#[derive(Debug)]
pub(crate) struct Group {
    pub state: State,
    pub generation: i32,
    pub protocol_type: String,
    pub protocol: String,
    pub leader: Option<String>,
    pub members: BTreeMap<String, Member>,
    /// Member by instance id.
    instances: HashMap<String, String>,
    /// Ids given out, not yet used, and until when they count.
    pending: HashMap<String, i64>,
    initial_delay_ms: i64,
    members_max: usize,
    /// While the first members are waited for: until when at most.
    first_wait_until_ms: Option<i64>,
    answers: Vec<Answer>,
}

impl Group {
    pub(crate) fn new(generation: i32, initial_delay_ms: i64, members_max: usize) -> Self {
        Group {
            state: State::Empty,
            generation,
            protocol_type: String::new(),
            protocol: String::new(),
            leader: None,
            members: BTreeMap::new(),
            instances: HashMap::new(),
            pending: HashMap::new(),
            initial_delay_ms,
            members_max,
            first_wait_until_ms: None,
            answers: Vec::new(),
        }
    }

    /// What has become answerable since the last call.
    pub(crate) fn take_answers(&mut self) -> Vec<Answer> {
        std::mem::take(&mut self.answers)
    }

    /// Nobody is in it or on the way in.
    pub(crate) fn is_unused(&self) -> bool {
        self.state == State::Empty && self.pending.is_empty()
    }

    // --- join ---------------------------------------------------------------------------------------------------------

    pub(crate) fn join(&mut self, join: Join, now_ms: i64) {
        let (token, member_id) = (join.token, join.member_id.clone());
        if let Err(error) = self.try_join(join, now_ms) {
            self.answers.push(Answer::Join(token, Err(Refused { error, member_id })));
        }
    }

    fn try_join(&mut self, join: Join, now_ms: i64) -> Result<(), ResponseError> {
        if !self.supports(&join) {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        if join.member_id.is_empty() {
            return self.join_unknown(join, now_ms);
        }
        if let Some(instance) = &join.instance_id {
            match self.instances.get(instance) {
                None => return Err(ResponseError::UnknownMemberId),
                Some(current) if *current != join.member_id => return Err(ResponseError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.pending.remove(&join.member_id).is_some() {
            let member_id = join.member_id.clone();
            return self.add_member(member_id, join, now_ms);
        }
        if !self.members.contains_key(&join.member_id) {
            return Err(ResponseError::UnknownMemberId);
        }
        self.rejoin(join, now_ms);
        Ok(())
    }

    fn supports(&self, join: &Join) -> bool {
        if join.protocols.is_empty() || join.protocol_type.is_empty() {
            return false;
        }
        let others = || self.members.iter().filter(|(id, _)| **id != join.member_id).map(|(_, member)| member);
        let same_instance = |member: &Member| join.instance_id.is_some() && member.instance_id == join.instance_id;
        if others().all(same_instance) {
            return true;
        }
        self.protocol_type == join.protocol_type
            && join.protocols.iter().any(|(name, _)| {
                others()
                    .filter(|member| !same_instance(member))
                    .all(|member| member.protocols.iter().any(|(own, _)| own == name))
            })
    }

    fn join_unknown(&mut self, join: Join, now_ms: i64) -> Result<(), ResponseError> {
        let new_id = join.new_member_id.clone();
        if let Some(instance) = &join.instance_id {
            return match self.instances.get(instance).cloned() {
                Some(old_id) => {
                    self.replace_static(&old_id, &new_id, &join, now_ms);
                    Ok(())
                }
                None => self.add_member(new_id, join, now_ms),
            };
        }
        if join.knows_member_id_required {
            if self.pending.len() >= self.members_max {
                return Err(ResponseError::GroupMaxSizeReached);
            }
            self.pending.insert(new_id.clone(), now_ms + join.session_timeout_ms);
            let refused = Refused { error: ResponseError::MemberIdRequired, member_id: new_id };
            self.answers.push(Answer::Join(join.token, Err(refused)));
            return Ok(());
        }
        self.add_member(new_id, join, now_ms)
    }

    fn add_member(&mut self, member_id: String, join: Join, now_ms: i64) -> Result<(), ResponseError> {
        if self.members.len() >= self.members_max {
            return Err(ResponseError::GroupMaxSizeReached);
        }
        if self.members.is_empty() {
            self.protocol_type.clone_from(&join.protocol_type);
        }
        if let Some(instance) = &join.instance_id {
            self.instances.insert(instance.clone(), member_id.clone());
        }
        let member = Member {
            instance_id: join.instance_id,
            client_id: join.client_id,
            client_host: join.client_host,
            session_timeout_ms: join.session_timeout_ms,
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            protocols: join.protocols,
            assignment: Bytes::new(),
            deadline_ms: now_ms + join.session_timeout_ms,
            joining: Some(join.token),
            syncing: None,
            synced: false,
        };
        self.members.insert(member_id, member);
        if let (State::Preparing { .. }, Some(until)) = (self.state, self.first_wait_until_ms) {
            self.state = State::Preparing { deadline_ms: until.min(now_ms + self.initial_delay_ms) };
        }
        self.prepare(now_ms);
        Ok(())
    }

    /// A static member came back under a new id: it takes the place of its former self. If nothing else changed, the group
    /// goes on without a rebalance.
    fn replace_static(&mut self, old_id: &str, new_id: &str, join: &Join, now_ms: i64) {
        let Some(mut member) = self.members.remove(old_id) else { return };
        for answer in self.fence(&mut member, old_id) {
            self.answers.push(answer);
        }
        let led = self.leader.as_deref() == Some(old_id);
        let leader_told = self.leader.clone().unwrap_or_default();
        if led {
            self.leader = Some(new_id.to_owned());
        }
        if let Some(instance) = &join.instance_id {
            self.instances.insert(instance.clone(), new_id.to_owned());
        }
        let unchanged = member.protocols == join.protocols;
        member.update(join, now_ms);
        self.members.insert(new_id.to_owned(), member);
        let same_choice = self.choose_protocol() == self.protocol;
        match self.state {
            State::Stable if unchanged && same_choice => {
                // An older client that led must not think it leads again: it would assign without being heard.
                let leader =
                    if join.knows_skip_assignment { self.leader.clone().unwrap_or_default() } else { leader_told };
                let mut joined = self.joined(new_id);
                joined.leader = leader;
                joined.skip_assignment = led && join.knows_skip_assignment;
                if !joined.skip_assignment {
                    joined.members.clear();
                }
                self.answers.push(Answer::Join(join.token, Ok(joined)));
            }
            _ => {
                if let Some(member) = self.members.get_mut(new_id) {
                    member.joining = Some(join.token);
                }
                self.prepare(now_ms);
            }
        }
    }

    /// Answers what the former self still waits for.
    fn fence(&self, member: &mut Member, old_id: &str) -> Vec<Answer> {
        let refused = Refused { error: ResponseError::FencedInstanceId, member_id: old_id.to_owned() };
        let join = member.joining.take().map(|token| Answer::Join(token, Err(refused)));
        let sync = member.syncing.take().map(|token| Answer::Sync(token, Err(ResponseError::FencedInstanceId)));
        join.into_iter().chain(sync).collect()
    }

    fn rejoin(&mut self, join: Join, now_ms: i64) {
        let leads = self.leader.as_deref() == Some(join.member_id.as_str());
        let Some(member) = self.members.get_mut(&join.member_id) else { return };
        let unchanged = member.protocols == join.protocols;
        let goes_on = match self.state {
            State::Stable => unchanged && !leads,
            State::Completing { .. } => unchanged, // it lost the answer to its join
            State::Empty | State::Preparing { .. } => false,
        };
        member.update(&join, now_ms);
        if goes_on {
            let joined = self.joined(&join.member_id);
            self.answers.push(Answer::Join(join.token, Ok(joined)));
            return;
        }
        // A second join of the same member: the first answer has nobody to read it any more.
        let former = member.joining.replace(join.token);
        if let Some(token) = former.filter(|token| *token != join.token) {
            let refused = Refused { error: ResponseError::RebalanceInProgress, member_id: join.member_id };
            self.answers.push(Answer::Join(token, Err(refused)));
        }
        self.prepare(now_ms);
    }

    fn joined(&self, member_id: &str) -> Joined {
        let leader = self.leader.clone().unwrap_or_default();
        let members = if leader == member_id {
            self.members
                .iter()
                .map(|(id, member)| (id.clone(), member.instance_id.clone(), member.metadata(&self.protocol)))
                .collect()
        } else {
            Vec::new()
        };
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader,
            skip_assignment: false,
            member_id: member_id.to_owned(),
            members,
        }
    }

    // --- rebalance ----------------------------------------------------------------------------------------------------

    /// Starts a rebalance unless one is on, and completes it if everybody is there.
    fn prepare(&mut self, now_ms: i64) {
        match self.state {
            State::Preparing { .. } => {}
            State::Empty => {
                let until = now_ms + self.rebalance_timeout_ms();
                self.first_wait_until_ms = Some(until);
                self.state = State::Preparing { deadline_ms: until.min(now_ms + self.initial_delay_ms) };
            }
            State::Completing { .. } | State::Stable => {
                self.answer_syncs(&Err(ResponseError::RebalanceInProgress));
                for member in self.members.values_mut() {
                    member.assignment = Bytes::new();
                    member.synced = false;
                }
                self.state = State::Preparing { deadline_ms: now_ms + self.rebalance_timeout_ms() };
            }
        }
        self.complete_if_ready(now_ms);
    }

    fn rebalance_timeout_ms(&self) -> i64 {
        self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0)
    }

    fn complete_if_ready(&mut self, now_ms: i64) {
        let State::Preparing { deadline_ms } = self.state else { return };
        let all_here = self.pending.is_empty() && self.members.values().all(|member| member.joining.is_some());
        let waits_for_more = self.first_wait_until_ms.is_some() && self.initial_delay_ms > 0;
        if self.members.is_empty() || (all_here && !waits_for_more) || now_ms >= deadline_ms {
            self.complete(now_ms);
        }
    }

    fn complete(&mut self, now_ms: i64) {
        // Dynamic members that did not come are out; static ones keep their place until their session ends.
        let late: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| member.joining.is_none() && member.instance_id.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for id in late {
            self.drop_member(&id);
        }
        self.first_wait_until_ms = None;
        if self.members.is_empty() {
            self.generation = next_generation(self.generation);
            self.become_empty();
            return;
        }
        if !self.elect_leader() {
            // Only static members, and none of them came: they are waited for.
            self.state = State::Preparing { deadline_ms: now_ms + self.rebalance_timeout_ms() };
            return;
        }
        self.generation = next_generation(self.generation);
        self.protocol = self.choose_protocol();
        self.state = State::Completing { deadline_ms: now_ms + self.rebalance_timeout_ms() };
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.synced = false;
            if let Some(token) = member.joining.take() {
                member.deadline_ms = now_ms + member.session_timeout_ms;
                let joined = self.joined(&id);
                self.answers.push(Answer::Join(token, Ok(joined)));
            }
        }
    }

    fn become_empty(&mut self) {
        self.state = State::Empty;
        self.leader = None;
        self.protocol.clear();
    }

    /// Keeps the leader if it came, else takes the first that did.
    fn elect_leader(&mut self) -> bool {
        let came = |id: &String| self.members.get(id).is_some_and(|member| member.joining.is_some());
        if self.leader.as_ref().is_some_and(came) {
            return true;
        }
        let first = self.members.iter().find(|(_, member)| member.joining.is_some()).map(|(id, _)| id.clone());
        let found = first.is_some();
        if found {
            self.leader = first;
        }
        found
    }

    /// The assignor that all support and most like best.
    fn choose_protocol(&self) -> String {
        let supported_by_all =
            |name: &str| self.members.values().all(|member| member.protocols.iter().any(|(own, _)| own == name));
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let choice = member.protocols.iter().map(|(name, _)| name.as_str()).find(|name| supported_by_all(name));
            if let Some(name) = choice {
                *votes.entry(name).or_default() += 1;
            }
        }
        votes.into_iter().max_by_key(|(_, count)| *count).map(|(name, _)| name.to_owned()).unwrap_or_default()
    }

    // --- sync ---------------------------------------------------------------------------------------------------------

    pub(crate) fn sync(&mut self, sync: Sync<'_>, now_ms: i64) {
        let token = sync.token;
        if let Err(error) = self.try_sync(sync, now_ms) {
            self.answers.push(Answer::Sync(token, Err(error)));
        }
    }

    fn try_sync(&mut self, sync: Sync<'_>, now_ms: i64) -> Result<(), ResponseError> {
        self.check_member(sync.member_id, sync.instance_id)?;
        self.check_generation(sync.generation)?;
        let fits = |asked: Option<&str>, own: &str| asked.is_none_or(|asked| asked == own);
        if !fits(sync.protocol_type, &self.protocol_type) || !fits(sync.protocol_name, &self.protocol) {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        match self.state {
            State::Empty => return Err(ResponseError::UnknownMemberId),
            State::Preparing { .. } => return Err(ResponseError::RebalanceInProgress),
            State::Completing { .. } | State::Stable => {}
        }
        let leads = self.leader.as_deref() == Some(sync.member_id);
        let Some(member) = self.members.get_mut(sync.member_id) else { return Err(ResponseError::UnknownMemberId) };
        member.deadline_ms = now_ms + member.session_timeout_ms;
        member.synced = true;
        if self.state == State::Stable {
            let answer = self.synced(sync.member_id);
            self.answers.push(Answer::Sync(sync.token, Ok(answer)));
            return Ok(());
        }
        if let Some(former) = member.syncing.replace(sync.token) {
            self.answers.push(Answer::Sync(former, Err(ResponseError::RebalanceInProgress)));
        }
        if leads {
            for (id, assignment) in sync.assignments {
                if let Some(member) = self.members.get_mut(&id) {
                    member.assignment = assignment;
                }
            }
            self.state = State::Stable;
            self.answer_syncs(&Ok(()));
        }
        Ok(())
    }

    fn synced(&self, member_id: &str) -> Synced {
        let assignment = self.members.get(member_id).map(|member| member.assignment.clone()).unwrap_or_default();
        Synced { protocol_type: self.protocol_type.clone(), protocol: self.protocol.clone(), assignment }
    }

    /// Answers every member that waits for its assignment.
    fn answer_syncs(&mut self, outcome: &Result<(), ResponseError>) {
        let waiting: Vec<(String, Token)> = self
            .members
            .iter_mut()
            .filter_map(|(id, member)| member.syncing.take().map(|token| (id.clone(), token)))
            .collect();
        for (id, token) in waiting {
            let answer = outcome.map(|()| self.synced(&id));
            self.answers.push(Answer::Sync(token, answer));
        }
    }

    // --- staying and leaving ------------------------------------------------------------------------------------------

    pub(crate) fn heartbeat(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now_ms: i64,
    ) -> Result<(), ResponseError> {
        self.check_member(member_id, instance_id)?;
        self.check_generation(generation)?;
        if let Some(member) = self.members.get_mut(member_id) {
            member.deadline_ms = now_ms + member.session_timeout_ms;
        }
        match self.state {
            State::Empty => Err(ResponseError::UnknownMemberId),
            State::Preparing { .. } => Err(ResponseError::RebalanceInProgress),
            State::Completing { .. } | State::Stable => Ok(()),
        }
    }

    pub(crate) fn leave(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        now_ms: i64,
    ) -> Result<(), ResponseError> {
        if self.pending.remove(member_id).is_some() {
            self.complete_if_ready(now_ms);
            return Ok(());
        }
        let id = match instance_id {
            // An operator may remove a static member by its instance alone.
            Some(instance) if member_id.is_empty() => {
                self.instances.get(instance).cloned().ok_or(ResponseError::UnknownMemberId)?
            }
            _ => {
                self.check_member(member_id, instance_id)?;
                member_id.to_owned()
            }
        };
        self.remove(&id, now_ms);
        Ok(())
    }

    /// Whether offsets may be committed in this member's name.
    pub(crate) fn allows(&self, committer: &Committer<'_>) -> Result<(), ResponseError> {
        let anonymous = committer.generation < 0 && committer.member_id.is_empty() && committer.instance_id.is_none();
        if anonymous {
            let free = committer.in_txn || self.state == State::Empty;
            return if free { Ok(()) } else { Err(ResponseError::UnknownMemberId) };
        }
        if committer.generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        self.check_member(committer.member_id, committer.instance_id)?;
        self.check_generation(committer.generation)?;
        match self.state {
            State::Completing { .. } if !committer.in_txn => Err(ResponseError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// A sign of life.
    pub(crate) fn touch(&mut self, member_id: &str, now_ms: i64) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.deadline_ms = now_ms + member.session_timeout_ms;
        }
    }

    /// Lets time pass.
    pub(crate) fn tick(&mut self, now_ms: i64) {
        let pending = self.pending.len();
        self.pending.retain(|_, until| *until > now_ms);
        let expired: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| member.deadline_ms <= now_ms && member.joining.is_none() && member.syncing.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for id in expired {
            self.remove(&id, now_ms);
        }
        if let State::Completing { deadline_ms } = self.state
            && now_ms >= deadline_ms
        {
            self.drop_unsynced(now_ms);
        }
        if self.pending.len() != pending || matches!(self.state, State::Preparing { .. }) {
            self.complete_if_ready(now_ms);
        }
    }

    /// Members that joined and never asked for their assignment hold up the others.
    fn drop_unsynced(&mut self, now_ms: i64) {
        let silent: Vec<String> =
            self.members.iter().filter(|(_, member)| !member.synced).map(|(id, _)| id.clone()).collect();
        for id in &silent {
            self.drop_member(id);
        }
        if !silent.is_empty() {
            self.prepare(now_ms);
        }
    }

    fn remove(&mut self, id: &str, now_ms: i64) {
        self.drop_member(id);
        match self.state {
            State::Stable | State::Completing { .. } => self.prepare(now_ms),
            State::Preparing { .. } => self.complete_if_ready(now_ms),
            State::Empty => {}
        }
    }

    fn drop_member(&mut self, id: &str) {
        let Some(mut member) = self.members.remove(id) else { return };
        if let Some(instance) = &member.instance_id {
            self.instances.remove(instance);
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = None;
        }
        if let Some(token) = member.joining.take() {
            let refused = Refused { error: ResponseError::UnknownMemberId, member_id: id.to_owned() };
            self.answers.push(Answer::Join(token, Err(refused)));
        }
        if let Some(token) = member.syncing.take() {
            self.answers.push(Answer::Sync(token, Err(ResponseError::UnknownMemberId)));
        }
    }

    fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), ResponseError> {
        if let Some(instance) = instance_id {
            match self.instances.get(instance) {
                None => return Err(ResponseError::UnknownMemberId),
                Some(current) if current != member_id => return Err(ResponseError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(ResponseError::UnknownMemberId) }
    }

    fn check_generation(&self, generation: i32) -> Result<(), ResponseError> {
        if generation == self.generation { Ok(()) } else { Err(ResponseError::IllegalGeneration) }
    }

    /// Topics the members subscribe to, as far as their metadata says.
    pub(crate) fn subscribed_topics(&self) -> HashSet<String> {
        self.members.values().flat_map(|member| super::subscription::topics(&member.metadata(&self.protocol))).collect()
    }
}

impl Member {
    fn update(&mut self, join: &Join, now_ms: i64) {
        self.protocols.clone_from(&join.protocols);
        self.client_id.clone_from(&join.client_id);
        self.client_host.clone_from(&join.client_host);
        self.session_timeout_ms = join.session_timeout_ms;
        self.rebalance_timeout_ms = join.rebalance_timeout_ms;
        self.deadline_ms = now_ms + join.session_timeout_ms;
    }
}

/// Generations only grow; after the largest they start at one again, as in Kafka.
fn next_generation(generation: i32) -> i32 {
    generation.checked_add(1).unwrap_or(1)
}
