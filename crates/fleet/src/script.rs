//! What each simulated device says: a message recomputed from (device, session, seq, index, seed).
//!
//! The first reading is a point of the device's series; a second one is text that brings the
//! message to the wanted size. Nothing is remembered: a device that resends and a checker that
//! compares both compute the message anew.

use std::borrow::Cow;

use forebay_model::{Body, MessageId, Reading, Timestamp, Value};
use forebay_wire::device::{ClientFrame, Format};

use crate::series::Series;

/// Key of the reading that only makes a message longer.
pub const PADDING_KEY: &str = "padding";

/// Places in the padding text at which a message's text may begin.
const PADDING_STARTS: u64 = 1 << 16;
/// Padding in one message; a front's default limit is 64 KiB a message.
const PADDING_BYTES_MAX: usize = 60 * 1024;
/// A seq of usual length, to measure a message by.
const TYPICAL_SEQ: u64 = 100_000;

/// All that the devices of a run will say.
#[derive(Debug)]
pub struct Script {
    seed: u64,
    series: Vec<Series>,
    /// Bytes of padding for each series; zero: no second reading.
    padding_bytes: Vec<usize>,
    padding: String,
    /// Readings carry the times of their series.
    is_timed: bool,
}

/// One device's part of the script in one session: which series, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voice {
    series: usize,
    start: u64,
    salt: u64,
}

impl Script {
    /// A script over these series, at least one, with messages of about `payload_bytes` on the
    /// wire; where the reading alone is longer, there is no padding.
    #[must_use]
    pub fn new(series: Vec<Series>, payload_bytes: usize, seed: u64) -> Self {
        assert!(!series.is_empty(), "a script needs a series");
        let padding_bytes: Vec<usize> =
            series.iter().map(|series| padding_bytes(series, payload_bytes)).collect();
        let longest = padding_bytes.iter().copied().max().unwrap_or(0);
        let padding = if longest == 0 {
            String::new()
        } else {
            text(seed, longest + PADDING_STARTS as usize)
        };
        Self { seed, series, padding_bytes, padding, is_timed: true }
    }

    /// The same without the times that were recorded: each reading is as of the moment in which it
    /// arrives, which is where a dashboard looks.
    #[must_use]
    pub fn untimed(self) -> Self {
        Self { is_timed: false, ..self }
    }

    /// A device's name: that of its series and its number, so that a prefix selects a kind.
    #[must_use]
    pub fn device_name(&self, device: u32) -> String {
        format!("{}-{device:05}", self.series[self.series_of(device)].name())
    }

    /// A device's part in one session.
    #[must_use]
    pub fn voice(&self, device: u32, session: u64) -> Voice {
        let series = self.series_of(device);
        let salt = mix(self.seed ^ mix(session ^ mix(u64::from(device))));
        Voice { series, start: salt % self.series[series].len(), salt }
    }

    /// How many readings each message of a voice has.
    #[must_use]
    pub fn rows(&self, voice: Voice) -> u16 {
        if self.padding_bytes[voice.series] == 0 { 1 } else { 2 }
    }

    /// One reading of a message; `seq` counts from 1, `index` is below [`Self::rows`].
    #[must_use]
    pub fn reading(&self, voice: Voice, seq: u64, index: u16) -> Reading<'_> {
        if index == 0 {
            let reading = first_reading(&self.series[voice.series], voice.start + (seq - 1));
            Reading { time: reading.time.filter(|_| self.is_timed), ..reading }
        } else {
            let from = (mix(voice.salt ^ seq) % PADDING_STARTS) as usize;
            let text = &self.padding[from..from + self.padding_bytes[voice.series]];
            padding_reading(text)
        }
    }

    /// All readings of a message, into a vector that is emptied first.
    pub fn readings<'s>(&'s self, voice: Voice, seq: u64, into: &mut Vec<Reading<'s>>) {
        into.clear();
        into.extend((0..self.rows(voice)).map(|index| self.reading(voice, seq, index)));
    }

    fn series_of(&self, device: u32) -> usize {
        device as usize % self.series.len()
    }
}

fn first_reading(series: &Series, step: u64) -> Reading<'_> {
    let (time_us, number) = series.at(step);
    let value = if series.is_whole() { Value::Int(number as i64) } else { Value::Float(number) };
    let time = Timestamp::from_micros(time_us).ok();
    Reading { key: Cow::Borrowed(series.name()), value, unit: None, time }
}

fn padding_reading(text: &str) -> Reading<'_> {
    Reading {
        key: Cow::Borrowed(PADDING_KEY),
        value: Value::Text(Cow::Borrowed(text)),
        unit: None,
        time: None,
    }
}

/// How much text brings a typical message of a series to the wanted size.
fn padding_bytes(series: &Series, payload_bytes: usize) -> usize {
    let first = first_reading(series, 0);
    if message_bytes(vec![first.clone()]) >= payload_bytes {
        return 0;
    }
    // A text of the wanted size has a head as long as that of the final one, give or take a byte.
    let wanted = payload_bytes.min(PADDING_BYTES_MAX);
    let sample = "x".repeat(wanted);
    let beside = message_bytes(vec![first, padding_reading(&sample)]) - wanted;
    wanted.saturating_sub(beside).max(1)
}

/// Bytes of a message with these readings on the wire, in CBOR.
fn message_bytes(readings: Vec<Reading<'_>>) -> usize {
    let seq = MessageId::new(TYPICAL_SEQ).expect("within the bounds of a seq");
    let mut bytes = Vec::new();
    ClientFrame::Data { seq, body: Body::Readings(readings) }.encode(Format::Cbor, &mut bytes);
    bytes.len()
}

/// Text without meaning, the same for the same seed.
fn text(seed: u64, bytes: usize) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz012345";
    let mut text = String::with_capacity(bytes + 12);
    let mut word = 0;
    while text.len() < bytes {
        let mut bits = mix(seed ^ mix(word));
        word += 1;
        for _ in 0..12 {
            text.push(char::from(LETTERS[(bits & 31) as usize]));
            bits >>= 5;
        }
    }
    text.truncate(bytes);
    text
}

/// Spreads a number over 64 bits (SplitMix64's finisher): the same everywhere and for ever.
#[must_use]
pub(crate) fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::builtin;

    #[test]
    fn the_same_seed_says_the_same_and_another_seed_something_else() {
        let (one, two) = (Script::new(builtin(), 256, 1), Script::new(builtin(), 256, 1));
        let other = Script::new(builtin(), 256, 2);
        let voice = one.voice(7, 99);
        assert_eq!(voice, two.voice(7, 99));
        let mut differ = 0;
        for seq in 1..100 {
            for index in 0..one.rows(voice) {
                assert_eq!(one.reading(voice, seq, index), two.reading(voice, seq, index));
                let another = other.reading(other.voice(7, 99), seq, index);
                differ += usize::from(one.reading(voice, seq, index) != another);
            }
        }
        assert!(differ > 150, "only {differ} of 198 readings differ");
    }

    #[test]
    fn devices_and_sessions_start_at_different_points() {
        let script = Script::new(builtin(), 0, 3);
        assert_ne!(script.voice(0, 1), script.voice(6, 1));
        assert_ne!(script.voice(0, 1), script.voice(0, 2));
        assert_eq!(script.device_name(0), "ambient_temperature-00000");
        assert_eq!(script.rows(script.voice(0, 1)), 1);
    }

    #[test]
    fn messages_have_the_wanted_size_on_the_wire() {
        for wanted in [80, 256, 4096] {
            let script = Script::new(builtin(), wanted, 5);
            let mut readings = Vec::new();
            for device in 0..6 {
                script.readings(script.voice(device, 1), 17, &mut readings);
                let bytes = message_bytes(readings.clone());
                assert!(bytes.abs_diff(wanted) <= 8 || wanted < 100, "{bytes} for {wanted}");
            }
        }
    }

    #[test]
    fn every_reading_is_one_that_a_front_accepts() {
        let script = Script::new(builtin(), 300, 4);
        let mut readings = Vec::new();
        for device in 0..12 {
            let voice = script.voice(device, 5);
            for seq in [1, 2, 1999, 2000, 2001, 1_000_000_000] {
                script.readings(voice, seq, &mut readings);
                assert_eq!(readings.len(), 2);
                readings.iter().for_each(|reading| assert_eq!(reading.validate(), Ok(())));
            }
        }
    }
}
