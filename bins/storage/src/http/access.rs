//! Who may read: a bearer token in the header, in the subprotocol list, or in the query if that is
//! allowed; nobody is asked in anonymous mode.
//!
//! Every route under `/v1` passes here, and each handler gets the [`Bearer`], which narrows what is
//! asked for to the bearer's tenant. A token in the query is taken out of it before anybody else
//! sees the address.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Uri, header},
    middleware::Next,
    response::Response,
};
use forebay_access::{Gate, Standing, unix_now_s};
use forebay_wire::{device::token_entry, live::Subscription};

use super::{App, error::ApiError};

/// How often an open feed's credential is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Whom this port lets in.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// What checks tokens.
    pub gate: Gate,
    /// Whether tokens can be checked at all.
    pub takes_tokens: bool,
    /// Whether who shows none reads everything.
    pub anonymous: bool,
    /// Whether `?token=` is taken.
    pub token_in_query: bool,
}

/// Who reads.
#[derive(Debug, Clone)]
pub(super) struct Bearer {
    /// The one tenant it may read; none: all of them.
    tenant: Option<String>,
    standing: Option<Standing>,
    gate: Gate,
}

/// Lets in who may read and tells the handler who that is.
pub(super) async fn admit(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let access = &app.access;
    let shown = shown(request.headers(), request.uri(), access.token_in_query)?;
    let bearer = match shown {
        // Where no token can be checked, as in a demonstration, one says nothing.
        Some(token) if access.takes_tokens => {
            let admission = access
                .gate
                .check(&token, unix_now_s())
                .map_err(|denied| ApiError::unauthenticated(denied.to_string()))?;
            if !admission.grant.read {
                return Err(ApiError::forbidden("the credential may not read"));
            }
            let tenant = Some(admission.grant.tenant.to_string());
            Bearer { tenant, standing: Some(admission.standing), gate: access.gate.clone() }
        }
        _ if access.anonymous => Bearer { tenant: None, standing: None, gate: Gate::default() },
        _ => return Err(ApiError::unauthenticated("a credential is needed")),
    };
    if access.token_in_query {
        *request.uri_mut() = without_token(request.uri());
    }
    request.extensions_mut().insert(bearer);
    Ok(next.run(request).await)
}

/// The one token of a request.
fn shown(headers: &HeaderMap, uri: &Uri, in_query: bool) -> Result<Option<String>, ApiError> {
    let mut found = Vec::new();
    for value in headers.get_all(header::AUTHORIZATION) {
        match value.to_str().ok().and_then(|value| value.split_once(' ')) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                found.push(token.trim().to_owned());
            }
            _ => return Err(ApiError::bad("the header Authorization is not Bearer")),
        }
    }
    let entries = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let entries = entries.filter_map(|value| token_entry([value.to_str().ok()?]));
    found.extend(entries.map(str::to_owned));
    if in_query {
        let pairs = uri.query().unwrap_or_default().split('&');
        found.extend(pairs.filter_map(|pair| pair.strip_prefix("token=")).map(str::to_owned));
    }
    match found.len() {
        0 | 1 => Ok(found.pop()),
        _ => Err(ApiError::bad("the request has more than one credential")),
    }
}

fn without_token(uri: &Uri) -> Uri {
    let Some(query) = uri.query() else { return uri.clone() };
    let rest: Vec<&str> =
        query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("token=")).collect();
    let path = uri.path();
    let text = if rest.is_empty() { path.to_owned() } else { format!("{path}?{}", rest.join("&")) };
    // A part of a valid address is one.
    text.parse().unwrap_or_default()
}

impl Bearer {
    /// The tenant to look for, where `asked` was asked for; none is all.
    ///
    /// # Errors
    /// 403: it is another's.
    pub(super) fn tenant(&self, asked: Option<String>) -> Result<Option<String>, ApiError> {
        match (&self.tenant, asked) {
            (None, asked) => Ok(asked),
            (Some(own), None) => Ok(Some(own.clone())),
            (Some(own), Some(asked)) if *own == asked => Ok(Some(asked)),
            (Some(_), Some(_)) => Err(ApiError::forbidden("the credential is of another tenant")),
        }
    }

    /// Narrows a subscription to what may be read; false if it asks for more.
    pub(super) fn narrow(&self, subscription: &mut Subscription) -> bool {
        let Some(own) = &self.tenant else { return true };
        if subscription.tenants.iter().any(|asked| asked != own) {
            return false;
        }
        subscription.tenants = vec![own.clone()];
        true
    }

    /// Waits until the credential has expired or was revoked.
    pub(super) async fn ended(&self) {
        let Some(standing) = &self.standing else { return std::future::pending().await };
        while self.gate.holds(standing, unix_now_s()) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leaves_the_address_before_anybody_else_sees_it() {
        for (before, after) in [
            ("/v1/last", "/v1/last"),
            ("/v1/last?token=a.b", "/v1/last"),
            ("/v1/last?device=x&token=a.b&key=%20y", "/v1/last?device=x&key=%20y"),
        ] {
            assert_eq!(without_token(&before.parse().expect("an address")), *after);
        }
    }
}
