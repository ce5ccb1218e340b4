//! One consumer group as a state machine: its inputs are requests and deadlines, its outputs are responses.
//!
//! Pure: no clock, no lock, no socket. The caller assigns a [`RequestToken`] to each request; its later response carries the token.
//!
//! ```text
//!            first join                 all joined, or deadline             leader's assignment
//!   Empty ───────────────► Preparing ─────────────────────────► Completing ─────────────────────► Stable
//!     ▲                     ▲  │  ▲                                  │                               │
//!     └─── no member left ──┼──┘  └───── join, leave, expiry ────────┴───────────────────────────────┘
//! ```

mod join;
mod rebalance;
mod session;
mod sync;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Identifies a request whose response comes later.
pub(crate) type RequestToken = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupState {
    Empty,
    Preparing { deadline_ms: i64 },
    Completing { deadline_ms: i64 },
    Stable,
}

impl GroupState {
    /// The name that Kafka's tools display.
    pub(crate) fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::Preparing { .. } => "PreparingRebalance",
            GroupState::Completing { .. } => "CompletingRebalance",
            GroupState::Stable => "Stable",
        }
    }
}

/// The assignors that a member supports, by preference, each with its own metadata.
pub(crate) type Protocols = Vec<(String, Bytes)>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupMember {
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i64,
    pub rebalance_timeout_ms: i64,
    pub protocols: Protocols,
    pub assignment: Bytes,
    /// The session expires at this time unless the member renews it.
    deadline_ms: i64,
    joining: Option<RequestToken>,
    syncing: Option<RequestToken>,
    /// Whether the member has requested its assignment in this generation.
    synced: bool,
}

impl GroupMember {
    fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols.iter().find(|(name, _)| name == protocol).map(|(_, bytes)| bytes.clone()).unwrap_or_default()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct JoinRequest {
    pub token: RequestToken,
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i64,
    pub rebalance_timeout_ms: i64,
    pub protocol_type: String,
    pub protocols: Protocols,
    /// The member id to assign if this request creates a member.
    pub new_member_id: String,
    /// The client supports `MEMBER_ID_REQUIRED`: it receives its id first and joins again with it.
    pub supports_member_id_required: bool,
    /// The client supports a leader that need not assign.
    pub supports_skip_assignment: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct SyncRequest<'a> {
    pub token: RequestToken,
    pub member_id: &'a str,
    pub instance_id: Option<&'a str>,
    pub generation: i32,
    pub protocol_type: Option<&'a str>,
    pub protocol_name: Option<&'a str>,
    pub assignments: Vec<(String, Bytes)>,
}

/// The member that wants to commit offsets, with the generation it claims.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OffsetCommitter<'a> {
    pub member_id: &'a str,
    pub instance_id: Option<&'a str>,
    pub generation: i32,
    pub in_txn: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinAccepted {
    pub generation: i32,
    pub protocol_type: String,
    pub protocol: String,
    pub leader: String,
    pub skip_assignment: bool,
    pub member_id: String,
    /// Id, instance and metadata of every member; filled for the leader only.
    pub members: Vec<(String, Option<String>, Bytes)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinRefused {
    pub error: ResponseError,
    pub member_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyncAccepted {
    pub protocol_type: String,
    pub protocol: String,
    pub assignment: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GroupResponse {
    Join(RequestToken, Result<JoinAccepted, JoinRefused>),
    Sync(RequestToken, Result<SyncAccepted, ResponseError>),
}

#[derive(Debug)]
pub(crate) struct Group {
    pub state: GroupState,
    pub generation: i32,
    pub protocol_type: String,
    pub protocol: String,
    pub leader: Option<String>,
    pub members: BTreeMap<String, GroupMember>,
    /// Member by instance id.
    instances: HashMap<String, String>,
    /// Member ids that were assigned and not yet used, with their expiry time.
    pending: HashMap<String, i64>,
    initial_delay_ms: i64,
    members_max: usize,
    /// The latest end of the wait for the first members, while it lasts.
    first_wait_until_ms: Option<i64>,
    responses: Vec<GroupResponse>,
}

impl Group {
    pub(crate) fn new(generation: i32, initial_delay_ms: i64, members_max: usize) -> Self {
        Group {
            state: GroupState::Empty,
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
            responses: Vec::new(),
        }
    }

    /// The responses that became available since the last call.
    pub(crate) fn take_responses(&mut self) -> Vec<GroupResponse> {
        std::mem::take(&mut self.responses)
    }

    /// No member has joined or is joining.
    pub(crate) fn is_unused(&self) -> bool {
        self.state == GroupState::Empty && self.pending.is_empty()
    }

    fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), ResponseError> {
        self.check_instance(member_id, instance_id)?;
        if self.members.contains_key(member_id) { Ok(()) } else { Err(ResponseError::UnknownMemberId) }
    }

    /// An instance id belongs to one member id at a time.
    fn check_instance(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), ResponseError> {
        let Some(instance) = instance_id else { return Ok(()) };
        match self.instances.get(instance) {
            None => Err(ResponseError::UnknownMemberId),
            Some(current) if current != member_id => Err(ResponseError::FencedInstanceId),
            Some(_) => Ok(()),
        }
    }

    fn check_generation(&self, generation: i32) -> Result<(), ResponseError> {
        if generation == self.generation { Ok(()) } else { Err(ResponseError::IllegalGeneration) }
    }

    /// The topics in the members' subscriptions, as far as their metadata names them.
    pub(crate) fn subscribed_topics(&self) -> HashSet<String> {
        self.members.values().flat_map(|member| super::subscription::topics(&member.metadata(&self.protocol))).collect()
    }
}

impl GroupMember {
    fn update(&mut self, join: &JoinRequest, now_ms: i64) {
        self.protocols.clone_from(&join.protocols);
        self.client_id.clone_from(&join.client_id);
        self.client_host.clone_from(&join.client_host);
        self.session_timeout_ms = join.session_timeout_ms;
        self.rebalance_timeout_ms = join.rebalance_timeout_ms;
        self.deadline_ms = now_ms + join.session_timeout_ms;
    }
}
