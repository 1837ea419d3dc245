//! How the log and its consumers stand, and where in it a message is: `/v1/status`, `/v1/where`.
//!
//! The dedup table knows whether a message was ever stored; where it is in the log, and so which
//! consumers have committed it, is found by reading the log from its oldest entry on.

use std::sync::{Mutex, PoisonError};

use forebay_model::TenantId;
use forebay_ops::admin::{Parameters, number};
use forebay_queue::{Entry, Queue, Seq};
use forebay_wire::{entry::Wanted, feed::Stored};
use serde_json::{Map, Value, json};

use crate::{
    clock::wall_us,
    consumers::PREFIX,
    dedup::{Dedup, Key},
    detach::Detachable,
};

/// How the middle stands.
pub(crate) fn status(log: &Queue, detachable: &Detachable, complete: bool) -> Value {
    let stat = log.stat();
    let consumers = stat.readers.iter().filter_map(|reader| {
        let name = reader.name.strip_prefix(PREFIX)?;
        Some(json!({
            "consumer": name,
            "committed": reader.committed.to_string(),
            "behind_bytes": reader.pending_bytes,
            "oldest_age_seconds": oldest_age(log, reader.committed),
        }))
    });
    let detached = detachable.standings().into_iter().filter_map(|standing| {
        let latest = standing.latest?;
        Some(json!({
            "consumer": standing.consumer,
            "detached": standing.detached,
            "entries": standing.lost.entries,
            "bytes": standing.lost.bytes,
            "latest": latest,
        }))
    });
    json!({
        "tier": "middle",
        "queue": stat.id.to_string(),
        "appended": stat.appended.to_string(),
        "durable": stat.durable.to_string(),
        "used_bytes": stat.used_bytes,
        "capacity_bytes": stat.capacity_bytes,
        "dedup_complete": complete,
        "consumers": consumers.collect::<Vec<_>>(),
        "gaps": detached.collect::<Vec<_>>(),
    })
}

/// How long ago the first entry above `committed` was taken; 0 if there is none.
fn oldest_age(log: &Queue, committed: Seq) -> f64 {
    let mut tail = log.tail(Some(committed));
    let Ok(batch) = tail.read(1, 1) else { return 0.0 };
    let first = batch.iter().next().map(|one| one.time_us);
    first.map_or(0.0, |time_us| wall_us().saturating_sub(time_us) as f64 / 1e6)
}

/// Where the message is that `parameters` name.
///
/// # Errors
/// What is wrong with the question.
pub(crate) fn locate(
    log: &Queue,
    dedup: &Mutex<Dedup>,
    parameters: &Parameters,
) -> Result<Value, String> {
    let text = |name: &str| parameters.get(name).map(String::as_str);
    let single = TenantId::single();
    let tenant = text("tenant").unwrap_or(single.as_str());
    let device = text("device").ok_or("device is missing")?;
    let (session, seq) = (number(parameters, "session")?, number(parameters, "seq")?);
    let wanted = Wanted { tenant, device, session, seq };
    let key = Key { tenant, device, session };
    let known = {
        let dedup = dedup.lock().unwrap_or_else(PoisonError::into_inner);
        dedup.table.contains(&key, seq)
    };
    let is_it = |one: &Entry<'_>| {
        Stored::decode(one.payload).is_some_and(|stored| wanted.is_in(stored.entry))
    };
    let tail = log.tail(Some(Seq::NONE));
    let found = if known { tail.find(is_it) } else { Ok(None) };
    let place = found.map_err(|error| error.to_string())?;
    let mut consumers = Map::new();
    for reader in log.readers() {
        let Some(name) = reader.name.strip_prefix(PREFIX) else { continue };
        // What is no longer in the log was committed by every durable consumer.
        let committed = known && place.is_none_or(|(place, _)| reader.committed >= place);
        consumers.insert(name.to_owned(), committed.into());
    }
    Ok(json!({
        "found": known,
        "queue": log.id().to_string(),
        "entry": place.map(|(place, _)| place.to_string()),
        "time_us": place.map(|(_, time_us)| time_us),
        "committed_by": consumers,
    }))
}
