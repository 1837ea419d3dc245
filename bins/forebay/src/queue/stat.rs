//! `forebay queue stat`: what a queue holds and how far each reader is.

use std::process::ExitCode;

use anyhow::Result;
use forebay_queue::tools::Image;
use serde::Serialize;

use super::Place;
use crate::words::{bytes, thousands};

#[derive(Serialize)]
struct Stat {
    dir: String,
    id: String,
    live: bool,
    capacity_bytes: u64,
    used_bytes: u64,
    entries: u64,
    last: String,
    oldest_time_us: Option<u64>,
    readers: Vec<Reader>,
}

#[derive(Serialize)]
struct Reader {
    name: String,
    committed: String,
    pending_entries: u64,
    pending_bytes: u64,
}

pub(super) fn run(place: &Place) -> Result<ExitCode> {
    let dir = place.queue()?;
    let image = Image::open(&dir)?;
    let readers = image.readers().into_iter().map(|reader| Reader {
        pending_entries: image.entries().filter(|entry| entry.seq > reader.committed).count()
            as u64,
        name: reader.name,
        committed: reader.committed.to_string(),
        pending_bytes: reader.pending_bytes,
    });
    let stat = Stat {
        dir: dir.display().to_string(),
        id: image.id().to_string(),
        live: image.is_live(),
        capacity_bytes: image.capacity_bytes(),
        used_bytes: image.used_bytes(),
        entries: image.verdict().entries,
        last: image.last().to_string(),
        oldest_time_us: image.entries().next().map(|entry| entry.time_us),
        readers: readers.collect(),
    };
    if place.json {
        println!("{}", serde_json::to_string(&stat)?);
    } else {
        print(&stat);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(stat: &Stat) {
    println!("queue     {} in {}", stat.id, stat.dir);
    println!(
        "state     {}",
        if stat.live { "open by a running tier" } else { "nobody has it open" }
    );
    println!("used      {} of {}", bytes(stat.used_bytes), bytes(stat.capacity_bytes));
    println!("entries   {}, the last is {}", thousands(stat.entries), stat.last);
    for Reader { name, committed, pending_entries, pending_bytes } in &stat.readers {
        println!(
            "reader    {name}: committed {committed}, {} entries ({}) to go",
            thousands(*pending_entries),
            bytes(*pending_bytes)
        );
    }
}
