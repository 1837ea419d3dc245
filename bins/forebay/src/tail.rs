//! `forebay tail`: follows the live feed from a terminal.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use crate::credentials::Credentials;
use anyhow::{Context as _, Result};
use clap::Args;
use forebay_client::{Live, LiveItem, LiveOptions};
use forebay_model::{Timestamp, Value};
use forebay_ops::Shutdown;
use forebay_wire::live::{
    Event, LastValue, LiveReading, Missed, Mode, ServerFrame, Snapshot, Subscription,
};

/// Follows the live feed until Ctrl-C; connects again by itself, and says what it missed.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// WebSocket address of a storage tier.
    #[arg(long, default_value = "ws://127.0.0.1:7420", value_name = "URL")]
    url: String,
    /// Only this device; may be given several times.
    #[arg(long, value_name = "ID")]
    device: Vec<String>,
    /// Only devices whose id begins so.
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// Only readings of this key; may be given several times.
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    /// Begin with the last values.
    #[arg(long)]
    snapshot: bool,
    /// When too slow, skip to the newest reading of each device instead of saying what was missed.
    #[arg(long)]
    latest: bool,
    /// End after so many lines: events and last values.
    #[arg(long, value_name = "N")]
    count: Option<usize>,
    #[command(flatten)]
    credentials: Credentials,
    /// Print each frame as a line of JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let shutdown = Shutdown::on_signals().context("cannot watch for signals")?;
    let subscription = Subscription {
        devices: options.device.clone(),
        prefix: options.prefix.clone(),
        keys: options.key.clone(),
        mode: if options.latest { Mode::Latest } else { Mode::Every },
        snapshot: options.snapshot,
        ..Subscription::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            () = shutdown.draining() => Ok(ExitCode::SUCCESS),
            ended = follow(options, subscription) => ended,
        }
    })
}

async fn follow(options: &Options, subscription: Subscription) -> Result<ExitCode> {
    let live_options = LiveOptions {
        token: options.credentials.token()?,
        tls: options.credentials.tls()?,
        ..LiveOptions::default()
    };
    let mut live = Live::connect(&options.url, subscription, live_options).await?;
    let mut left = options.count.unwrap_or(usize::MAX);
    while left > 0 {
        let Some(item) = live.next().await else { break };
        let item = item?;
        let text = if options.json { json(item) } else { words(&item) };
        let lines: String = text.split_inclusive('\n').take(left).collect();
        left -= lines.lines().count();
        match io::stdout().lock().write_all(lines.as_bytes()) {
            Ok(()) => {}
            // `forebay tail | head` is a way to end it.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(ExitCode::SUCCESS);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The frame as the server sent it, on a line.
fn json(item: LiveItem) -> String {
    let frame = match item {
        LiveItem::Event(event) => ServerFrame::Event(*event),
        LiveItem::Missed(missed) => ServerFrame::Missed(missed),
        LiveItem::Snapshot(snapshot) => ServerFrame::Snapshot(snapshot),
    };
    let mut line = Vec::new();
    frame.encode(&mut line);
    line.push(b'\n');
    String::from_utf8_lossy(&line).into_owned()
}

fn words(item: &LiveItem) -> String {
    match item {
        LiveItem::Event(event) => event_words(event),
        LiveItem::Missed(Missed { count: Some(count), .. }) => {
            format!("-- missed {count} events\n")
        }
        LiveItem::Missed(_) => "-- missed events that are no longer held\n".to_owned(),
        LiveItem::Snapshot(Snapshot { values, .. }) => values
            .iter()
            .map(|LastValue { device, received, reading, .. }| {
                format!("{} {device} {} (last)\n", clock(*received), reading_words(reading))
            })
            .collect(),
    }
}

fn event_words(event: &Event<'_>) -> String {
    let readings: Vec<String> = event.readings.iter().map(reading_words).collect();
    let what = match &event.opaque {
        Some(opaque) => format!("{} of {} bytes", opaque.content_type, opaque.payload.len()),
        None => readings.join(" "),
    };
    format!("{} {} #{} {what}\n", clock(event.received), event.device, event.seq)
}

fn reading_words(reading: &LiveReading<'_>) -> String {
    let value = match &reading.value {
        Value::Float(number) => number.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Bool(on) => on.to_string(),
        // A device chose the text: nothing in it may move the cursor.
        Value::Text(text) => format!("{text:?}"),
    };
    format!("{}={value}{}", reading.key, reading.unit.as_deref().unwrap_or_default())
}

/// The time of day in UTC, to the millisecond.
fn clock(time: Timestamp) -> String {
    let millis = time.micros() / 1000 % 86_400_000;
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    let (seconds, millis) = (millis / 1000 % 60, millis % 1000);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{millis:03}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_wrote_cannot_move_the_cursor() {
        let reading = LiveReading {
            index: 0,
            key: "state".into(),
            value: Value::Text("\u{1b}[2Jgone".into()),
            unit: None,
            suspect: false,
            time: None,
        };
        assert_eq!(reading_words(&reading), "state=\"\\u{1b}[2Jgone\"");
    }

    #[test]
    fn times_are_shown_to_the_millisecond() {
        let time = Timestamp::from_micros(1_795_356_123_456_789).unwrap();
        assert_eq!(clock(time), "14:02:03.456");
    }
}
