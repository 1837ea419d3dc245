//! What the admin server answers to each request.
//!
//! One handler looks the path up in the [`Content`] of the moment, so that a tier that has started
//! can replace what it answered while it did.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use prometheus::{Registry, TextEncoder};
use serde_json::json;
use tokio::sync::Semaphore;

use super::{Check, Parameters, Question, Status};
use crate::drain::{Drain, TokenSource};

/// What is answered.
pub(super) struct Content {
    pub(super) registry: Registry,
    pub(super) health: Vec<(String, Check)>,
    pub(super) readiness: Vec<(String, Check)>,
    pub(super) status: HashMap<&'static str, Status>,
    pub(super) questions: HashMap<&'static str, Question>,
    pub(super) drain: Option<(Drain, TokenSource)>,
    /// One question at a time: each may read a whole ring.
    asking: Arc<Semaphore>,
}

impl Content {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            registry: registry.clone(),
            health: Vec::new(),
            readiness: Vec::new(),
            status: HashMap::new(),
            questions: HashMap::new(),
            drain: None,
            asking: Arc::new(Semaphore::new(1)),
        }
    }
}

pub(super) fn router(shared: Arc<RwLock<Arc<Content>>>) -> Router {
    Router::new().fallback(answer).with_state(shared)
}

async fn answer(State(shared): State<Arc<RwLock<Arc<Content>>>>, request: Request) -> Response {
    let content = Arc::clone(&shared.read().unwrap_or_else(PoisonError::into_inner));
    if let Some(question) = content.questions.get(request.uri().path())
        && request.method() == Method::GET
    {
        let (question, uri) = (Arc::clone(question), request.uri().clone());
        // A request cannot be looked at by two threads, and this answer waits for another one.
        drop(request);
        return ask(&content, question, uri).await;
    }
    at_once(&content, &request)
}

/// Everything but questions.
fn at_once(content: &Content, request: &Request) -> Response {
    let path = request.uri().path();
    if path == "/v1/drain" {
        return drain(content, request);
    }
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    match path {
        "/healthz" | "/readyz" | "/metrics" if !is_read => not_allowed("GET"),
        "/healthz" => report(&content.health),
        "/readyz" => {
            if let Some((drain, _)) = &content.drain {
                drain.watched();
            }
            report(&content.readiness)
        }
        "/metrics" => metrics(&content.registry),
        path => {
            if let Some(status) = content.status.get(path) {
                return if is_read {
                    axum::Json(status()).into_response()
                } else {
                    not_allowed("GET")
                };
            }
            if content.questions.contains_key(path) {
                return not_allowed("GET");
            }
            refuse(StatusCode::NOT_FOUND, "there is no such route")
        }
    }
}

fn report(checks: &[(String, Check)]) -> Response {
    let mut ok = true;
    let mut shown = serde_json::Map::new();
    for (name, check) in checks {
        let result = check();
        ok &= result.is_ok();
        shown.insert(name.clone(), json!(result.err().unwrap_or_else(|| "ok".to_owned())));
    }
    let code = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, axum::Json(json!({ "ok": ok, "checks": shown }))).into_response()
}

fn metrics(registry: &Registry) -> Response {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Asks on another thread, one question at a time; who comes meanwhile is told to come again.
async fn ask(content: &Content, question: Question, uri: Uri) -> Response {
    let Ok(turn) = Arc::clone(&content.asking).try_acquire_owned() else {
        return refuse(StatusCode::TOO_MANY_REQUESTS, "another question is being answered");
    };
    let Ok(Query(parameters)) = Query::<Parameters>::try_from_uri(&uri) else {
        return refuse(StatusCode::BAD_REQUEST, "the parameters cannot be read");
    };
    let answered = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        question(&parameters)
    });
    match answered.await {
        Ok(Ok(answer)) => axum::Json(answer).into_response(),
        Ok(Err(reason)) => refuse(StatusCode::BAD_REQUEST, &reason),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn drain(content: &Content, request: &Request) -> Response {
    let Some((drain, token)) = &content.drain else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the tier has not started yet");
    };
    let given = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes());
    if let Err(error) = token.check(given) {
        tracing::warn!(method = %request.method(), %error, "a request to drain is refused");
        return refuse(StatusCode::FORBIDDEN, "it takes the admin token");
    }
    match *request.method() {
        Method::GET | Method::HEAD => {}
        Method::POST => {
            if let Err(reason) = drain.begin() {
                return refuse(StatusCode::SERVICE_UNAVAILABLE, &reason);
            }
        }
        Method::DELETE => {
            if let Err(error) = drain.cancel() {
                return refuse(StatusCode::CONFLICT, &error.to_string());
            }
        }
        _ => return not_allowed("GET, POST, DELETE"),
    }
    axum::Json(drain.state()).into_response()
}

fn not_allowed(allow: &'static str) -> Response {
    let code = StatusCode::METHOD_NOT_ALLOWED;
    (code, [(header::ALLOW, allow)], axum::Json(json!({ "error": "no such method here" })))
        .into_response()
}

fn refuse(code: StatusCode, reason: &str) -> Response {
    (code, axum::Json(json!({ "error": reason }))).into_response()
}
