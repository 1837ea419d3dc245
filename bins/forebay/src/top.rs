//! `forebay top`: the tiers at a glance, from their admin ports.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Args;
use forebay_ops::Shutdown;
use serde_json::{Map, Value, json};

use crate::{
    admin::{self, Port, Which},
    scrape::Page,
    words::{bytes, micros, thousands},
};

/// Longest time a tier may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(1500);
/// To the upper left, and clear to the end: no flicker, and the scroll-back stays.
const HOME: &str = "\x1b[H\x1b[J";

/// Shows rates, depths, ages, ack times, sinks and live readers of all tiers, until Ctrl-C.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    which: Which,
    /// Time between two looks.
    #[arg(long, default_value = "1s", value_name = "TIME")]
    every: forebay_ops::Duration,
    /// Look twice, print once, and end; exit 1 if a tier does not answer.
    #[arg(long)]
    once: bool,
    /// Print JSON, one object a look.
    #[arg(long)]
    json: bool,
}

/// What the numbers of `forebay_storage_sink_state` mean.
const STATES: [&str; 4] = ["running", "retrying", "alarmed", "ended"];

/// One look at a tier.
struct Look {
    at: Instant,
    page: Option<Page>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let ports = options.which.ports()?;
    let shutdown = Shutdown::on_signals().context("cannot watch for signals")?;
    let look = |port: &Port| {
        let page = admin::get(&port.address, "/metrics", ANSWER_WITHIN).ok();
        let page = page.filter(|answer| answer.code == 200).map(|answer| Page::of(answer.body));
        Look { at: Instant::now(), page }
    };
    let mut before: Vec<Look> = ports.iter().map(look).collect();
    loop {
        if shutdown.wait_timeout(options.every.get()) {
            return Ok(ExitCode::SUCCESS);
        }
        let now: Vec<Look> = ports.iter().map(look).collect();
        let mut tiers = Map::new();
        for ((port, before), now) in ports.iter().zip(&before).zip(&now) {
            let mut told = figures(before, now);
            told["address"] = port.address.as_str().into();
            tiers.insert(port.name.clone(), told);
        }
        let mut out = io::stdout().lock();
        if options.json {
            writeln!(out, "{}", json!({ "tiers": tiers }))?;
        } else {
            let home = if !options.once && out.is_terminal() { HOME } else { "" };
            write!(out, "{home}{}", shown(&tiers))?;
        }
        out.flush()?;
        if options.once {
            let away = now.iter().any(|look| look.page.is_none());
            return Ok(if away { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
        before = now;
    }
}

/// The figures of one tier, whichever it is; several in one process share a page.
fn figures(before: &Look, now: &Look) -> Value {
    let Some(page) = &now.page else { return json!({ "up": false }) };
    let seconds = now.at.duration_since(before.at).as_secs_f64();
    let rate = |name: &str| {
        let earlier = before.page.as_ref()?.sum(name, &[])?;
        // A tier that was started again counts from 0.
        Some((page.sum(name, &[])? - earlier).max(0.0) / seconds)
    };
    let sum = |name: &str| page.sum(name, &[]);
    let oldest = |name: &str| page.each(name).into_iter().map(|(_, age)| age).reduce(f64::max);
    let mut told = Map::new();
    told.insert("up".to_owned(), true.into());
    if let Some(connections) = sum("forebay_front_connections") {
        let ack = |quantile| {
            quantile_us(before.page.as_ref(), page, "forebay_front_ack_seconds", quantile)
        };
        told.insert(
            "front".to_owned(),
            json!({
                "connections": connections,
                "messages_per_second": rate("forebay_front_messages_total"),
                "bytes_per_second": rate("forebay_front_message_bytes_total"),
                "ack_p50_us": ack(0.5),
                "ack_p99_us": ack(0.99),
                "queue_entries": sum("forebay_front_queue_entries"),
                "queue_used_bytes": sum("forebay_front_queue_used_bytes"),
                "queue_capacity_bytes": sum("forebay_front_queue_capacity_bytes"),
                "oldest_seconds": oldest("forebay_front_queue_oldest_age_seconds"),
            }),
        );
    }
    if let Some(sources) = sum("forebay_middle_sources") {
        let consumers: Map<String, Value> = page
            .each("forebay_middle_consumer_lag_bytes")
            .into_iter()
            .map(|(labels, lag)| (labels, lag.into()))
            .collect();
        told.insert(
            "middle".to_owned(),
            json!({
                "fronts": sources,
                "entries_per_second": rate("forebay_middle_entries_total"),
                "duplicates_per_second": rate("forebay_middle_duplicates_total"),
                "queue_used_bytes": sum("forebay_middle_queue_used_bytes"),
                "queue_capacity_bytes": sum("forebay_middle_queue_capacity_bytes"),
                "consumer_lag_bytes": consumers,
            }),
        );
    }
    let sinks = page.each("forebay_storage_sink_state");
    let live = sum("forebay_storage_live_clients");
    if live.is_some() || !sinks.is_empty() {
        let sinks = sinks.into_iter().map(|(labels, state)| {
            let of = |name: &str| {
                page.each(name).into_iter().find(|(other, _)| *other == labels).map(|(_, v)| v)
            };
            let state = STATES.get(state as usize);
            json!({
                "sink": labels,
                "state": state,
                "lag_entries": of("forebay_storage_sink_lag_entries"),
                "lag_seconds": of("forebay_storage_sink_lag_seconds"),
            })
        });
        let sinks: Vec<Value> = sinks.collect();
        told.insert(
            "storage".to_owned(),
            json!({
                "rows_per_second": rate("forebay_storage_sink_rows_total"),
                "live_clients": live,
                "sinks": sinks,
            }),
        );
    }
    told.into()
}

/// The upper edge of the bucket that holds the quantile of what came between two looks; of all that
/// came, if nothing did.
fn quantile_us(before: Option<&Page>, now: &Page, name: &str, quantile: f64) -> Option<u64> {
    let buckets = now.buckets(name);
    let earlier = before.map(|page| page.buckets(name)).unwrap_or_default();
    let difference: Vec<(f64, f64)> = buckets
        .iter()
        .map(|(edge, count)| {
            let was = earlier.iter().find(|(other, _)| other == edge).map_or(0.0, |(_, was)| *was);
            (*edge, count - was)
        })
        .collect();
    let total = |buckets: &[(f64, f64)]| buckets.last().map_or(0.0, |(_, count)| *count);
    let counted = if total(&difference) > 0.0 { &difference } else { &buckets };
    let wanted = total(counted) * quantile;
    let (edge, _) = counted.iter().find(|(_, count)| *count >= wanted && *count > 0.0)?;
    edge.is_finite().then_some((edge * 1e6) as u64)
}

/// The figures for people.
fn shown(tiers: &Map<String, Value>) -> String {
    let mut text = String::new();
    let count = |value: &Value| value.as_f64().map_or("-".to_owned(), |n| thousands(n as u64));
    let size = |value: &Value| value.as_f64().map_or("-".to_owned(), |n| bytes(n as u64));
    let time = |value: &Value| value.as_u64().map_or("-".to_owned(), micros);
    let age = |value: &Value| format!("{:.1} s", value.as_f64().unwrap_or(0.0));
    for (name, told) in tiers {
        if told["up"] != true {
            let address = told["address"].as_str().unwrap_or_default();
            text.push_str(&format!("{name}: nothing answers at {address}\n"));
        }
        if let Some(front) = told.get("front") {
            text.push_str(&format!(
                "front    {} devices, {} msg/s, {}/s, ack p50 {} p99 {}\n",
                count(&front["connections"]),
                count(&front["messages_per_second"]),
                size(&front["bytes_per_second"]),
                time(&front["ack_p50_us"]),
                time(&front["ack_p99_us"])
            ));
            text.push_str(&format!(
                "         ring {} of {}, {} entries to hand on, the oldest {}\n",
                size(&front["queue_used_bytes"]),
                size(&front["queue_capacity_bytes"]),
                count(&front["queue_entries"]),
                age(&front["oldest_seconds"])
            ));
        }
        if let Some(middle) = told.get("middle") {
            text.push_str(&format!(
                "middle   {} fronts, {} entries/s, {} duplicates/s, log {} of {}\n",
                count(&middle["fronts"]),
                count(&middle["entries_per_second"]),
                count(&middle["duplicates_per_second"]),
                size(&middle["queue_used_bytes"]),
                size(&middle["queue_capacity_bytes"])
            ));
            for (consumer, lag) in middle["consumer_lag_bytes"].as_object().into_iter().flatten() {
                text.push_str(&format!("         {consumer} is {} behind\n", size(lag)));
            }
        }
        if let Some(storage) = told.get("storage") {
            text.push_str(&format!(
                "storage  {} rows/s, {} live readers\n",
                count(&storage["rows_per_second"]),
                count(&storage["live_clients"])
            ));
            for sink in storage["sinks"].as_array().into_iter().flatten() {
                text.push_str(&format!(
                    "         {} {}: {} entries, {} behind\n",
                    sink["sink"].as_str().unwrap_or_default(),
                    sink["state"].as_str().unwrap_or("unknown"),
                    count(&sink["lag_entries"]),
                    age(&sink["lag_seconds"])
                ));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "forebay_front_connections 2\nforebay_front_messages_total 100\n\
        forebay_front_message_bytes_total 1000\n\
        forebay_front_ack_seconds_bucket{le=\"0.001\"} 100\n\
        forebay_front_ack_seconds_bucket{le=\"0.002\"} 100\n\
        forebay_front_ack_seconds_bucket{le=\"+Inf\"} 100\n";
    const NOW: &str = "forebay_front_connections 3\nforebay_front_messages_total 300\n\
        forebay_front_message_bytes_total 9000\n\
        forebay_front_queue_oldest_age_seconds{partition=\"a\"} 1.5\n\
        forebay_front_queue_oldest_age_seconds{partition=\"b\"} 7\n\
        forebay_front_ack_seconds_bucket{le=\"0.001\"} 110\n\
        forebay_front_ack_seconds_bucket{le=\"0.002\"} 298\n\
        forebay_front_ack_seconds_bucket{le=\"+Inf\"} 300\n";

    fn look(at: Instant, text: &str) -> Look {
        Look { at, page: Some(Page::of(text.to_owned())) }
    }

    #[test]
    fn rates_and_times_are_those_between_two_looks() {
        let start = Instant::now();
        let (before, now) = (look(start, BEFORE), look(start + Duration::from_secs(2), NOW));
        let told = figures(&before, &now);
        let front = &told["front"];
        assert_eq!(front["messages_per_second"], 100.0);
        assert_eq!(front["bytes_per_second"], 4000.0);
        assert_eq!((&front["ack_p50_us"], &front["oldest_seconds"]), (&2000.into(), &7.0.into()));
        let shown = shown(&Map::from_iter([("front".to_owned(), told)]));
        assert!(shown.contains("3 devices, 100 msg/s"), "{shown}");
    }

    #[test]
    fn a_tier_that_was_started_again_has_no_negative_rate() {
        let start = Instant::now();
        let (before, now) = (look(start, NOW), look(start + Duration::from_secs(1), BEFORE));
        assert_eq!(figures(&before, &now)["front"]["messages_per_second"], 0.0);
        let away = Look { at: start, page: None };
        assert_eq!(figures(&before, &away)["up"], false);
    }
}
