//! Connections: frames in, frames out, in order, within bounds.
//!
//! Owns sockets and frames. Knows no request beyond its length; what is inside goes to `dispatch`.

use super::Shared;
use super::dispatch::{self, Session};
use bytes::{Buf, Bytes, BytesMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room for what small requests need, kept per connection.
const BUFFER_START: usize = 16 * 1024;
/// A large request is read in steps, so that its announced length alone costs no memory.
const BUFFER_STEP: usize = 1024 * 1024;
/// An answer larger than this is sent before the next request is looked at.
const FLUSH_AT: usize = 64 * 1024;
/// A client that does not take its answer for so long is gone.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// How long accepting pauses when the system has no sockets left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why a connection ends early.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("a request of {length} bytes is larger than {max}")]
    TooLarge { length: i32, max: usize },
    #[error(transparent)]
    Request(#[from] dispatch::BadRequest),
    #[error("the client did not take its answer in time")]
    Stuck,
    #[error("the connection broke")]
    Io(#[from] std::io::Error),
}

/// Accepts until the broker stops.
pub(crate) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
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

async fn serve(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr, slot: OwnedSemaphorePermit) {
    let mut stopping = shared.stopping.clone();
    let served = tokio::select! {
        _ = stopping.changed() => Ok(()),
        served = serve_requests(shared, stream, peer) => served,
    };
    match served {
        Ok(()) => {}
        Err(Broken::Io(error)) => tracing::debug!(%peer, %error, "connection ended"),
        Err(error) => tracing::warn!(%peer, error = &error as &dyn std::error::Error, "closed a connection"),
    }
    drop(slot);
}

async fn serve_requests(shared: Arc<Shared>, mut stream: TcpStream, peer: SocketAddr) -> Result<(), Broken> {
    stream.set_nodelay(true)?;
    let session = Session::new(shared, peer);
    let mut incoming = BytesMut::with_capacity(BUFFER_START);
    let mut outgoing = BytesMut::with_capacity(BUFFER_START);
    loop {
        while let Some(frame) = take_frame(&mut incoming, session.request_bytes_max())? {
            if !outgoing.is_empty() && dispatch::may_wait(&frame) {
                send(&mut stream, &mut outgoing).await?;
            }
            dispatch::answer(&session, frame, &mut outgoing).await?;
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

/// Takes one whole request out of the buffer, or makes room for more of it.
fn take_frame(incoming: &mut BytesMut, max: usize) -> Result<Option<Bytes>, Broken> {
    let Some(head) = incoming.first_chunk::<4>() else {
        incoming.reserve(BUFFER_START);
        return Ok(None);
    };
    let length = i32::from_be_bytes(*head);
    let size = usize::try_from(length).ok().filter(|size| *size <= max).ok_or(Broken::TooLarge { length, max })?;
    let missing = (4 + size).saturating_sub(incoming.len());
    if missing > 0 {
        incoming.reserve(missing.min(BUFFER_STEP.max(incoming.len())));
        return Ok(None);
    }
    incoming.advance(4);
    Ok(Some(incoming.split_to(size).freeze()))
}

async fn send(stream: &mut TcpStream, outgoing: &mut BytesMut) -> Result<(), Broken> {
    match tokio::time::timeout(WRITE_PATIENCE, stream.write_all(outgoing)).await {
        Ok(written) => written?,
        Err(_) => return Err(Broken::Stuck),
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
    fn a_frame_is_taken_when_it_is_whole() {
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
            assert!(matches!(take_frame(&mut incoming, 10), Err(Broken::TooLarge { .. })));
        }
    }
}
