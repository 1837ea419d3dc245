//! `forebay drain`: takes a running tier out of service before it is scaled in, and puts it back.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use clap::{Args, Subcommand};
use forebay_ops::drain::TokenSource;
use serde_json::Value;

use crate::{
    EXIT_LATE,
    admin::{self, Port, Which},
};

/// The token was not taken (`EX_NOPERM` of sysexits.h).
const EXIT_REFUSED: u8 = 77;
/// How often a drain that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Longest time a tier may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Takes a running tier out of service, looks how far that is, or puts it back.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Debug, Subcommand)]
enum Deed {
    /// Not ready, peers sent away, everything handed on; the process stays.
    Start(Start),
    /// Serve again.
    Cancel(Target),
    /// Tell how far it is.
    State(Target),
}

#[derive(Debug, Args)]
struct Start {
    #[command(flatten)]
    target: Target,
    /// Wait until nothing is left, at most so long; exit 75 if something still is.
    #[arg(long, value_name = "TIME")]
    wait: Option<forebay_ops::Duration>,
}

#[derive(Debug, Args)]
struct Target {
    #[command(flatten)]
    which: Which,
    /// File with the token [default: the variable FOREBAY_ADMIN_TOKEN].
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The tier did not take the token.
#[derive(Debug)]
struct Refused;

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let (method, target, wait) = match &options.deed {
        Deed::Start(start) => ("POST", &start.target, start.wait),
        Deed::Cancel(target) => ("DELETE", target, None),
        Deed::State(target) => ("GET", target, None),
    };
    let ports = target.which.ports()?;
    ensure!(ports.len() == 1, "name one tier: --admin ADDRESS, or --tier and --config");
    let port = &ports[0];
    let token = TokenSource::new(target.token_file.as_deref()).token()?;
    let Ok(mut state) = ask(port, method, &token)? else {
        eprintln!("forebay: {port} does not take this token");
        return Ok(ExitCode::from(EXIT_REFUSED));
    };
    let mut late = false;
    if let Some(wait) = wait {
        let end = Instant::now() + wait.get();
        while state["phase"] != "drained" && !late {
            late = Instant::now() >= end;
            std::thread::sleep(LOOK_EVERY.min(end.saturating_duration_since(Instant::now())));
            if let Ok(now) = ask(port, "GET", &token)? {
                state = now;
            }
        }
    }
    show(&state, target.json);
    Ok(if late { ExitCode::from(EXIT_LATE) } else { ExitCode::SUCCESS })
}

fn ask(port: &Port, method: &str, token: &str) -> Result<Result<Value, Refused>> {
    let answer = admin::ask(&port.address, method, "/v1/drain", Some(token), ANSWER_WITHIN)?;
    match answer.code {
        200 => Ok(Ok(serde_json::from_str(&answer.body)?)),
        403 => Ok(Err(Refused)),
        code => bail!("{port} says {code}: {}", answer.body.trim()),
    }
}

fn show(state: &Value, json: bool) {
    if json {
        println!("{state}");
        return;
    }
    let remains = &state["remains"];
    let number = |key: &str| remains[key].as_u64().unwrap_or(0);
    println!(
        "{}; left: {} connections, {} entries, {} bytes",
        state["phase"].as_str().unwrap_or("unknown"),
        number("connections"),
        number("entries"),
        number("bytes")
    );
}
