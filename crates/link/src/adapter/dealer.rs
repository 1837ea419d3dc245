//! One DEALER over one connection: it is built, it works, it is lost; then comes another.
//!
//! The crate's DEALER never reconnects and its `recv` then waits for ever: its monitor tells. A
//! cancelled send is delivered all the same: a task of its own owns the sending half, and nothing
//! waits for it.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use zeromq::{
    DealerRecvHalf, DealerSocket, Socket, SocketEvent, SocketOptions, SocketRecv, SocketSend,
    ZmqMessage,
};

use crate::config::ConnectConfig;
use crate::pump::dial::Line;

/// Frames between the link and the task that sends them: the largest window and then some.
const SEND_QUEUE: usize = 512;

pub(super) type Monitor = Pin<Box<dyn Stream<Item = SocketEvent> + Send>>;

/// A connected DEALER.
pub(super) struct Dealer {
    frames: mpsc::Sender<Bytes>,
    sending: JoinHandle<()>,
    recv: DealerRecvHalf,
    monitor: Monitor,
    _line: Line,
}

impl Drop for Dealer {
    fn drop(&mut self) {
        self.sending.abort();
    }
}

impl Dealer {
    /// Connects, within the configured time.
    pub(super) async fn connect(config: ConnectConfig) -> Result<Self, String> {
        let line = Line::open(&config).await?;
        let mut socket = DealerSocket::with_options(options(config.connect_timeout));
        let monitor = socket.monitor().boxed();
        socket.connect(line.endpoint()).await.map_err(|error| error.to_string())?;
        let (mut send, recv) = socket.split();
        let (frames, mut queued) = mpsc::channel::<Bytes>(SEND_QUEUE);
        let sending = tokio::spawn(async move {
            while let Some(frame) = queued.recv().await {
                if send.send(ZmqMessage::from(frame)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self { frames, sending, recv, monitor, _line: line })
    }

    /// Hands a frame to the sending task; `false` if the connection is of no use any more.
    pub(super) fn send(&self, frame: Bytes) -> bool {
        self.frames.try_send(frame).is_ok()
    }

    /// The next frame; `None` once the connection is lost. May be dropped while it waits.
    pub(super) async fn receive(&mut self) -> Option<Bytes> {
        loop {
            tokio::select! {
                biased;
                message = self.recv.recv() => return single(message.ok()?).or_else(|| Some(Bytes::new())),
                event = self.monitor.next() => match event {
                    None | Some(SocketEvent::Disconnected(_) | SocketEvent::Closed) => return None,
                    Some(_) => {}
                },
            }
        }
    }

    /// A frame that is there already.
    pub(super) fn receive_ready(&mut self) -> Option<Bytes> {
        let message = self.recv.recv().now_or_never()?.ok()?;
        single(message).or_else(|| Some(Bytes::new()))
    }
}

/// The only part of a message of one part.
fn single(message: ZmqMessage) -> Option<Bytes> {
    if message.len() == 1 { message.into_vecdeque().pop_front() } else { None }
}

/// Options for a socket that connects: reads of up to a whole batch, and a deadline.
pub(super) fn options(connect_timeout: Duration) -> SocketOptions {
    let mut options = SocketOptions::default();
    options.connect_timeout(connect_timeout);
    options
}
