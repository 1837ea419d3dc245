//! The one port for readers: REST, the live WebSocket, server-sent events, and the web page.
//!
//! | route | answers |
//! | --- | --- |
//! | `/` | the web page, which needs nothing from elsewhere |
//! | `/v1/status` | queues, rates and sinks of all tiers, for the page |
//! | `/v1/last` | last values |
//! | `/v1/history` | readings of a series in a range |
//! | `/v1/trend` | minimum, maximum, average and count for each interval |
//! | `/v1/live` | the live feed as a WebSocket |
//! | `/v1/events` | the live feed as server-sent events |
//!
//! Everything under `/v1` asks who reads (`access`). Not here: health and metrics (the admin port).

mod access;
mod error;
mod events;
mod params;
mod rest;
mod server;
mod socket;
mod status;

use std::{sync::Arc, time::Duration};

use axum::{Router, http::header, middleware, response::IntoResponse, routing::get};
use tokio::sync::Semaphore;

use crate::{
    last::LastValues,
    live::LiveFeed,
    read::{Filter, LakeFiles, Tail, TailMark},
    registry::Current,
    rows::RowView,
    sink::RangeBuffer,
};

pub use access::Access;
pub use server::Server;
pub use status::{Status, TierPoll};

/// The rows that all sinks of the lake have not stored yet.
#[derive(Debug, Default)]
pub struct Tails(pub Vec<Arc<RangeBuffer>>);

impl Tail for Tails {
    fn visit(&self, filter: &Filter, each: &mut dyn FnMut(RowView<'_>)) -> Vec<TailMark> {
        self.0.iter().flat_map(|tail| tail.visit(filter, each)).collect()
    }
}

/// What requests are answered from.
#[derive(Debug)]
pub struct App {
    /// The lake; `None` in a live-only process.
    pub lake: Option<Arc<LakeFiles>>,
    /// What is not in the lake yet.
    pub tails: Tails,
    /// Last values; `None` without a live feed.
    pub last: Option<Arc<LastValues>>,
    /// What is known of devices.
    pub registry: Current,
    /// The live feed.
    pub live: Option<LiveFeed>,
    /// Readers that may still come.
    pub clients: Arc<Semaphore>,
    /// Queries that may run.
    pub queries: Arc<Semaphore>,
    /// How the tiers stand.
    pub status: Status,
    /// Who may read.
    pub access: Access,
}

/// How the port is served.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at most.
    pub connections_max: usize,
    /// Longest time for the head of a request.
    pub header_timeout: Duration,
}

const PAGE: &str = include_str!("page.html");

fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/status", get(status::status))
        .route("/v1/last", get(rest::last))
        .route("/v1/history", get(rest::history))
        .route("/v1/trend", get(rest::trend))
        .route("/v1/live", get(socket::upgrade))
        .route("/v1/events", get(events::events))
        .route_layer(middleware::from_fn_with_state(app.clone(), access::admit))
        // The page holds no data: what it shows it asks for like anybody else.
        .route("/", get(page))
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .with_state(app)
}

async fn page() -> impl IntoResponse {
    // Everything the page needs is in it: a policy that forbids all else costs nothing.
    let policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                  connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'";
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, PAGE)
}
