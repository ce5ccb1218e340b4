//! How clients are closed: on a thread of their own, because closing one waits for brokers, and may wait for ever.

use std::{sync::mpsc, time::Duration};

/// Closes a client on a thread of its own. Returns whether it was closed within `patience`; if not, it is left to that thread.
pub(crate) fn close_within<T: Send + 'static>(client: T, patience: Duration) -> bool {
    let (closed, wait) = mpsc::sync_channel(1);
    let spawned = std::thread::Builder::new().name("closing".to_owned()).spawn(move || {
        drop(client);
        // The receiver is gone if the patience has run out.
        let _late = closed.send(());
    });
    spawned.is_ok() && wait.recv_timeout(patience).is_ok()
}
