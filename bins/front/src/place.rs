//! How the rings stand, and where in them a message is: `/v1/status` and `/v1/where`.
//!
//! Finding one message reads what a ring retains from its oldest entry on: the admin server asks
//! once at a time, on a thread of its own.

use std::time::{SystemTime, UNIX_EPOCH};

use forebay_model::TenantId;
use forebay_ops::admin::{Parameters, number};
use forebay_queue::Seq;
use forebay_wire::entry::Wanted;
use serde_json::{Value, json};

use crate::{forwarder::READER, front::Front, rings::Ring};

/// How the front stands.
pub(crate) fn status(front: &Front) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_us = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
    let rings = front.rings.iter().map(|ring| {
        let (stat, left) = (ring.queue.stat(), ring.left());
        json!({
            "partition": ring.name,
            "queue": stat.id.to_string(),
            "appended": stat.appended.to_string(),
            "durable": stat.durable.to_string(),
            "committed": committed(ring).to_string(),
            "acked": ring.acked.get().to_string(),
            "pending_entries": left.entries,
            "pending_bytes": left.bytes,
            "used_bytes": stat.used_bytes,
            "capacity_bytes": stat.capacity_bytes,
            "oldest_age_seconds": if left.bytes == 0 {
                0.0
            } else {
                stat.oldest_age_us(now_us) as f64 / 1e6
            },
        })
    });
    json!({
        "tier": "front",
        "connections": front.connections.count(),
        "rings": rings.collect::<Vec<_>>(),
    })
}

/// How far the ring has let go of its entries: no further than the middle has them.
fn committed(ring: &Ring) -> Seq {
    let readers = ring.queue.readers();
    let forwarder = readers.iter().find(|reader| reader.name == READER);
    forwarder.map_or(Seq::NONE, |reader| reader.committed)
}

/// Where the message is that `parameters` name.
///
/// # Errors
/// What is wrong with the question.
pub(crate) fn locate(front: &Front, parameters: &Parameters) -> Result<Value, String> {
    let text = |name: &str| parameters.get(name).map(String::as_str);
    let single = TenantId::single();
    let tenant = text("tenant").unwrap_or(single.as_str());
    let device = text("device").ok_or("device is missing")?;
    let (session, seq) = (number(parameters, "session")?, number(parameters, "seq")?);
    let wanted = Wanted { tenant, device, session, seq };
    for ring in &front.rings {
        let found = ring.queue.tail(Some(Seq::NONE)).find(|one| wanted.is_in(one.payload));
        if let Some((place, time_us)) = found.map_err(|error| error.to_string())? {
            let acked = ring.acked.get() >= place;
            return Ok(json!({
                "found": true, "partition": ring.name, "queue": ring.queue.id().to_string(),
                "entry": place.to_string(), "time_us": time_us, "acked_by_middle": acked,
                "durable": ring.queue.durable() >= place,
            }));
        }
    }
    Ok(json!({ "found": false }))
}
