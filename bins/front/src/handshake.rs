//! From an accepted connection to a session, in a task of its own and within a deadline.
//!
//! The HTTP part is done here and not by tungstenite, because a refusal needs its own status and
//! reason, and a header its own bound. What the request asks for is decided in [`request`].

pub(crate) mod answer;
mod request;

use std::{net, rc::Rc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::handshake::server::write_response;

use self::{answer::Refusal, request::Opening};
use crate::{
    core::{Core, Seat, spawn_guarded},
    session::{Mode, Session},
    socket::tungstenite::TungsteniteSocket,
    tenancy::Identity,
};

/// Longest time we go on reading after a refusal, so that the answer is not lost by a reset.
const LINGER: Duration = Duration::from_secs(1);

/// How a handshake can fail.
enum Failure {
    /// Answer this.
    Refused(Refusal),
    /// There is nobody to answer.
    Gone,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<std::io::Error> for Failure {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

/// A finished handshake.
struct Opened {
    identity: Identity,
    mode: Mode,
    /// Bytes that came behind the request.
    early: Vec<u8>,
}

/// Leads a connection through its handshake and starts its session.
pub(crate) async fn run(core: Rc<Core>, stream: net::TcpStream, seat: Seat) {
    let Ok(mut stream) = TcpStream::from_std(stream) else { return };
    let metrics = &core.front.metrics;
    let deadline = core.front.config.handshake.deadline.get();
    match tokio::time::timeout(deadline, open(&core, &mut stream)).await {
        Ok(Ok(opened)) => {
            metrics.handshake("opened");
            let limits = &core.front.config.limits;
            let socket = TungsteniteSocket::new(stream, opened.early, limits, core.shared.clone());
            let session =
                Session::new(Rc::clone(&core), socket, opened.identity, opened.mode, seat);
            spawn_guarded(session.run());
        }
        Ok(Err(Failure::Gone)) => metrics.handshake("gone"),
        Ok(Err(Failure::Refused(refusal))) => refuse(&core, stream, &refusal).await,
        Err(_) => refuse(&core, stream, &Refusal::TooSlow).await,
    }
}

/// Reads the request and answers it with the switch to WebSocket.
async fn open(core: &Core, stream: &mut TcpStream) -> Result<Opened, Failure> {
    let header_max = core.front.config.handshake.header_max.as_usize();
    let mut bytes = read_header(stream, header_max).await?;
    let Opening { device, format, response, bytes: used } = request::parse(&bytes)?;
    let identity = core.front.policy.admit(device)?;
    room(core, &identity)?;
    let mut answer = Vec::with_capacity(256);
    write_response(&mut answer, &response).map_err(|_| Failure::Gone)?;
    stream.write_all(&answer).await?;
    let early = bytes.split_off(used);
    Ok(Opened { identity, mode: Mode::of(format), early })
}

/// Reads until the header has ended.
async fn read_header(stream: &mut TcpStream, header_max: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::with_capacity(1024);
    let mut looked_at = 0;
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(Failure::Gone);
        }
        match request::header_end(&bytes, looked_at) {
            Some(end) if end <= header_max => return Ok(bytes),
            Some(_) => return Err(Refusal::HeaderTooLarge.into()),
            None if bytes.len() >= header_max => return Err(Refusal::HeaderTooLarge.into()),
            None => looked_at = bytes.len(),
        }
    }
}

/// Whether this front can take one more session.
fn room(core: &Core, identity: &Identity) -> Result<(), Refusal> {
    let front = &core.front;
    if !front.is_running() {
        return Err(Refusal::Unavailable("this front is ending"));
    }
    if front.connections.count() > front.config.limits.connections as usize {
        return Err(Refusal::Unavailable("this front has as many connections as it may"));
    }
    if !core.rings[identity.partition(core.rings.len())].has_room() {
        return Err(Refusal::Unavailable("this front's queue is full"));
    }
    Ok(())
}

/// Answers and closes so that the answer arrives.
async fn refuse(core: &Core, mut stream: TcpStream, refusal: &Refusal) {
    core.front.metrics.handshake(refusal.code());
    tracing::debug!(status = refusal.status(), code = refusal.code(), "handshake refused");
    let answered = async {
        stream.write_all(&refusal.to_bytes()).await?;
        stream.shutdown().await?;
        // Closing with unread bytes resets the connection, and the peer may lose the answer.
        let mut waste = [0; 1024];
        while stream.read(&mut waste).await? > 0 {}
        std::io::Result::Ok(())
    };
    let _ = tokio::time::timeout(LINGER, answered).await;
}
