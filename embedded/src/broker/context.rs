//! What a handler is given beside the request: the connection, the version and the client's name.

use super::BrokerState;
use super::log::FetchWaiter;
use std::net::SocketAddr;
use std::sync::Arc;

/// One connection, as handlers see it.
#[derive(Debug)]
pub(crate) struct ClientConnection {
    pub shared: Arc<BrokerState>,
    pub peer: SocketAddr,
    pub waiter: Arc<FetchWaiter>,
}

impl ClientConnection {
    pub(crate) fn new(shared: Arc<BrokerState>, peer: SocketAddr) -> Self {
        ClientConnection { shared, peer, waiter: Arc::new(FetchWaiter::default()) }
    }

    pub(crate) fn request_bytes_max(&self) -> usize {
        self.shared.config.limits.request_bytes_max
    }
}

/// The context of a request: everything but its body.
#[derive(Debug)]
pub(crate) struct RequestContext<'a> {
    pub connection: &'a ClientConnection,
    pub version: i16,
    pub client_id: &'a str,
}

impl RequestContext<'_> {
    pub(crate) fn shared(&self) -> &Arc<BrokerState> {
        &self.connection.shared
    }
}
