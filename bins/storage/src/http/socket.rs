//! The live feed as a WebSocket.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, Response, StatusCode, header},
    response::IntoResponse as _,
};
use forebay_wire::{
    limits::{PING_INTERVAL, SUBSCRIBE_BYTES_MAX, WRITE_STALL_MAX},
    live::{ClientFrame, SUBPROTOCOL, ServerFrame, Subscription},
};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as SocketError, Message, Utf8Bytes,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::{App, access::Bearer, error::ApiError};
use crate::live::{LiveFeed, Outgoing, Reader, ReaderEnd, encode};

/// From the end of the handshake to the subscription.
const SUBSCRIBE_TIME_MAX: Duration = Duration::from_secs(10);
/// Close code of a frame that is no subscription; see docs/protocol.md.
const BAD_MESSAGE: u16 = 4400;
/// Close code of a credential that has expired or was revoked.
const UNAUTHENTICATED: u16 = 4401;
/// Close code of a subscription to another's data.
const FORBIDDEN: u16 = 4403;

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// `GET /v1/live`: answers the handshake and serves the reader in a task of its own.
pub(super) async fn upgrade(
    State(app): State<Arc<App>>,
    mut request: Request,
) -> Result<Response<Body>, ApiError> {
    let accept = handshake(request.headers())?;
    let named = names_protocol(request.headers());
    let bearer = request.extensions_mut().remove::<Bearer>();
    let bearer = bearer.ok_or_else(|| ApiError::internal("nobody asked who reads"))?;
    let live = app.live.clone().ok_or_else(|| ApiError::disabled("the live feed"))?;
    let permit = app.clients.clone().try_acquire_owned();
    let permit = permit.map_err(|_| ApiError::unavailable("too many live readers"))?;
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let upgrade = upgrade.ok_or_else(|| ApiError::bad("this connection cannot be upgraded"))?;
    tokio::spawn(async move {
        let _permit = permit;
        let Ok(Ok(upgraded)) = timeout(SUBSCRIBE_TIME_MAX, upgrade).await else { return };
        let config = WebSocketConfig::default()
            .read_buffer_size(4 << 10)
            .write_buffer_size(16 << 10)
            .max_write_buffer_size(4 << 20)
            .max_message_size(Some(SUBSCRIBE_BYTES_MAX))
            .max_frame_size(Some(SUBSCRIBE_BYTES_MAX));
        let io = TokioIo::new(upgraded);
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        let code = serve(&mut socket, &live, &bearer).await;
        let close = CloseFrame { code: code.0, reason: code.1.into() };
        let _ = timeout(WRITE_STALL_MAX, socket.close(Some(close))).await;
    });
    let headers = [
        (header::CONNECTION, "Upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_ACCEPT, accept.as_str()),
    ];
    let mut response = (StatusCode::SWITCHING_PROTOCOLS, headers).into_response();
    if named {
        let name = header::HeaderValue::from_static(SUBPROTOCOL);
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, name);
    }
    Ok(response)
}

/// Whether the client offers the protocol by its name, which browsers want to see in the answer.
fn names_protocol(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut names = values.filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(','));
    names.any(|name| name.trim() == SUBPROTOCOL)
}

/// Checks the head of a WebSocket handshake; returns the key that answers it.
fn handshake(headers: &HeaderMap) -> Result<String, ApiError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let has = |name, token: &str| {
        text(name).split(',').any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
        return Err(ApiError::bad("/v1/live is a WebSocket; /v1/events is the feed without one"));
    }
    if text(header::SEC_WEBSOCKET_VERSION) != "13" {
        return Err(ApiError::bad("sec-websocket-version must be 13"));
    }
    // Any page that is open in a browser on this machine may try; only our own may read.
    let origin = text(header::ORIGIN);
    let origin_host = origin.split_once("://").map_or(origin, |(_, host)| host);
    if !origin.is_empty() && origin_host != text(header::HOST) {
        return Err(ApiError::forbidden(format!("pages of {origin} may not read the feed")));
    }
    match text(header::SEC_WEBSOCKET_KEY) {
        "" => Err(ApiError::bad("sec-websocket-key is missing")),
        key => Ok(derive_accept_key(key.as_bytes())),
    }
}

type Close = (CloseCode, &'static str);

const GONE: Close = (CloseCode::Normal, "");
const EXPIRED: Close =
    (CloseCode::Library(UNAUTHENTICATED), "the credential expired or was revoked");
const STALLED: Close = (CloseCode::Policy, "nothing was read for too long");

/// Serves one reader until it goes or has to.
async fn serve(socket: &mut Socket, live: &LiveFeed, bearer: &Bearer) -> Close {
    let first = timeout(SUBSCRIBE_TIME_MAX, subscription(socket)).await;
    let mut next = match first {
        Err(_) => return (CloseCode::Policy, "no subscription came"),
        Ok(Some(Ok(subscription))) => subscription,
        Ok(Some(Err(reason))) => return refuse(socket, &reason).await,
        Ok(None) => return GONE,
    };
    loop {
        if !bearer.narrow(&mut next) {
            return refuse_tenant(socket).await;
        }
        let reader = match Reader::subscribe(live, &next) {
            Ok(reader) => reader,
            Err(error) => return refuse(socket, &error.to_string()).await,
        };
        match follow(socket, reader, bearer).await {
            Ok(Ok(subscription)) => next = subscription,
            Ok(Err(reason)) => return refuse(socket, &reason).await,
            Err(close) => return close,
        }
    }
}

/// Sends a reader its frames until it subscribes anew.
async fn follow(
    socket: &mut Socket,
    mut reader: Reader,
    bearer: &Bearer,
) -> Result<Result<Subscription, String>, Close> {
    let mut heard = Instant::now();
    let mut ping = tokio::time::interval(PING_INTERVAL);
    ping.tick().await;
    let mut ended = pin!(bearer.ended());
    loop {
        tokio::select! {
            () = &mut ended => return Err(EXPIRED),
            frames = reader.next() => match frames {
                Ok(frames) => send(socket, frames).await?,
                Err(ReaderEnd::Draining) => return Err((CloseCode::Away, "this process ends")),
                Err(ReaderEnd::Failed(reason)) => {
                    tracing::debug!(reason, "a live reader could not be brought back");
                    return Err((CloseCode::Again, "cannot be brought back now"));
                }
            },
            message = subscription_or_sign(socket) => {
                heard = Instant::now();
                match message {
                    None => return Err(GONE),
                    Some(Sign::Life) => {}
                    Some(Sign::Subscribe(subscription)) => return Ok(subscription),
                }
            }
            _ = ping.tick() => {
                if heard.elapsed() > PING_INTERVAL * 2 {
                    return Err((CloseCode::Policy, "no sign of life"));
                }
                let sent = timeout(WRITE_STALL_MAX, socket.send(Message::Ping(Vec::new().into())));
                if !matches!(sent.await, Ok(Ok(()))) {
                    return Err(STALLED);
                }
            }
        }
    }
}

async fn send(socket: &mut Socket, frames: Vec<Outgoing>) -> Result<(), Close> {
    let sent = timeout(WRITE_STALL_MAX, async {
        for frame in frames {
            // Frames are JSON made here: always UTF-8. Checked again rather than trusted.
            let Ok(text) = Utf8Bytes::try_from(frame.bytes) else { continue };
            socket.feed(Message::Text(text)).await?;
        }
        socket.flush().await
    });
    match sent.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(GONE),
        Err(_) => Err(STALLED),
    }
}

/// What a reader has sent.
enum Sign {
    Life,
    Subscribe(Result<Subscription, String>),
}

async fn subscription_or_sign(socket: &mut Socket) -> Option<Sign> {
    match socket.next().await? {
        Ok(Message::Text(text)) => {
            let frame = ClientFrame::decode(&text);
            Some(Sign::Subscribe(frame.map(|ClientFrame::Subscribe(subscription)| subscription)))
        }
        Ok(Message::Binary(_)) => {
            Some(Sign::Subscribe(Err("a subscription is a text message".to_owned())))
        }
        Ok(Message::Close(_)) => None,
        Ok(_) => Some(Sign::Life),
        Err(SocketError::Capacity(error)) => Some(Sign::Subscribe(Err(error.to_string()))),
        Err(_) => None,
    }
}

async fn subscription(socket: &mut Socket) -> Option<Result<Subscription, String>> {
    loop {
        if let Sign::Subscribe(subscription) = subscription_or_sign(socket).await? {
            return Some(subscription);
        }
    }
}

async fn refuse_tenant(socket: &mut Socket) -> Close {
    let reason = "the credential is of another tenant";
    let frame = ServerFrame::Error { code: "forbidden".into(), reason: reason.into() };
    let _ = send(socket, vec![Outgoing { at: None, bytes: encode(&frame) }]).await;
    (CloseCode::Library(FORBIDDEN), reason)
}

async fn refuse(socket: &mut Socket, reason: &str) -> Close {
    let frame = ServerFrame::Error { code: "bad_subscription".into(), reason: reason.into() };
    let _ = send(socket, vec![Outgoing { at: None, bytes: encode(&frame) }]).await;
    (CloseCode::Library(BAD_MESSAGE), "bad subscription")
}
