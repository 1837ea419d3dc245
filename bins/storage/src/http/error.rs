//! Answers that say what was wrong with a request, in one JSON form.

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

/// A request that is not answered with data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    reason: String,
}

impl ApiError {
    /// The request is at fault: 400, with what to change.
    pub(super) fn bad(reason: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "bad_request", reason: reason.into() }
    }

    /// This side is at fault, or has no room: 503, come back.
    pub(super) fn unavailable(reason: impl Into<String>) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self { status, code: "unavailable", reason: reason.into() }
    }

    /// The request asks for what this process is not set up for.
    pub(super) fn disabled(what: &str) -> Self {
        let reason = format!("{what} is not enabled in this process");
        Self { status: StatusCode::NOT_FOUND, code: "disabled", reason }
    }

    /// No credential, or one that is worth nothing.
    pub(super) fn unauthenticated(reason: impl Into<String>) -> Self {
        let status = StatusCode::UNAUTHORIZED;
        Self { status, code: "unauthenticated", reason: reason.into() }
    }

    /// Another page's script asks, or the credential is of somebody else.
    pub(super) fn forbidden(reason: impl Into<String>) -> Self {
        Self { status: StatusCode::FORBIDDEN, code: "forbidden", reason: reason.into() }
    }

    /// What is stored cannot be read.
    pub(super) fn internal(reason: impl Into<String>) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self { status, code: "internal", reason: reason.into() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({ "error": { "code": self.code, "reason": self.reason } });
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let bearer = header::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}

pub(super) async fn not_found() -> ApiError {
    ApiError {
        status: StatusCode::NOT_FOUND,
        code: "not_found",
        reason: "no such route: see /v1/last, /v1/history, /v1/trend, /v1/live, /v1/events"
            .to_owned(),
    }
}

pub(super) async fn method_not_allowed() -> ApiError {
    ApiError {
        status: StatusCode::METHOD_NOT_ALLOWED,
        code: "method_not_allowed",
        reason: "only GET is answered here".to_owned(),
    }
}
