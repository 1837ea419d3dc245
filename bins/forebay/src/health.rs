//! `forebay health`: whether tiers are well, by exit code: the health check of a container without
//! a shell.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use crate::admin::{self, Which};

/// Asks `/healthz` and `/readyz` of tiers; exit 0 if all are well and ready, 1 if not.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    which: Which,
    /// Only whether the processes are alive: a tier that drains, or has no room, is not ready and
    /// yet well.
    #[arg(long)]
    live: bool,
    /// Longest time each tier may take to answer.
    #[arg(long, default_value = "2s", value_name = "TIME")]
    timeout: forebay_ops::Duration,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let mut tiers = serde_json::Map::new();
    let mut well = true;
    for port in options.which.ports()? {
        let faults = faults(&port.address, options.live, options.timeout.get());
        well &= faults.is_empty();
        if !options.json {
            if faults.is_empty() {
                println!("{port}: ok");
            }
            for fault in &faults {
                println!("{port}: {fault}");
            }
        }
        tiers.insert(port.name, json!({ "ok": faults.is_empty(), "faults": faults }));
    }
    if options.json {
        println!("{}", json!({ "ok": well, "tiers": tiers }));
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is wrong with one tier, in words.
fn faults(address: &str, live: bool, within: Duration) -> Vec<String> {
    let paths: &[&str] = if live { &["/healthz"] } else { &["/healthz", "/readyz"] };
    let mut faults = Vec::new();
    for path in paths {
        match admin::get(address, path, within) {
            Ok(answer) if answer.code == 200 => {}
            Ok(answer) => {
                let reasons = reasons(&answer.body);
                faults.push(format!("{path} says {}: {reasons}", answer.code));
            }
            Err(error) => {
                faults.push(format!("{path} is not answered: {error}"));
                break;
            }
        }
    }
    faults
}

/// The checks of an answer that are not well.
fn reasons(body: &str) -> String {
    let checks = serde_json::from_str::<Value>(body).ok();
    let checks = checks.as_ref().and_then(|body| body["checks"].as_object());
    let Some(checks) = checks else { return body.trim().to_owned() };
    let bad = checks.iter().filter(|(_, state)| *state != "ok");
    bad.map(|(name, state)| format!("{name}: {}", state.as_str().unwrap_or_default()))
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_well_is_told() {
        let body = r#"{"ok":false,"checks":{"running":"ok","queue 0":"the ring is full"}}"#;
        assert_eq!(reasons(body), "queue 0: the ring is full");
        assert_eq!(reasons("gateway\n"), "gateway");
    }
}
