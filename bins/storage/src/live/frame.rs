//! One event on its way to readers: encoded once, when the first of them is sent it.
//!
//! A reader that is too slow never costs an encoding: what falls out of its buffer was only a
//! canonical entry. The entry is copied out of its batch, since a slice would keep 64 KiB alive.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use forebay_model::{Body, Message};
use forebay_wire::{
    entry,
    live::{Event, LiveReading, Opaque, Position, ServerFrame},
};

use crate::registry::{Listed, describe_reading};

/// An event with the readings that its readers want.
#[derive(Debug)]
pub struct Frame {
    /// Where it stands in the feed.
    pub at: Position,
    entry: Box<[u8]>,
    /// Places of the wanted readings; `None` for all of them.
    picked: Option<Box<[u16]>>,
    listed: Listed,
    encoded: OnceLock<Bytes>,
}

impl Frame {
    /// The event of an entry that decodes, with all of its readings or some.
    #[must_use]
    pub(crate) fn new(
        at: Position,
        entry: &[u8],
        picked: Option<&[u16]>,
        listed: Listed,
    ) -> Arc<Self> {
        let picked = picked.map(Into::into);
        Arc::new(Self { at, entry: entry.into(), picked, listed, encoded: OnceLock::new() })
    }

    /// A frame whose bytes are known.
    #[must_use]
    pub fn ready(at: Position, bytes: Bytes) -> Arc<Self> {
        let entry = vec![0; bytes.len()].into();
        Arc::new(Self { at, entry, picked: None, listed: None, encoded: OnceLock::from(bytes) })
    }

    /// What its bound counts: the length of the entry, near enough that of the frame.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.entry.len()
    }

    /// The frame as text.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.encoded.get_or_init(|| self.encode()).clone()
    }

    fn encode(&self) -> Bytes {
        // It was decoded before it became a frame.
        let Ok(message) = entry::decode(&self.entry) else { return Bytes::new() };
        encode(&ServerFrame::Event(event(self.at, &message, self.picked.as_deref(), &self.listed)))
    }
}

/// The event of a message.
#[must_use]
pub(super) fn event<'a>(
    at: Position,
    message: &'a Message<'a>,
    picked: Option<&[u16]>,
    listed: &'a Listed,
) -> Event<'a> {
    let device = listed.as_ref().and_then(Option::as_deref);
    let (readings, opaque) = match &message.body {
        Body::Readings(readings) => {
            let wanted = |place: &usize| {
                picked.is_none_or(|picked| picked.binary_search(&(*place as u16)).is_ok())
            };
            let readings = readings.iter().enumerate().filter(|(place, _)| wanted(place));
            let shown = readings.map(|(place, reading)| {
                let mut shown = LiveReading {
                    index: place as u16,
                    key: reading.key.as_ref().into(),
                    value: reading.value.clone(),
                    unit: reading.unit.as_deref().map(Into::into),
                    suspect: false,
                    time: reading.time,
                };
                if let Some(device) = device {
                    describe_reading(&mut shown, device);
                }
                shown
            });
            (shown.collect(), None)
        }
        Body::Opaque { content_type, payload } => {
            let opaque =
                Opaque { content_type: (**content_type).into(), payload: (**payload).into() };
            (Vec::new(), Some(opaque))
        }
    };
    Event {
        at,
        tenant: message.tenant.as_ref().into(),
        device: message.device.as_ref().into(),
        name: device.and_then(|device| device.name.as_deref()).map(Into::into),
        device_type: device.and_then(|device| device.device_type.as_deref()).map(Into::into),
        location: device.and_then(|device| device.location.as_deref()).map(Into::into),
        known: listed.as_ref().map(Option::is_some),
        session: message.session,
        seq: message.seq,
        received: message.received,
        readings,
        opaque,
    }
}

/// A frame of the server as bytes.
#[must_use]
pub fn encode(frame: &ServerFrame<'_>) -> Bytes {
    let mut bytes = Vec::with_capacity(256);
    frame.encode(&mut bytes);
    bytes.into()
}
