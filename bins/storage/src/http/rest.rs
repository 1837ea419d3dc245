//! Last values, history and trends over HTTP.
//!
//! Answers about the lake carry an ETag made of the files and unflushed rows they rest on: asking
//! again costs a listing, not a reading, for as long as nothing that could change the answer came.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use axum::{
    Extension, Json,
    extract::{Query, RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use forebay_ops::Duration;
use serde::Serialize;
use serde_json::json;

use super::{App, Tails, access::Bearer, error::ApiError, params::Params};
use crate::{
    read::{
        Filter, LakeFiles, Order, ReadError, Tail as _, history as read_history,
        trend as read_trend,
    },
    registry::describe_last,
};

/// Last values in one answer.
const LAST_MAX: usize = 10_000;
/// Points in one answer: about 10 MB of JSON.
const POINTS_MAX: usize = 100_000;
/// Points unless asked otherwise.
const POINTS_DEFAULT: usize = 1_000;
/// Intervals in one answer.
const BUCKETS_MAX: i64 = 10_000;

type Pairs = Query<Vec<(String, String)>>;

/// `GET /v1/last?device=&prefix=&type=&location=&tenant=&key=&limit=`: all optional; `device`,
/// `type`, `location` and `key` repeatable.
pub(super) async fn last(
    State(app): State<Arc<App>>,
    Extension(bearer): Extension<Bearer>,
    Query(pairs): Pairs,
) -> Result<Response, ApiError> {
    let mut params = Params::new(pairs);
    let devices = params.all("device");
    let keys = params.all("key");
    let types = params.all("type");
    let locations = params.all("location");
    let prefix = params.text("prefix")?;
    let tenant = bearer.tenant(params.text("tenant")?)?;
    let limit = params.count("limit", POINTS_DEFAULT, LAST_MAX)?;
    params.finish()?;
    let last = app.last.as_ref().ok_or_else(|| ApiError::disabled("the live feed"))?;
    let registry = app.registry.get();
    if registry.is_empty() && !(types.is_empty() && locations.is_empty()) {
        let reason = "type and location cannot be matched: no device registry is configured";
        return Err(ApiError::bad(reason));
    }
    let any = |wanted: &[String], found: Option<&str>| {
        wanted.is_empty() || found.is_some_and(|found| wanted.iter().any(|text| text == found))
    };
    let is_there = |found_tenant: &str, device: &str| {
        let listed = registry.get(found_tenant, device);
        any(&types, listed.and_then(|listed| listed.device_type.as_deref()))
            && any(&locations, listed.and_then(|listed| listed.location.as_deref()))
    };
    let wants = |found_tenant: &str, device: &str, key: &str| {
        tenant.as_deref().is_none_or(|wanted| wanted == found_tenant)
            && prefix.as_deref().is_none_or(|prefix| device.starts_with(prefix))
            && (devices.is_empty() || devices.iter().any(|wanted| wanted == device))
            && (keys.is_empty() || keys.iter().any(|wanted| wanted == key))
            && is_there(found_tenant, device)
    };
    let (mut values, at, truncated) = last.select(limit, &wants);
    describe_last(&mut values, &registry);
    let headers = [(header::CACHE_CONTROL, "no-store")];
    Ok((headers, Json(json!({ "values": values, "at": at, "truncated": truncated })))
        .into_response())
}

/// `GET /v1/history?device=&key=&tenant=&from=&to=&order=asc|desc&limit=`: `device` required.
pub(super) async fn history(
    State(app): State<Arc<App>>,
    Extension(bearer): Extension<Bearer>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    Query(pairs): Pairs,
) -> Result<Response, ApiError> {
    let mut params = Params::new(pairs);
    let filter = series(&mut params, &bearer)?;
    let order = params
        .word("order", &[("asc", Order::Ascending), ("desc", Order::Descending)])?
        .unwrap_or_default();
    let limit = params.count("limit", POINTS_DEFAULT, POINTS_MAX)?;
    params.finish()?;
    answer(app, &headers, query, filter, move |lake, tails, filter| {
        read_history(lake, tails, filter, order, limit)
    })
    .await
}

/// `GET /v1/trend?device=&key=&tenant=&from=&to=&interval=`: `device`, `key`, `from`, `to` and
/// `interval` (such as `1m`) required.
pub(super) async fn trend(
    State(app): State<Arc<App>>,
    Extension(bearer): Extension<Bearer>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    Query(pairs): Pairs,
) -> Result<Response, ApiError> {
    let mut params = Params::new(pairs);
    let filter = series(&mut params, &bearer)?;
    let interval: Option<Duration> = params.parsed("interval", "a duration such as 1m")?;
    params.finish()?;
    let missing = |name: &str| ApiError::bad(format!("{name} is missing"));
    if filter.key.is_none() {
        return Err(missing("key"));
    }
    let from_us = filter.from_us.ok_or_else(|| missing("from"))?;
    let to_us = filter.to_us.ok_or_else(|| missing("to"))?;
    let interval = interval.ok_or_else(|| missing("interval"))?;
    let interval_us = i64::try_from(interval.as_micros()).unwrap_or(i64::MAX);
    if interval_us == 0 {
        return Err(ApiError::bad("interval must be longer than zero"));
    }
    let buckets = to_us.saturating_sub(from_us) / interval_us;
    if buckets > BUCKETS_MAX {
        return Err(ApiError::bad(format!(
            "the range has {buckets} intervals, the limit is {BUCKETS_MAX}: take a longer interval"
        )));
    }
    answer(app, &headers, query, filter, move |lake, tails, filter| {
        read_trend(lake, tails, filter, interval_us)
    })
    .await
}

/// The series and range of a query.
fn series(params: &mut Params, bearer: &Bearer) -> Result<Filter, ApiError> {
    let filter = Filter {
        device: Some(params.required("device")?),
        key: params.text("key")?,
        tenant: bearer.tenant(params.text("tenant")?)?,
        from_us: params.time("from")?,
        to_us: params.time("to")?,
    };
    if let (Some(from_us), Some(to_us)) = (filter.from_us, filter.to_us)
        && from_us >= to_us
    {
        return Err(ApiError::bad("from must be before to"));
    }
    Ok(filter)
}

/// Runs a query on a thread where it may take its time, unless the reader has the answer.
async fn answer<T: Serialize + Send + 'static>(
    app: Arc<App>,
    headers: &HeaderMap,
    query: Option<String>,
    filter: Filter,
    read: impl FnOnce(&LakeFiles, &Tails, &Filter) -> Result<T, ReadError> + Send + 'static,
) -> Result<Response, ApiError> {
    let lake = app.lake.clone().ok_or_else(|| ApiError::disabled("the lake"))?;
    let known: Option<String> =
        headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let permit = app.queries.clone().acquire_owned().await;
    let permit = permit.map_err(|_| ApiError::unavailable("this process is ending"))?;
    let work = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let tag = etag(&lake, &app.tails, &filter, query.as_deref().unwrap_or_default())?;
        if known.is_some_and(|known| known.split(',').any(|known| known.trim() == tag)) {
            return Ok((tag, None));
        }
        let found = read(&lake, &app.tails, &filter)?;
        let body = serde_json::to_vec(&found).map_err(|error| ReadError::Damaged {
            path: lake.root().to_owned(),
            reason: error.to_string(),
        })?;
        Ok((tag, Some(body)))
    });
    let done: Result<_, ReadError> =
        work.await.map_err(|error| ApiError::internal(error.to_string()))?;
    let (tag, body) = done.map_err(|error| {
        tracing::error!(%error, "a query cannot be answered");
        ApiError::internal(error.to_string())
    })?;
    let headers = [
        (header::ETAG, tag),
        // Kept, and asked about each time: readings may come late for any range.
        (header::CACHE_CONTROL, "private, no-cache".to_owned()),
        (header::VARY, "Authorization".to_owned()),
        (header::CONTENT_TYPE, "application/json".to_owned()),
    ];
    Ok(match body {
        Some(body) => (headers, body).into_response(),
        None => (StatusCode::NOT_MODIFIED, headers).into_response(),
    })
}

/// A name for the rows an answer rests on.
///
/// Taken before the answer is: rows that come in between give the newer answer an older name, and
/// no later answer has that name.
fn etag(
    lake: &LakeFiles,
    tails: &Tails,
    filter: &Filter,
    query: &str,
) -> Result<String, ReadError> {
    let mut hasher = DefaultHasher::new();
    query.hash(&mut hasher);
    filter.tenant.hash(&mut hasher);
    let marks = tails.visit(filter, &mut |row| {
        (row.entry.get(), row.index).hash(&mut hasher);
    });
    for file in lake.wanted(filter)? {
        let in_tail =
            marks.iter().any(|mark| mark.queue == file.name.queue && file.name.first >= mark.first);
        if !in_tail {
            file.name.hash(&mut hasher);
            file.hour.hash(&mut hasher);
        }
    }
    Ok(format!("\"{:016x}\"", hasher.finish()))
}
