//! How all tiers stand, for the web page: the metrics of this process and of those that are named.
//!
//! Other tiers are asked at their admin ports, with a short deadline, and only while somebody
//! looks: the answer is kept for a second. What cannot be had is shown as away.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Json, extract::State, http::header, response::IntoResponse};
use prometheus::{Registry, proto::MetricType};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Mutex,
    time::timeout,
};

use super::App;

/// How long an answer is used again.
const KEPT: Duration = Duration::from_millis(900);
/// Longest time another tier gets.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);
/// Longest answer that is looked at.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Another tier's admin port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierPoll {
    /// Its name on the page.
    pub name: String,
    /// Its admin address, `host:port`; the name is resolved at each look.
    pub admin: String,
}

/// Where the status comes from.
pub struct Status {
    registry: Registry,
    tiers: Vec<TierPoll>,
    kept: Mutex<Option<(Instant, Arc<Value>)>>,
}

impl Status {
    /// The metrics of `registry`, and those of other tiers.
    #[must_use]
    pub fn new(registry: &Registry, tiers: Vec<TierPoll>) -> Self {
        Self { registry: registry.clone(), tiers, kept: Mutex::new(None) }
    }

    async fn get(&self) -> Arc<Value> {
        // Held over the asking: whoever comes meanwhile gets the same answer.
        let mut kept = self.kept.lock().await;
        if let Some((made, value)) = &*kept
            && made.elapsed() < KEPT
        {
            return value.clone();
        }
        let own = own_metrics(&self.registry);
        let mut tiers = Map::new();
        for tier in &self.tiers {
            // In one process all tiers may share a registry: then nobody needs to be asked.
            let prefix = format!("forebay_{}_", tier.name);
            let metrics = if own.keys().any(|name| name.starts_with(&prefix)) {
                Some(BTreeMap::new())
            } else {
                timeout(ASK_TIMEOUT, ask(&tier.admin)).await.ok().flatten()
            };
            let up = metrics.is_some();
            tiers.insert(
                tier.name.clone(),
                json!({ "up": up, "metrics": metrics.unwrap_or_default() }),
            );
        }
        tiers.insert("storage".to_owned(), json!({ "up": true, "metrics": own }));
        let value = Arc::new(json!({ "tiers": tiers }));
        *kept = Some((Instant::now(), value.clone()));
        value
    }
}

impl std::fmt::Debug for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Status").field("tiers", &self.tiers).finish_non_exhaustive()
    }
}

/// `GET /v1/status`.
pub(super) async fn status(State(app): State<Arc<App>>) -> impl IntoResponse {
    let value = app.status.get().await;
    ([(header::CACHE_CONTROL, "no-store")], Json((*value).clone()))
}

/// Counters and gauges of this process, each under its name with its labels.
fn own_metrics(registry: &Registry) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    for family in registry.gather() {
        for metric in family.get_metric() {
            let value = match family.get_field_type() {
                MetricType::COUNTER => metric.get_counter().get_value(),
                MetricType::GAUGE => metric.get_gauge().get_value(),
                _ => continue,
            };
            let labels: Vec<String> = metric
                .get_label()
                .iter()
                .map(|label| format!("{}=\"{}\"", label.name(), label.value()))
                .collect();
            let name = family.name();
            let name = if labels.is_empty() {
                name.to_owned()
            } else {
                format!("{name}{{{}}}", labels.join(","))
            };
            found.insert(name, value);
        }
    }
    found
}

/// The metrics of another tier; `None` if it does not answer.
async fn ask(admin: &str) -> Option<BTreeMap<String, f64>> {
    let mut stream = TcpStream::connect(admin).await.ok()?;
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {admin}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await.ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split(' ').nth(1).filter(|code| *code == "200")?;
    Some(parse(body))
}

/// The counters and gauges of a text in the Prometheus format.
fn parse(text: &str) -> BTreeMap<String, f64> {
    text.lines()
        .filter(|line| line.starts_with("forebay_") && !line.contains("_bucket{"))
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_of_another_tier_are_read_by_name_and_labels() {
        let text = "# HELP forebay_a x\nforebay_a{queue=\"log\"} 3\nforebay_b_total 4.5\n\
                    forebay_c_seconds_bucket{le=\"1\"} 9\nprocess_x 1\nbroken\n";
        let expected = [("forebay_a{queue=\"log\"}", 3.0), ("forebay_b_total", 4.5)];
        assert_eq!(parse(text), expected.map(|(name, value)| (name.to_owned(), value)).into());
    }
}
