//! `forebay queue verify`: checks every byte that was promised.

use std::process::ExitCode;

use anyhow::Result;
use forebay_queue::tools::{Image, Verdict};
use serde_json::{Value as Json, json};

use super::{EXIT_CORRUPT, Place};
use crate::words::thousands;

pub(super) fn run(place: &Place) -> Result<ExitCode> {
    let dir = place.queue()?;
    let image = Image::open(&dir)?;
    let verdict = image.verdict();
    if place.json {
        println!("{}", as_json(&verdict));
    } else {
        print(&verdict);
    }
    Ok(if verdict.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CORRUPT) })
}

/// The verdict as a JSON object.
pub(super) fn as_json(verdict: &Verdict) -> Json {
    let damaged: Vec<Json> = verdict
        .damaged
        .iter()
        .map(|range| {
            json!({
                "offset_bytes": range.offset_bytes,
                "len_bytes": range.len_bytes,
                "entries_lost": range.entries_lost,
            })
        })
        .collect();
    json!({
        "clean": verdict.is_clean(),
        "entries": verdict.entries,
        "damaged": damaged,
        "slot_damaged": verdict.slot_damaged,
        "torn_tail": verdict.torn_tail,
    })
}

/// The verdict for people.
pub(super) fn print(verdict: &Verdict) {
    println!("{} intact entries", thousands(verdict.entries));
    for range in &verdict.damaged {
        println!(
            "CORRUPT: {} bytes at offset {}: {} entries lost",
            range.len_bytes, range.offset_bytes, range.entries_lost
        );
    }
    if verdict.slot_damaged {
        println!("CORRUPT: one of the two checkpoints; the other one serves");
    }
    if verdict.torn_tail {
        println!("an unfinished entry behind the end: normal after a crash, the next open cuts it");
    }
    println!(
        "{}",
        if verdict.is_clean() { "clean" } else { "damaged: see `forebay queue repair`" }
    );
}
