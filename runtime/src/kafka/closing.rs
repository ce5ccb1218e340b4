//! Closes clients on threads of their own, because closing a client waits for brokers, perhaps for ever.

use std::{sync::mpsc, time::Duration};

/// Closes a client on a thread of its own. Returns whether it was closed within `patience`. If not, the thread continues to wait.
pub(crate) fn close_within<T: Send + 'static>(client: T, patience: Duration) -> bool {
    let (closed, wait) = mpsc::sync_channel(1);
    let spawned = std::thread::Builder::new().name("closing".to_owned()).spawn(move || {
        drop(client);
        // After `patience` nothing receives this.
        let _late = closed.send(());
    });
    spawned.is_ok() && wait.recv_timeout(patience).is_ok()
}
