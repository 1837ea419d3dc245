//! Registered devices that have fallen silent: how many, by tenant and type, never which.
//!
//! A device is silent when no reading of it has come for longer than `registry.silent_after`. It is
//! counted against the device registry, so that one that never came is seen too, and by the time at
//! which a front received it: the clocks of devices are their own. Which ones they are, the last
//! values tell (`/v1/last`).
//!
//! Cannot see: devices that send nothing but opaque payloads, which have no last values.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use forebay_ops::{Metrics, MetricsError};

use crate::{last::LastValues, registry::Current};

/// A look touches every listed device: what a look found is shown again for so long.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// By tenant and type: listed, and silent.
type Counts = BTreeMap<(String, String), (i64, i64)>;

/// Registers the counts.
///
/// # Errors
/// They are registered already.
pub(crate) fn register(
    metrics: &Metrics,
    known: Current,
    last: Arc<LastValues>,
    after: Duration,
) -> Result<(), MetricsError> {
    let mut scrape = metrics.scrape();
    let listed = scrape.gauges(
        "forebay_storage_devices_listed",
        "Devices that the device registry lists.",
        &["tenant", "type"],
    )?;
    let silent = scrape.gauges(
        "forebay_storage_devices_silent",
        "Listed devices of which no reading has come for longer than registry.silent_after.",
        &["tenant", "type"],
    )?;
    let silent_all = scrape.gauge(
        "forebay_storage_devices_silent_all",
        "Listed devices of which no reading has come for longer than registry.silent_after, all \
         tenants and types together.",
    )?;
    let began = Instant::now();
    let looked: Mutex<Option<Instant>> = Mutex::new(None);
    scrape.register(move || {
        let mut looked = looked.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.is_some_and(|at| at.elapsed() < LOOK_EVERY.min(after)) {
            return;
        }
        *looked = Some(Instant::now());
        // What was never heard of may have had no time to come since this process began.
        let counts = count(&known, &last, after, began.elapsed() >= after);
        silent.reset();
        listed.reset();
        let mut all = 0;
        for ((tenant, device_type), (listed_now, silent_now)) in counts {
            let names = &[tenant.as_str(), device_type.as_str()];
            listed.with_label_values(names).set(listed_now);
            silent.with_label_values(names).set(silent_now);
            all += silent_now;
        }
        silent_all.set(all);
    })
}

fn count(known: &Current, last: &LastValues, after: Duration, judge_unheard: bool) -> Counts {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let oldest = now.saturating_sub(after);
    let oldest_us = i64::try_from(oldest.as_micros()).unwrap_or(i64::MAX);
    let mut counts = Counts::new();
    let registry = known.get();
    for (tenant, device, entry) in registry.iter() {
        let device_type = entry.device_type.as_deref().unwrap_or_default();
        let place = counts.entry((tenant.to_owned(), device_type.to_owned())).or_default();
        let heard_us = last.heard_us(tenant, device);
        let is_silent = heard_us.map_or(judge_unheard, |heard_us| heard_us < oldest_us);
        place.0 += 1;
        place.1 += i64::from(is_silent);
    }
    counts
}

#[cfg(test)]
mod tests {
    use forebay_model::{
        Body, Message, MessageId, Reading, SessionId, Timestamp, Value,
        registry::{Builder, Listing},
    };
    use forebay_wire::live::Position;
    use forebay_wire::{QueueId, Seq};

    use super::*;

    fn message(device: &'static str, received_us: i64) -> Message<'static> {
        let value = Value::Float(1.0);
        // A clock of 1970 does not make it silent.
        let time = Timestamp::from_micros(1).ok();
        Message {
            tenant: "default".into(),
            device: device.into(),
            session: SessionId::new(1).expect("small"),
            seq: MessageId::new(1).expect("not 0"),
            rejected_before: 0,
            received: Timestamp::from_micros(received_us).expect("sane"),
            body: Body::Readings(vec![Reading { key: "t".into(), value, unit: None, time }]),
        }
    }

    #[test]
    fn silent_devices_are_counted_by_tenant_and_type() {
        let mut builder = Builder::default();
        for (tenant, device, device_type) in [
            (None, "talks", Some("pump")),
            (None, "stopped", Some("pump")),
            (None, "never", Some("pump")),
            (None, "plain", None),
            (None, "was-ahead", None),
            (Some("acme"), "talks", Some("pump")),
        ] {
            let (tenant, device_type) = (tenant.map(str::to_owned), device_type.map(str::to_owned));
            let device = device.to_owned();
            builder
                .add(Listing { tenant, device, device_type, ..Listing::default() })
                .expect("new");
        }
        let known = Current::default();
        known.set(Arc::new(builder.build()));
        let last = LastValues::new(100);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let now_us = now.as_micros() as i64;
        let mut ahead = message("was-ahead", now_us - 3_600_000_000);
        if let Body::Readings(readings) = &mut ahead.body {
            readings[0].time = Timestamp::from_micros(now_us + 3_600_000_000).ok();
        }
        let messages = [
            ahead,
            message("was-ahead", now_us),
            message("talks", now_us),
            message("stopped", now_us - 3_600_000_000),
            message("plain", now_us),
            message("not-listed", now_us - 3_600_000_000),
        ];
        let position = Position { queue: QueueId::new(1), seq: Seq::from_parts(1, 1) };
        last.apply("middle", position, &messages);
        let counts = |unheard| count(&known, &last, Duration::from_secs(60), unheard);
        let key = |tenant: &str, device_type: &str| (tenant.to_owned(), device_type.to_owned());
        let expected = |never: i64, acme: i64| {
            Counts::from([
                (key("default", "pump"), (3, 1 + never)),
                (key("default", ""), (2, 0)),
                (key("acme", "pump"), (1, acme)),
            ])
        };
        assert_eq!(counts(true), expected(1, 1));
        assert_eq!(counts(false), expected(0, 0));
    }
}
