//! `forebay where`: how old the oldest message is that is not stored, per tier and sink, and where
//! one message is.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::{
    admin::{self, Port, Which},
    scrape::Page,
};

/// Longest time a tier may take to look through its ring.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Tells how old the oldest unstored message is, per tier and sink, and where one message is.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    which: Which,
    /// Look for a message of this device.
    #[arg(long, value_name = "DEVICE", requires_all = ["session", "seq"])]
    device: Option<String>,
    /// Its session.
    #[arg(long, value_name = "NUMBER", requires = "device")]
    session: Option<u64>,
    /// Its number in the session.
    #[arg(long, value_name = "NUMBER", requires = "device")]
    seq: Option<u64>,
    /// Its tenant [default: that of an installation without tenants].
    #[arg(long, value_name = "TENANT", requires = "device")]
    tenant: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Exit 1 if a tier does not answer, or no tier knows the message.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let ports = options.which.ports()?;
    let mut tiers = Map::new();
    let mut found = false;
    let mut away = false;
    for port in &ports {
        let told = match tier(port, options) {
            Ok(told) => told,
            Err(error) => {
                away = true;
                json!({ "error": format!("{error:#}") })
            }
        };
        found |= told["message"]["found"] == true;
        tiers.insert(port.name.clone(), told);
    }
    ensure!(!tiers.is_empty(), "no tier is named");
    if options.json {
        println!(
            "{}",
            json!({ "tiers": tiers, "found": options.device.is_some().then_some(found) })
        );
    } else {
        for (name, told) in &tiers {
            print(name, told);
        }
        if options.device.is_some() && !found {
            println!("no tier knows the message: it was never acknowledged, or is long stored");
        }
    }
    let failed = away || (options.device.is_some() && !found);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What one tier tells.
fn tier(port: &Port, options: &Options) -> Result<Value> {
    let metrics = admin::get(&port.address, "/metrics", ANSWER_WITHIN)
        .with_context(|| format!("nothing answers at {}", port.address))?;
    ensure!(metrics.code == 200, "/metrics says {}", metrics.code);
    let page = Page::of(metrics.body);
    let mut told = json!({ "oldest": ages(&page, &port.address)? });
    let Some(device) = &options.device else { return Ok(told) };
    if page.sum("forebay_front_messages_total", &[]).is_none()
        && page.sum("forebay_middle_sources", &[]).is_none()
    {
        // A storage tier keeps no messages: what its sinks have committed, the middle knows.
        return Ok(told);
    }
    let mut query = format!("device={}", escaped(device));
    for (name, value) in [("session", options.session), ("seq", options.seq)] {
        if let Some(value) = value {
            query.push_str(&format!("&{name}={value}"));
        }
    }
    if let Some(tenant) = &options.tenant {
        query.push_str(&format!("&tenant={}", escaped(tenant)));
    }
    let answer = admin::get(&port.address, &format!("/v1/where?{query}"), ANSWER_WITHIN)?;
    if answer.code != 200 {
        bail!("/v1/where says {}: {}", answer.code, answer.body.trim());
    }
    told["message"] = serde_json::from_str(&answer.body)?;
    Ok(told)
}

/// Seconds that the oldest message waits: by partition in a front, by consumer in a middle, by sink
/// in a storage tier.
fn ages(page: &Page, address: &str) -> Result<Value> {
    let mut ages = Map::new();
    for (labels, age) in page.each("forebay_front_queue_oldest_age_seconds") {
        ages.insert(format!("ring {labels}"), json!(age));
    }
    for (labels, age) in page.each("forebay_storage_sink_lag_seconds") {
        ages.insert(format!("sink {labels}"), json!(age));
    }
    if page.sum("forebay_middle_sources", &[]).is_some() {
        let status = admin::get(address, "/v1/status", ANSWER_WITHIN)?;
        let status: Value = serde_json::from_str(&status.body)?;
        for consumer in status["consumers"].as_array().into_iter().flatten() {
            let name = consumer["consumer"].as_str().unwrap_or_default();
            ages.insert(format!("consumer {name}"), consumer["oldest_age_seconds"].clone());
        }
    }
    Ok(ages.into())
}

fn print(name: &str, told: &Value) {
    if let Some(error) = told["error"].as_str() {
        println!("{name}: {error}");
        return;
    }
    for (what, age) in told["oldest"].as_object().into_iter().flatten() {
        match age.as_f64().unwrap_or(0.0) {
            0.0 => println!("{name}, {what}: nothing waits"),
            age => println!("{name}, {what}: the oldest waits for {age:.1} s"),
        }
    }
    let message = &told["message"];
    if message["found"] != true {
        return;
    }
    let place = message["entry"].as_str().map(|entry| format!("entry {entry}"));
    let place = place.unwrap_or_else(|| "no longer kept".to_owned());
    match (message["acked_by_middle"].as_bool(), message["committed_by"].as_object()) {
        (Some(acked), _) => {
            println!(
                "{name}: {place}, {}",
                if acked { "the middle has it" } else { "waits for the middle" }
            );
        }
        (_, Some(consumers)) => {
            println!("{name}: {place}");
            for (consumer, committed) in consumers {
                let state = if *committed == true { "stored" } else { "waits" };
                println!("{name}: {consumer}: {state}");
            }
        }
        _ => println!("{name}: {place}"),
    }
}

/// A text as a value behind a question mark.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_add_a_parameter() {
        assert_eq!(escaped("pump/7&seq=1 é"), "pump%2F7%26seq%3D1%20%C3%A9");
    }
}
