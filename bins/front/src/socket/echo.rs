//! A mode in which the front sends back each message it is sent, for a conformance suite.
//!
//! Only with the feature `echo`, never in a build that is used. What is put to the test is all below
//! the meaning of a message: the handshake, the codec, the core's shared read buffer, the order of
//! writes, and how a connection is closed. Messages may be as large as the suite's.

use std::{
    rc::Rc,
    task::{Context, Poll, ready},
};

use forebay_ops::ByteSize;
use forebay_wire::device::CloseCode;

use super::{Broken, Incoming, Settings, Socket, link::Link, tungstenite::TungsteniteSocket};
use crate::{
    config::Limits,
    core::{Core, Seat},
};

/// Messages in one turn of the task; then the other connections of the core have theirs.
const MESSAGES_A_TURN: usize = 64;

/// One connection.
struct Echo {
    socket: TungsteniteSocket,
    dirty: bool,
    closing: bool,
    shut: bool,
    _seat: Seat,
}

/// Serves a connection whose handshake is done until it has ended.
pub(crate) fn run(
    core: &Rc<Core>,
    link: Link,
    early: Vec<u8>,
    seat: Seat,
) -> impl Future<Output = ()> + Unpin + use<> {
    let limits = Limits {
        message: ByteSize::mib(64),
        write_buffer_max: ByteSize::mib(256),
        ..core.front.config.limits.clone()
    };
    let socket = TungsteniteSocket::new(link, early, Settings::of(&limits), core.shared.clone());
    let mut echo = Echo { socket, dirty: false, closing: false, shut: false, _seat: seat };
    std::future::poll_fn(move |cx| {
        let ended = echo.poll(cx);
        echo.socket.end_turn();
        ended
    })
}

impl Echo {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..MESSAGES_A_TURN {
            if self.dirty {
                if ready!(self.socket.poll_flush(cx)).is_err() {
                    return Poll::Ready(());
                }
                self.dirty = false;
            }
            if self.closing {
                if !self.shut {
                    self.socket.shut_write();
                    self.shut = true;
                }
                return self.socket.poll_discard(cx);
            }
            match self.socket.next() {
                Some(Ok(Incoming::Text(text))) => self.send(true, text),
                Some(Ok(Incoming::Binary(bytes))) => self.send(false, bytes),
                Some(Ok(Incoming::Control)) => self.dirty = true,
                Some(Ok(Incoming::Close)) => (self.dirty, self.closing) = (true, true),
                Some(Err(broken)) => self.break_off(broken),
                None => match ready!(self.socket.poll_fill(cx)) {
                    Ok(()) => {}
                    Err(_) => return Poll::Ready(()),
                },
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn send(&mut self, text: bool, payload: bytes::Bytes) {
        self.dirty = true;
        if let Err(broken) = self.socket.send(text, payload) {
            self.break_off(broken);
        }
    }

    /// Says why the peer is not heard any more, as a session does.
    fn break_off(&mut self, broken: Broken) {
        let code = match broken {
            Broken::Gone => None,
            Broken::Protocol => Some(CloseCode::Protocol),
            Broken::NotUtf8 => Some(CloseCode::NotUtf8),
            Broken::TooBig => Some(CloseCode::TooLarge),
        };
        if let Some(code) = code {
            self.socket.close(code.number(), "");
        }
        (self.dirty, self.closing) = (true, true);
    }
}
