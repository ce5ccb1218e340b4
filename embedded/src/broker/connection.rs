//! Connections: request frames in, response frames out, in order, within limits.
//!
//! Owns sockets and frames. Of a request it knows only the length; `dispatch` handles the content.

use super::BrokerState;
use super::context::ClientConnection;
use super::dispatch;
use bytes::{Buf, Bytes, BytesMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The buffer that each connection keeps; small requests fit.
const BUFFER_START: usize = 16 * 1024;
/// A large request is read in steps, so that an announced length alone reserves no memory.
const BUFFER_STEP: usize = 1024 * 1024;
/// Buffered responses are sent at this size, before the next request is handled.
const FLUSH_AT: usize = 64 * 1024;
/// The connection is closed if the client does not read a response within this time.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long accepting pauses when the system has no sockets left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The reason why the broker closes a connection.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("a request of {length} bytes is larger than {max}")]
    TooLarge { length: i32, max: usize },
    #[error(transparent)]
    Request(#[from] dispatch::FrameError),
    #[error("the client did not read its response in time")]
    WriteTimeout,
    #[error("the connection broke")]
    Io(#[from] std::io::Error),
}

/// Accepts connections until the broker stops.
pub(crate) async fn accept(shared: Arc<BrokerState>, listener: TcpListener) {
    let mut stopping = shared.stopping.clone();
    let slots = Arc::new(Semaphore::new(shared.config.limits.connections_max));
    loop {
        let accepted = tokio::select! {
            _ = stopping.changed() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match Arc::clone(&slots).try_acquire_owned() {
                Ok(slot) => {
                    tokio::spawn(serve(Arc::clone(&shared), stream, peer, slot));
                }
                Err(_) => tracing::warn!(%peer, "refused a connection: the limit is reached"),
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(shared: Arc<BrokerState>, stream: TcpStream, peer: SocketAddr, slot: OwnedSemaphorePermit) {
    let mut stopping = shared.stopping.clone();
    let served = tokio::select! {
        _ = stopping.changed() => Ok(()),
        served = serve_requests(shared, stream, peer) => served,
    };
    match served {
        Ok(()) => {}
        Err(ConnectionError::Io(error)) => tracing::debug!(%peer, %error, "connection ended"),
        Err(error) => tracing::warn!(%peer, error = &error as &dyn std::error::Error, "closed a connection"),
    }
    drop(slot);
}

async fn serve_requests(
    shared: Arc<BrokerState>,
    mut stream: TcpStream,
    peer: SocketAddr,
) -> Result<(), ConnectionError> {
    stream.set_nodelay(true)?;
    let connection = ClientConnection::new(shared, peer);
    let mut incoming = BytesMut::with_capacity(BUFFER_START);
    let mut outgoing = BytesMut::with_capacity(BUFFER_START);
    loop {
        while let Some(frame) = take_frame(&mut incoming, connection.request_bytes_max())? {
            if !outgoing.is_empty() && dispatch::may_wait(&frame) {
                send(&mut stream, &mut outgoing).await?;
            }
            dispatch::respond(&connection, frame, &mut outgoing).await?;
            if outgoing.len() >= FLUSH_AT {
                send(&mut stream, &mut outgoing).await?;
            }
        }
        if !outgoing.is_empty() {
            send(&mut stream, &mut outgoing).await?;
        }
        if stream.read_buf(&mut incoming).await? == 0 {
            return Ok(());
        }
    }
}

/// Removes one complete request from the buffer, or reserves space for the rest of it.
fn take_frame(incoming: &mut BytesMut, max: usize) -> Result<Option<Bytes>, ConnectionError> {
    let Some(head) = incoming.first_chunk::<4>() else {
        incoming.reserve(BUFFER_START);
        return Ok(None);
    };
    let length = i32::from_be_bytes(*head);
    let size =
        usize::try_from(length).ok().filter(|size| *size <= max).ok_or(ConnectionError::TooLarge { length, max })?;
    let missing = (4 + size).saturating_sub(incoming.len());
    if missing > 0 {
        incoming.reserve(missing.min(BUFFER_STEP.max(incoming.len())));
        return Ok(None);
    }
    incoming.advance(4);
    Ok(Some(incoming.split_to(size).freeze()))
}

async fn send(stream: &mut TcpStream, outgoing: &mut BytesMut) -> Result<(), ConnectionError> {
    match tokio::time::timeout(WRITE_TIMEOUT, stream.write_all(outgoing)).await {
        Ok(written) => written?,
        Err(_) => return Err(ConnectionError::WriteTimeout),
    }
    if outgoing.capacity() > BUFFER_STEP {
        *outgoing = BytesMut::with_capacity(BUFFER_START);
    } else {
        outgoing.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_taken_when_it_is_complete() {
        let mut incoming = BytesMut::from(&[0, 0, 0, 3, 1, 2][..]);
        assert_eq!(take_frame(&mut incoming, 10).unwrap(), None);
        incoming.extend_from_slice(&[3, 0, 0]);
        assert_eq!(take_frame(&mut incoming, 10).unwrap(), Some(Bytes::from_static(&[1, 2, 3])));
        assert_eq!(take_frame(&mut incoming, 10).unwrap(), None);
    }

    #[test]
    fn a_frame_beyond_the_limit_or_of_negative_length_ends_the_connection() {
        for head in [[0_u8, 0, 0, 11], [0xff, 0xff, 0xff, 0xff]] {
            let mut incoming = BytesMut::from(&head[..]);
            assert!(matches!(take_frame(&mut incoming, 10), Err(ConnectionError::TooLarge { .. })));
        }
    }
}
