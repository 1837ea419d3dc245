//! The live feed as server-sent events, for readers without a WebSocket.
//!
//! `GET /v1/events?device=&prefix=&tenant=&key=&mode=every|latest&snapshot=true&from=`: `device`,
//! `tenant`, `key` and `from` may be repeated. The data of each event is a frame of the live
//! protocol, its id the position to resume from; browsers send it back by themselves.

use std::{fmt::Write as _, sync::Arc};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::{Query, State},
    http::{HeaderMap, Response, header},
    response::IntoResponse as _,
};
use forebay_wire::live::{Mode, Subscription};
use futures_util::stream;

use super::{App, access::Bearer, error::ApiError, params};
use crate::live::{Outgoing, Reader};

/// `GET /v1/events`.
pub(super) async fn events(
    State(app): State<Arc<App>>,
    Extension(bearer): Extension<Bearer>,
    headers: HeaderMap,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response<Body>, ApiError> {
    let mut subscription = subscription(&headers, pairs)?;
    if !bearer.narrow(&mut subscription) {
        return Err(ApiError::forbidden("the credential is of another tenant"));
    }
    let live = app.live.clone().ok_or_else(|| ApiError::disabled("the live feed"))?;
    let permit = app.clients.clone().try_acquire_owned();
    let permit = permit.map_err(|_| ApiError::unavailable("too many live readers"))?;
    let reader = Reader::subscribe(&live, &subscription);
    let reader = reader.map_err(|error| ApiError::bad(error.to_string()))?;
    let state = (reader, bearer, permit);
    let frames = stream::unfold(state, |(mut reader, bearer, permit)| async move {
        // The end of the feed, or of the credential, ends the stream; the reader comes back with
        // its last id.
        let frames = tokio::select! {
            biased;
            () = bearer.ended() => return None,
            frames = reader.next() => frames.ok()?,
        };
        let text = frames.iter().fold(String::new(), append);
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(text)), (reader, bearer, permit)))
    });
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(frames)).into_response())
}

/// Appends a frame as an event. Frames are JSON on one line.
fn append(mut text: String, frame: &Outgoing) -> String {
    if let Some(at) = frame.at {
        let _ = writeln!(text, "id: {}/{}", at.queue, at.seq);
    }
    text.push_str("data: ");
    text.push_str(std::str::from_utf8(&frame.bytes).unwrap_or_default());
    text.push_str("\n\n");
    text
}

fn subscription(
    headers: &HeaderMap,
    pairs: Vec<(String, String)>,
) -> Result<Subscription, ApiError> {
    let mut params = params::Params::new(pairs);
    let mut from = params.all("from");
    let resumed = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    if let Some(id) = resumed.filter(|id| !id.is_empty()) {
        // What the browser remembers is newer than what the address of the page says.
        from = vec![id.to_owned()];
    }
    let from: Result<Vec<_>, _> = from.iter().map(|text| params::position(text)).collect();
    let from = from?;
    let snapshot = params.flag("snapshot")? && from.is_empty();
    let subscription = Subscription {
        devices: params.all("device"),
        prefix: params.text("prefix")?,
        types: params.all("type"),
        locations: params.all("location"),
        tenants: params.all("tenant"),
        keys: params.all("key"),
        mode: params
            .word("mode", &[("every", Mode::Every), ("latest", Mode::Latest)])?
            .unwrap_or_default(),
        from,
        snapshot,
    };
    params.finish()?;
    Ok(subscription)
}
