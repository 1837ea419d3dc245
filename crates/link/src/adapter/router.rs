//! One ROUTER: frames of many peers in, answers out.
//!
//! The sending half belongs to a task of its own. What the link hands it is bounded; what does
//! not fit is dropped: everything a ROUTER of ours sends is asked for again if it does not come.

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use zeromq::{RouterRecvHalf, RouterSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

use crate::adapter::bind::Passage;
use crate::error::Error;

/// Answers between the link and the task that sends them.
const SEND_QUEUE: usize = 4_096;

/// A bound ROUTER.
pub(super) struct Router {
    frames: mpsc::Sender<(Bytes, Bytes)>,
    sending: JoinHandle<()>,
    recv: RouterRecvHalf,
}

impl Drop for Router {
    fn drop(&mut self) {
        self.sending.abort();
    }
}

/// A peer's identity and its frame; an empty frame for a message of more than one part.
pub(super) type Received = (Bytes, Bytes);

impl Router {
    /// Lets peers in; called within the runtime.
    pub(super) async fn new(passage: Passage) -> Result<Self, Error> {
        let failed = |reason| Error::Bind { endpoint: "the socket's own".to_owned(), reason };
        let mut socket = RouterSocket::new();
        let listener = passage.enter().map_err(|error| failed(error.to_string()))?;
        socket.bind_listener(listener).await.map_err(|error| failed(error.to_string()))?;
        let (mut send, recv) = socket.split();
        let (frames, mut queued) = mpsc::channel::<(Bytes, Bytes)>(SEND_QUEUE);
        let sending = tokio::spawn(async move {
            while let Some((peer, frame)) = queued.recv().await {
                let mut message = ZmqMessage::from(peer);
                message.push_back(frame);
                // A peer that is gone gets no answer; it will ask again over a new connection.
                let _gone = send.send(message).await;
            }
        });
        Ok(Self { frames, sending, recv })
    }

    /// Hands an answer to the sending task; `false` if it was dropped.
    pub(super) fn send(&self, peer: Bytes, frame: Bytes) -> bool {
        self.frames.try_send((peer, frame)).is_ok()
    }

    /// The next frame of any peer. May be dropped while it waits.
    pub(super) async fn receive(&mut self) -> Option<Received> {
        loop {
            if let Some(received) = split(self.recv.recv().await.ok()?) {
                return Some(received);
            }
        }
    }

    /// A frame that is there already.
    pub(super) fn receive_ready(&mut self) -> Option<Received> {
        split(self.recv.recv().now_or_never()?.ok()?)
    }
}

fn split(message: ZmqMessage) -> Option<Received> {
    let mut parts = message.into_vecdeque();
    // Kept for as long as the peer's session: one that it named itself lies in a read buffer.
    let peer = Bytes::copy_from_slice(&parts.pop_front()?);
    let frame = parts.pop_front()?;
    Some((peer, if parts.is_empty() { frame } else { Bytes::new() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_that_is_kept_keeps_no_read_buffer() {
        let buffer = Bytes::from(vec![7; 64 * 1024]);
        let mut message = ZmqMessage::from(buffer.slice(..16));
        message.push_back(buffer.slice(16..));
        let Some((peer, frame)) = split(message) else { panic!("two parts") };
        assert_eq!((&peer[..], frame.len()), (&[7; 16][..], 64 * 1024 - 16));
        drop(frame);
        assert!(buffer.is_unique(), "the identity still holds the buffer");
    }
}
