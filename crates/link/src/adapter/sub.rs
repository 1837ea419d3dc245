//! One SUB over one connection.
//!
//! The crate's SUB reconnects by itself, to the address it resolved first and after pauses of up
//! to 30 s: it is dropped at the first sign of loss instead, and a new one built.

use bytes::Bytes;
use forebay_wire::feed::TOPIC;
use futures_util::{FutureExt, StreamExt};
use zeromq::{Socket, SocketEvent, SocketRecv, SubSocket, ZmqMessage};

use crate::adapter::dealer::{Monitor, options};
use crate::config::ConnectConfig;
use crate::pump::dial::Line;

/// A connected SUB, subscribed to the feed.
pub(super) struct Sub {
    socket: SubSocket,
    monitor: Monitor,
    _line: Line,
}

impl Sub {
    /// Connects and subscribes, within the configured time.
    pub(super) async fn connect(config: ConnectConfig) -> Result<Self, String> {
        let line = Line::open(&config).await?;
        let mut socket = SubSocket::with_options(options(config.connect_timeout));
        let monitor = socket.monitor().boxed();
        socket.subscribe(TOPIC).await.map_err(|error| error.to_string())?;
        socket.connect(line.endpoint()).await.map_err(|error| error.to_string())?;
        Ok(Self { socket, monitor, _line: line })
    }

    /// The next frame; `None` once the connection is lost. May be dropped while it waits.
    pub(super) async fn receive(&mut self) -> Option<Bytes> {
        loop {
            tokio::select! {
                biased;
                message = self.socket.recv() => return Some(without_topic(message.ok()?)),
                event = self.monitor.next() => match event {
                    None | Some(SocketEvent::Disconnected(_) | SocketEvent::Closed) => return None,
                    Some(_) => {}
                },
            }
        }
    }

    /// A frame that is there already.
    pub(super) fn receive_ready(&mut self) -> Option<Bytes> {
        Some(without_topic(self.socket.recv().now_or_never()?.ok()?))
    }
}

/// The second part of a message of two; empty, and so refused as a frame, for any other.
fn without_topic(message: ZmqMessage) -> Bytes {
    if message.len() == 2 {
        message.into_vecdeque().pop_back().unwrap_or_default()
    } else {
        Bytes::new()
    }
}
