//! `forebay queue drain --to`: hands the ring of a front that will not come back to a middle.

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use forebay_front::{HandedOver, Orphan, OrphanError, config::Durability};
use forebay_ops::tls::MutualTls;
use forebay_queue::tools::Image;
use serde_json::json;

use super::EXIT_CORRUPT;
use crate::{EXIT_LATE, words::thousands};

/// What a front's rings are called, before the name of the partition.
const PREFIX: &str = "uplink-";

/// Where to, and how.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub(super) to: &'a str,
    pub(super) partitions: &'a [String],
    pub(super) accept_process: bool,
    pub(super) timeout: Duration,
    pub(super) json: bool,
    pub(super) tls: MutualTls,
}

/// Exit 65 if the ring was damaged: all that is intact is handed over; 75 if time was up.
pub(super) fn run(dir: &Path, target: &Target<'_>) -> Result<ExitCode> {
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let partition = name.strip_prefix(PREFIX).unwrap_or(forebay_wire::partition::SINGLE).to_owned();
    let partitions = if target.partitions.is_empty() {
        vec![partition.clone()]
    } else {
        target.partitions.to_vec()
    };
    ensure!(
        partitions.contains(&partition),
        "the ring is of partition {partition}, which --partition does not name"
    );
    let image = Image::open(dir)?;
    let reader = image.readers().into_iter().find(|reader| reader.name == "forwarder");
    let reader = reader.map(|reader| reader.committed);
    let is_pending = |entry: &forebay_queue::Entry<'_>| reader.is_none_or(|upto| entry.seq > upto);
    let entries = image.entries().filter(is_pending).count() as u64;
    let damaged = !image.verdict().is_clean();
    drop(image);
    let orphan = Orphan {
        dir: dir.to_owned(),
        to: target.to.to_owned(),
        level: if target.accept_process { Durability::Process } else { Durability::Disk },
        partition,
        partitions,
        timeout: target.timeout,
        tls: target.tls.clone(),
    };
    let HandedOver { bytes, bytes_left, recovery } = match orphan.hand_over() {
        Ok(done) => done,
        // As itself, so that its exit code is told.
        Err(OrphanError::Queue(error)) => return Err(error.into()),
        Err(error) => return Err(error.into()),
    };
    let damaged = damaged || recovery.corrupt_ranges > 0;
    if target.json {
        println!(
            "{}",
            json!({
                "entries": entries, "bytes": bytes, "bytes_left": bytes_left, "damaged": damaged,
                "complete": bytes_left == 0,
            })
        );
    } else if bytes_left == 0 {
        println!("{} entries are durable at {}", thousands(entries), target.to);
    } else {
        println!(
            "time was up: {} of {} bytes are left, start it again",
            thousands(bytes_left),
            thousands(bytes)
        );
    }
    if damaged {
        eprintln!("the ring was damaged: all intact entries were handed over, the others are lost");
    }
    Ok(match (bytes_left, damaged) {
        (1.., _) => ExitCode::from(EXIT_LATE),
        (0, true) => ExitCode::from(EXIT_CORRUPT),
        (0, false) => ExitCode::SUCCESS,
    })
}
