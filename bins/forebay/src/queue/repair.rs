//! `forebay queue repair`: mends a damaged queue, after making a copy.

use std::process::ExitCode;

use anyhow::Result;
use forebay_queue::tools;
use serde_json::json;

use super::{EXIT_CORRUPT, Place, verify};

pub(super) fn run(place: &Place) -> Result<ExitCode> {
    let repaired = tools::repair(place.queue()?)?;
    let copy = repaired.copy.as_ref().map(|copy| copy.display().to_string());
    if place.json {
        let (before, after) = (verify::as_json(&repaired.before), verify::as_json(&repaired.after));
        println!("{}", json!({ "before": before, "after": after, "copy": copy }));
    } else {
        verify::print(&repaired.before);
        match copy {
            None => println!("nothing had to be done"),
            Some(copy) => {
                println!("mended; the file as it was is {copy}");
                verify::print(&repaired.after);
            }
        }
    }
    let clean = repaired.after.is_clean();
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CORRUPT) })
}
