//! The newest reading of every (tenant, device, key).
//!
//! Newest is by (time, seq), never by arrival: a device that was offline, or one that roamed
//! between fronts, delivers old readings late. The order is total, so any order of arrival leaves
//! the same values, and applying an entry twice changes nothing.
//!
//! Not here: who reads them (`http`, `live`) and what else follows the feed.

mod keeper;
mod snapshot;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use forebay_model::{MessageId, SessionId, Timestamp, Value};
use forebay_wire::live::{LastValue, LiveReading, Position};
use hashbrown::HashMap;

pub use keeper::{Keeper, restore};
pub use snapshot::{Heard, Snapshot, SnapshotError};

use crate::rows::{Cell, RowView};

/// The newest readings, shared by the thread that follows the feed and those that answer queries.
#[derive(Debug)]
pub struct LastValues {
    series_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By tenant and device, joined by a byte that neither can hold.
    devices: HashMap<Box<str>, Device>,
    /// Where a look-up joins its name: one allocation in all rather than one a reading.
    scratch: String,
    series: usize,
    refused: u64,
    /// What the values include, by the middle's name in the configuration.
    positions: BTreeMap<String, Position>,
}

#[derive(Debug)]
struct Device {
    tenant: Box<str>,
    device: Box<str>,
    /// When a front received the latest of its readings, the newest by their own times or not: a
    /// clock that was in the future once does not make it silent.
    heard_us: i64,
    /// Ordered by key; most devices have a handful.
    keys: Vec<Newest>,
}

#[derive(Debug, Clone)]
struct Newest {
    key: Box<str>,
    at_us: i64,
    session: SessionId,
    seq: MessageId,
    index: u16,
    value: Value<'static>,
    unit: Option<Box<str>>,
    time: Option<Timestamp>,
    received: Timestamp,
}

impl Newest {
    fn order(&self) -> (i64, u64, u16, u64) {
        (self.at_us, self.seq.get(), self.index, self.session.get())
    }
}

/// One reading to be taken up if it is newer.
#[derive(Debug, Clone, Copy)]
struct Offer<'a> {
    tenant: &'a str,
    device: &'a str,
    session: SessionId,
    seq: MessageId,
    received: Timestamp,
    index: u16,
    key: &'a str,
    value: &'a Value<'a>,
    unit: Option<&'a str>,
    time: Option<Timestamp>,
}

impl LastValues {
    /// Holds the values of at most `series_max` series; those beyond are refused and counted.
    #[must_use]
    pub fn new(series_max: usize) -> Self {
        Self { series_max, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up the readings of a batch of messages, and with them the position they reach.
    pub fn apply<'a>(
        &self,
        middle: &str,
        position: Position,
        messages: impl IntoIterator<Item = &'a forebay_model::Message<'a>>,
    ) {
        let mut state = self.lock();
        for message in messages {
            let forebay_model::Body::Readings(readings) = &message.body else { continue };
            for (index, reading) in readings.iter().enumerate() {
                state.take(
                    self.series_max,
                    Offer {
                        tenant: &message.tenant,
                        device: &message.device,
                        session: message.session,
                        seq: message.seq,
                        received: message.received,
                        index: index as u16,
                        key: &reading.key,
                        value: &reading.value,
                        unit: reading.unit.as_deref(),
                        time: reading.time,
                    },
                );
            }
        }
        state.advance(middle, position);
    }

    /// Takes up one row of the lake; the position stays.
    pub fn apply_row(&self, row: &RowView<'_>) {
        let value = match row.value {
            Cell::Float(number) => Value::Float(number),
            Cell::Int(number) => Value::Int(number),
            Cell::Bool(on) => Value::Bool(on),
            Cell::Text(text) => Value::Text(text.into()),
            Cell::Opaque { .. } => return,
        };
        // What is in the lake was within the bounds when the front took it.
        let (Some(key), Ok(session), Ok(seq), Ok(received)) = (
            row.key,
            SessionId::new(row.session),
            MessageId::new(row.seq),
            Timestamp::from_micros(row.received_us),
        ) else {
            return;
        };
        let time = row.time_us.and_then(|time_us| Timestamp::from_micros(time_us).ok());
        let offer = Offer {
            tenant: row.tenant,
            device: row.device,
            session,
            seq,
            received,
            index: row.index,
            key,
            value: &value,
            unit: row.unit,
            time,
        };
        self.lock().take(self.series_max, offer);
    }

    /// Notes that the values include everything up to `position` of a middle.
    pub fn advance(&self, middle: &str, position: Position) {
        self.lock().advance(middle, position);
    }

    /// What the values of a middle include.
    #[must_use]
    pub fn position(&self, middle: &str) -> Option<Position> {
        self.lock().positions.get(middle).copied()
    }

    /// The last values that `wants` (tenant, device, key) picks, and the positions they include,
    /// as of one moment. Ordered by tenant, device and key; at most `limit`, with whether that
    /// left any out.
    #[must_use]
    pub fn select(
        &self,
        limit: usize,
        wants: &dyn Fn(&str, &str, &str) -> bool,
    ) -> (Vec<LastValue<'static>>, Vec<Position>, bool) {
        let state = self.lock();
        let mut devices: Vec<&Device> = state.devices.values().collect();
        devices.sort_unstable_by(|left, right| {
            (&left.tenant, &left.device).cmp(&(&right.tenant, &right.device))
        });
        let mut values = Vec::new();
        let positions = || state.positions.values().copied().collect();
        for device in devices {
            for newest in &device.keys {
                if !wants(&device.tenant, &device.device, &newest.key) {
                    continue;
                }
                if values.len() >= limit {
                    return (values, positions(), true);
                }
                values.push(device.show(newest));
            }
        }
        (values, positions(), false)
    }

    /// The last values of one device, without looking at any other.
    #[must_use]
    pub fn of_device(&self, tenant: &str, device: &str) -> Vec<LastValue<'static>> {
        let state = self.lock();
        let found = state.devices.get(joined(tenant, device).as_str());
        found.map_or_else(Vec::new, |device| {
            device.keys.iter().map(|newest| device.show(newest)).collect()
        })
    }

    /// When a front last received a reading of a device, whatever time the reading has; `None` if
    /// none ever came.
    #[must_use]
    pub fn heard_us(&self, tenant: &str, device: &str) -> Option<i64> {
        let state = self.lock();
        let found = state.devices.get(joined(tenant, device).as_str())?;
        Some(found.heard_us)
    }

    /// Devices and series held, and readings refused because of the limit.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, u64) {
        let state = self.lock();
        (state.devices.len(), state.series, state.refused)
    }

    /// Everything held, as of one moment.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        let devices = state.devices.values();
        let values = devices
            .flat_map(|device| device.keys.iter().map(|newest| device.show(newest)))
            .collect();
        let heard = state.devices.values().filter_map(Device::heard_later).collect();
        Snapshot { positions: state.positions.clone(), values, heard }
    }

    /// Takes up what a snapshot holds.
    pub fn restore(&self, snapshot: &Snapshot) {
        let mut state = self.lock();
        for last in &snapshot.values {
            let offer = Offer {
                tenant: &last.tenant,
                device: &last.device,
                session: last.session,
                seq: last.seq,
                received: last.received,
                index: last.reading.index,
                key: &last.reading.key,
                value: &last.reading.value,
                unit: last.reading.unit.as_deref(),
                time: last.reading.time,
            };
            state.take(self.series_max, offer);
        }
        for Heard { tenant, device, received_us } in &snapshot.heard {
            let found = state.devices.get_mut(joined(tenant, device).as_str());
            if let Some(device) = found {
                device.heard_us = device.heard_us.max(*received_us);
            }
        }
        for (middle, &position) in &snapshot.positions {
            state.positions.insert(middle.clone(), position);
        }
    }
}

impl State {
    fn advance(&mut self, middle: &str, position: Position) {
        match self.positions.get_mut(middle) {
            Some(current) => *current = position,
            None => {
                self.positions.insert(middle.to_owned(), position);
            }
        }
    }

    fn take(&mut self, series_max: usize, offer: Offer<'_>) {
        join(&mut self.scratch, offer.tenant, offer.device);
        let joined = &self.scratch;
        let full = self.series >= series_max;
        if !self.devices.contains_key(joined.as_str()) {
            if full {
                self.refused += 1;
                return;
            }
            let device = Device {
                tenant: offer.tenant.into(),
                device: offer.device.into(),
                heard_us: offer.received.micros(),
                keys: Vec::new(),
            };
            self.devices.insert(joined.as_str().into(), device);
        }
        let Some(device) = self.devices.get_mut(joined.as_str()) else { return };
        device.heard_us = device.heard_us.max(offer.received.micros());
        match device.keys.binary_search_by(|newest| (*newest.key).cmp(offer.key)) {
            Ok(place) => {
                let current = &mut device.keys[place];
                if offer.order() > current.order() {
                    current.replace(&offer);
                }
            }
            Err(_) if full => self.refused += 1,
            Err(place) => {
                device.keys.insert(place, offer.newest());
                self.series += 1;
            }
        }
    }
}

impl Offer<'_> {
    fn at_us(&self) -> i64 {
        self.time.unwrap_or(self.received).micros()
    }

    fn order(&self) -> (i64, u64, u16, u64) {
        (self.at_us(), self.seq.get(), self.index, self.session.get())
    }

    fn newest(&self) -> Newest {
        Newest {
            key: self.key.into(),
            at_us: self.at_us(),
            session: self.session,
            seq: self.seq,
            index: self.index,
            value: self.value.clone().into_owned(),
            unit: self.unit.map(Into::into),
            time: self.time,
            received: self.received,
        }
    }
}

impl Newest {
    /// Takes over an offer of the same key; an unchanged unit keeps its memory.
    fn replace(&mut self, offer: &Offer<'_>) {
        self.at_us = offer.at_us();
        self.session = offer.session;
        self.seq = offer.seq;
        self.index = offer.index;
        self.value = offer.value.clone().into_owned();
        if self.unit.as_deref() != offer.unit {
            self.unit = offer.unit.map(Into::into);
        }
        self.time = offer.time;
        self.received = offer.received;
    }
}

impl Device {
    /// When it was heard, if none of its values tells.
    fn heard_later(&self) -> Option<Heard> {
        let told_us = self.keys.iter().map(|newest| newest.received.micros()).max();
        (told_us < Some(self.heard_us)).then(|| Heard {
            tenant: self.tenant.to_string(),
            device: self.device.to_string(),
            received_us: self.heard_us,
        })
    }

    fn show(&self, newest: &Newest) -> LastValue<'static> {
        LastValue {
            tenant: self.tenant.to_string().into(),
            device: self.device.to_string().into(),
            session: newest.session,
            seq: newest.seq,
            received: newest.received,
            name: None,
            device_type: None,
            location: None,
            known: None,
            reading: LiveReading {
                index: newest.index,
                key: newest.key.to_string().into(),
                value: newest.value.clone(),
                unit: newest.unit.as_deref().map(|unit| unit.to_owned().into()),
                suspect: false,
                time: newest.time,
            },
        }
    }
}

/// Tenant and device as one text; ids cannot hold the separator.
fn joined(tenant: &str, device: &str) -> String {
    let mut joined = String::with_capacity(tenant.len() + 1 + device.len());
    join(&mut joined, tenant, device);
    joined
}

fn join(joined: &mut String, tenant: &str, device: &str) {
    joined.clear();
    joined.push_str(tenant);
    joined.push('\n');
    joined.push_str(device);
}

#[cfg(test)]
mod tests;
