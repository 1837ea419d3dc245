//! From an accepted connection to a session, in a task of its own and within a deadline.
//!
//! The HTTP part is done here and not by tungstenite, because a refusal needs its own status and
//! reason, and a header its own bound. What the request asks for is decided in [`request`].

pub(crate) mod answer;
mod arrival;
mod proxy;
mod request;

use std::{net, rc::Rc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::tungstenite::handshake::server::write_response;

use self::{answer::Refusal, arrival::Transport, request::Opening};
use crate::{
    addresses::Place,
    config::ProxyProtocol,
    core::{Core, Seat, spawn_guarded},
    session::{Mode, Seated, Session},
    socket::tungstenite::TungsteniteSocket,
    tenancy::{Admitted, Identity, Shown},
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
    admitted: Admitted,
    mode: Mode,
    /// Bytes that came behind the request.
    early: Vec<u8>,
}

/// Leads a connection through its handshake and starts its session.
pub(crate) async fn run(core: Rc<Core>, stream: net::TcpStream, peer: net::SocketAddr, seat: Seat) {
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let metrics = &core.front.metrics;
    let settings = &core.front.config.handshake;
    let deadline = tokio::time::Instant::now() + settings.deadline.get();
    let mut place = None;
    let arrived = timeout(settings.deadline.get(), arrive(&core, stream, peer.ip(), &mut place));
    let (mut transport, address) = match arrived.await {
        Ok(Ok(arrived)) => arrived,
        Ok(Err(code)) => return metrics.handshake(code),
        Err(_) => return metrics.handshake("too_slow"),
    };
    let opened = open(&core, &mut transport, address, &mut place);
    match tokio::time::timeout_at(deadline, opened).await {
        Ok(Ok(opened)) => {
            metrics.handshake("opened");
            let link = arrival::into_link(transport);
            #[cfg(feature = "echo")]
            if opened.mode == Mode::Raw {
                return spawn_guarded(crate::socket::echo::run(&core, link, opened.early, seat));
            }
            let (settings, shared) = (core.codec.clone(), core.shared.clone());
            let socket = TungsteniteSocket::new(link, opened.early, settings, shared);
            let seated = Seated { _seat: seat, _place: place.map(Box::new) };
            let session =
                Session::new(Rc::clone(&core), socket, opened.admitted, opened.mode, seated);
            spawn_guarded(session.run());
        }
        Ok(Err(Failure::Gone)) => metrics.handshake("gone"),
        Ok(Err(Failure::Refused(refusal))) => refuse(&core, transport, &refusal).await,
        Err(_) => refuse(&core, transport, &Refusal::TooSlow).await,
    }
}

/// What comes before the request: the proxy's word and TLS. The error is the outcome to count.
async fn arrive(
    core: &Core,
    mut stream: TcpStream,
    peer: net::IpAddr,
    place: &mut Option<Place>,
) -> Result<(Transport, net::IpAddr), &'static str> {
    let front = &core.front;
    let proxy = &front.config.proxy;
    let mut address = peer;
    let mut early = Vec::new();
    if proxy.protocol == ProxyProtocol::Proxy {
        if !proxy.trusts(peer) {
            return Err("bad_proxy");
        }
        let from = arrival::read_proxy(&mut stream, &mut early).await.ok_or("bad_proxy")?;
        address = from.unwrap_or(peer);
    }
    // Behind a proxy that writes a header, the address is known once the request is.
    let later = proxy.protocol == ProxyProtocol::XForwardedFor && proxy.trusts(peer);
    if !front.addresses.is_unlimited() && !later {
        *place = Some(front.addresses.take(address).ok_or("too_many")?);
    }
    let transport = match &front.policy.tls {
        None => arrival::plain(stream, early),
        Some(tls) => arrival::accept_tls(tls, stream, early).await.ok_or("bad_tls")?,
    };
    Ok((transport, address))
}

/// Reads the request and answers it with the switch to WebSocket.
async fn open(
    core: &Core,
    stream: &mut Transport,
    address: net::IpAddr,
    place: &mut Option<Place>,
) -> Result<Opened, Failure> {
    let front = &core.front;
    let header_max = front.config.handshake.header_max.as_usize();
    let mut bytes = read_header(stream, header_max).await?;
    let opening = request::parse(&bytes, front.config.auth.token_in_query)?;
    let Opening { device, format, token, origin, forwarded, response, bytes: used } = opening;
    if place.is_none() && !front.addresses.is_unlimited() {
        let address = forwarded_from(core, address, &forwarded);
        *place = Some(front.addresses.take(address).ok_or(Refusal::TooMany)?);
    }
    let allowed = |origin: &String| {
        front.config.listen.origins.iter().any(|allowed| allowed == "*" || allowed == origin)
    };
    if origin.as_ref().is_some_and(|origin| !allowed(origin)) {
        let reason = "pages of this origin may not connect: listen.origins names those that may";
        return Err(Refusal::Forbidden(reason.to_owned()).into());
    }
    let shown = Shown { token, chain: arrival::certificates(stream) };
    let mode = Mode::of(format);
    let admitted = front.policy.admit(device, shown)?;
    match &admitted {
        Admitted::Known(identity, _) => room(core, Some(identity))?,
        Admitted::Pending(_) if mode == Mode::Raw => {
            let reason = "raw mode has no hello: show the credential in the request";
            return Err(Refusal::Unauthenticated(reason.to_owned()).into());
        }
        Admitted::Pending(_) => room(core, None)?,
    }
    let mut answer = Vec::with_capacity(256);
    write_response(&mut answer, &response).map_err(|_| Failure::Gone)?;
    stream.write_all(&answer).await?;
    stream.flush().await?;
    let early = bytes.split_off(used);
    Ok(Opened { admitted, mode, early })
}

/// The nearest address in `X-Forwarded-For` that is no proxy of ours: what is further away was
/// written by somebody else.
fn forwarded_from(core: &Core, peer: net::IpAddr, forwarded: &[String]) -> net::IpAddr {
    let proxy = &core.front.config.proxy;
    let mut address = peer;
    for text in forwarded.iter().rev() {
        if !proxy.trusts(address) {
            break;
        }
        // With a port, as some write it.
        let named = text
            .parse()
            .ok()
            .or_else(|| text.parse::<net::SocketAddr>().ok().map(|address| address.ip()));
        match named {
            Some(named) => address = named,
            None => break,
        }
    }
    address
}

/// Reads until the header has ended.
async fn read_header(stream: &mut Transport, header_max: usize) -> Result<Vec<u8>, Failure> {
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
fn room(core: &Core, identity: Option<&Identity>) -> Result<(), Refusal> {
    let front = &core.front;
    if !front.is_running() {
        return Err(Refusal::Unavailable("this front is ending"));
    }
    if front.connections.count() > front.config.limits.connections as usize {
        return Err(Refusal::Unavailable("this front has as many connections as it may"));
    }
    let Some(identity) = identity else {
        let most = front.config.handshake.first_message_max as usize;
        return match front.pending.count() < most {
            true => Ok(()),
            false => Err(Refusal::Unavailable("too many wait to say who they are")),
        };
    };
    if !core.rings[identity.partition(core.rings.len())].has_room() {
        return Err(Refusal::Unavailable("this front's queue is full"));
    }
    Ok(())
}

/// Answers and closes so that the answer arrives.
async fn refuse(core: &Core, mut stream: Transport, refusal: &Refusal) {
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
    let _ = timeout(LINGER, answered).await;
}
