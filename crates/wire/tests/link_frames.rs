//! The frames between tiers: docs/protocol.md has one of each kind, byte for byte; damaged, cut
//! and invented frames are refused; records come out as they were packed.
//!
//! Not shown: that another implementation reads the document the same way; the feed consumer in
//! Python in `examples` is for that.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use bytes::Bytes;
use forebay_wire::feed::{
    Answer, Commit, ConsumerState, End, Feed, Fetch, Head, Open, Outcome, Pending, Prepare, Stored,
    Tally, Uncounted,
};
use forebay_wire::frame::{BODY_BYTES_MAX, Frame, FrameError, HEADER_BYTES, Kind, VERSION, origin};
use forebay_wire::records::{BatchBuilder, Pushed, RecordBatch, Records};
use forebay_wire::uplink::{
    Hello, Level, Nack, NackCode, Ping, Refuse, RefuseCode, Standing, Uplink, Welcome,
};
use forebay_wire::{QueueId, Seq};
use proptest::prelude::*;

mod vectors;

use vectors::{to_hex, vectors};

const SOURCE: QueueId = QueueId::new(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
const LOG: QueueId = QueueId::new(0xf00d);
const SESSION: u64 = 0x5e55_1011_5e55_1011;

fn at(counter: u64) -> Seq {
    Seq::from_parts(3, counter)
}

fn packed(kind: Kind, queue: QueueId, prev: Seq, payloads: &[&[u8]]) -> Bytes {
    let mut batch = BatchBuilder::new(64 * 1024);
    for (offset, payload) in payloads.iter().enumerate() {
        let seq = Seq::new(at(17).get() + offset as u64);
        assert_eq!(batch.push(seq, 1_700_000_000_000_000 + offset as u64, payload), Pushed::Taken);
    }
    batch.finish(kind, u16::from(kind == Kind::Batch), queue, SESSION, prev)
}

/// One frame of each kind of the uplink.
fn uplink_frames() -> Vec<(&'static str, Bytes)> {
    let standing = Standing { queue: SOURCE, session: SESSION, durable: at(16), credit: 8_388_608 };
    let hello = Hello {
        queue: SOURCE,
        session: SESSION,
        committed: at(12),
        oldest: at(13),
        next: at(19),
        level: Level::Disk,
        partitions: 0x0123_4567_89ab_cdef,
    };
    let nack = Nack {
        standing: Standing { credit: 0, ..standing },
        round: 1,
        code: NackCode::Full,
        retry_ms: 100,
    };
    let ping = Ping { queue: SOURCE, session: SESSION, round: 1, sent: at(18) };
    let refuse =
        Refuse::new(SOURCE, SESSION, RefuseCode::Level, "acks mean process here, disk is required");
    vec![
        ("hello", hello.encode()),
        ("welcome", Welcome { standing, level: Level::Disk }.encode()),
        ("batch", packed(Kind::Batch, SOURCE, at(16), &[b"first", b"second"])),
        ("ack", Standing { durable: at(18), ..standing }.encode_ack()),
        ("nack", nack.encode()),
        ("ping", ping.encode()),
        ("pong", standing.encode_pong()),
        ("refuse", refuse.encode()),
    ]
}

/// One frame of each kind of the feed.
fn feed_frames() -> Vec<(&'static str, Bytes)> {
    let stored = [&Stored::prefix(SOURCE, at(40))[..], b"entry"].concat();
    let uncounted = Uncounted { duplicates: 1, lost: 0 };
    let marker = [&Stored::prefix(SOURCE, at(41))[..], &uncounted.to_bytes()].concat();
    let records = [&stored[..], &marker[..]];
    let consumer = "lake";
    let state = ConsumerState {
        session: 5,
        nonce: 0xabcd,
        committed: at(16),
        pending: Some(Pending { start: at(17), end: at(18), plan: b"plan".to_vec() }),
        tally: Some(Tally {
            records: 12,
            messages: 11,
            rows: 30,
            stored: 29,
            dead: 1,
            ..Tally::default()
        }),
    };
    let open = Open { request: 7, session: 5, nonce: 0xabcd, consumer };
    let (start, end) = (at(17), at(18));
    let prepare =
        Prepare { queue: LOG, request: 8, session: 5, start, end, plan: b"plan", consumer };
    let tally = Some(Tally {
        records: 14,
        messages: 12,
        rows: 33,
        stored: 32,
        dead: 1,
        ..Tally::default()
    });
    let commit = Commit { queue: LOG, request: 9, session: 5, upto: at(18), tally, consumer };
    let answer = Answer { queue: LOG, request: 8, outcome: Outcome::Done, state };
    let end = End { queue: LOG, session: SESSION, after: at(16), head: at(18), resume: Seq::ZERO };
    let fetch = Fetch { queue: LOG, session: SESSION, after: at(16), credit: 1_048_576 };
    vec![
        ("data", packed(Kind::Data, LOG, at(16), &records)),
        ("head", Head { queue: LOG, session: SESSION, head: at(18) }.encode()),
        ("fetch", fetch.encode()),
        ("records", packed(Kind::Records, LOG, at(16), &records)),
        ("end", end.encode()),
        ("open", open.encode()),
        ("prepare", prepare.encode()),
        ("commit", commit.encode()),
        ("answer", answer.encode()),
    ]
}

/// Writes a decoded frame again.
fn again(bytes: &Bytes) -> Bytes {
    if let Ok(uplink) = Uplink::decode(bytes) {
        return match uplink {
            Uplink::Hello(hello) => hello.encode(),
            Uplink::Welcome(welcome) => welcome.encode(),
            Uplink::Batch(batch) => pack_again(
                Kind::Batch,
                batch.round,
                batch.queue,
                batch.session,
                batch.prev,
                &batch.records,
            ),
            Uplink::Ack(ack) => ack.encode_ack(),
            Uplink::Nack(nack) => nack.encode(),
            Uplink::Ping(ping) => ping.encode(),
            Uplink::Pong(pong) => pong.encode_pong(),
            Uplink::Refuse(refuse) => refuse.encode(),
        };
    }
    match Feed::decode(bytes).unwrap() {
        Feed::Data(data) => {
            pack_again(Kind::Data, 0, data.queue, data.session, data.prev, &data.records)
        }
        Feed::Records(data) => {
            pack_again(Kind::Records, 0, data.queue, data.session, data.prev, &data.records)
        }
        Feed::Head(head) => head.encode(),
        Feed::Fetch(fetch) => fetch.encode(),
        Feed::End(end) => end.encode(),
        Feed::Open(open) => open.encode(),
        Feed::Prepare(prepare) => prepare.encode(),
        Feed::Commit(commit) => commit.encode(),
        Feed::Answer(answer) => answer.encode(),
        Feed::Ping(ping) => ping.encode(),
        Feed::Pong(pong) => pong.encode_pong(),
        Feed::Refuse(refuse) => refuse.encode(),
    }
}

fn pack_again(
    kind: Kind,
    round: u16,
    queue: QueueId,
    session: u64,
    prev: Seq,
    records: &Records<'_>,
) -> Bytes {
    let mut batch = BatchBuilder::new(64 * 1024);
    for record in records {
        assert_eq!(batch.push(record.seq, record.time_us, record.payload), Pushed::Taken);
    }
    batch.finish(kind, round, queue, session, prev)
}

fn check(section: &str, frames: Vec<(&'static str, Bytes)>) {
    let vectors = vectors(section);
    let mut wrong = String::new();
    let names: BTreeSet<_> = frames.iter().map(|(name, _)| (*name).to_owned()).collect();
    for (name, frame) in &frames {
        let written = vectors.get(*name).and_then(|vector| vector.hex.clone());
        if written.as_deref() != Some(&frame[..]) {
            wrong += &format!("```hex {section}{name}\n{}```\n\n", to_hex(frame));
        }
        assert_eq!(again(frame), *frame, "{name} is not what it was after reading it");
    }
    assert!(wrong.is_empty(), "the document has other bytes, or none, for:\n{wrong}");
    assert_eq!(vectors.into_keys().collect::<BTreeSet<_>>(), names, "vectors without a frame here");
}

#[test]
fn every_frame_of_the_uplink_is_as_in_the_document() {
    check("uplink.", uplink_frames());
}

#[test]
fn every_frame_of_the_feed_is_as_in_the_document() {
    check("feed.", feed_frames());
}

#[test]
fn a_frame_with_any_bit_flipped_is_refused() {
    for (name, frame) in uplink_frames().into_iter().chain(feed_frames()) {
        for bit in 0..frame.len() * 8 {
            let mut bytes = frame.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::decode(&bytes).is_err(), "{name}, bit {bit}");
        }
    }
}

#[test]
fn a_frame_cut_anywhere_or_with_more_behind_it_is_refused() {
    for (name, frame) in uplink_frames().into_iter().chain(feed_frames()) {
        for length in 0..frame.len() {
            assert!(Frame::decode(&frame[..length]).is_err(), "{name}, {length} bytes");
        }
        let longer = [&frame[..], &[0]].concat();
        assert!(Frame::decode(&longer).is_err(), "{name}");
    }
}

#[test]
fn another_version_is_told_apart_and_can_be_answered() {
    let mut bytes = uplink_frames()[0].1.to_vec();
    bytes[4] = VERSION + 1;
    let refused = Uplink::decode(&bytes);
    assert_eq!(refused, Err(FrameError::Version { version: VERSION + 1 }));
    assert_eq!(origin(&bytes), Some((SOURCE, SESSION)));
}

#[test]
fn a_refusal_with_an_unknown_code_is_still_read() {
    let mut refuse = Refuse::new(SOURCE, SESSION, RefuseCode::Other, "moved to another star");
    refuse.versions = (4, 9);
    let mut bytes = refuse.encode().to_vec();
    // A later version's code, under the checksums it would have.
    bytes[HEADER_BYTES] = 0xee;
    let header = Frame::decode(&refuse.encode()).unwrap().header;
    let later = header.encode(&bytes[HEADER_BYTES..]);
    let Ok(Uplink::Refuse(read)) = Uplink::decode(&later) else { panic!("not read") };
    assert_eq!((read.code, read.versions, read.reason), (RefuseCode::Other, (4, 9), refuse.reason));
}

#[test]
fn a_single_record_may_be_longer_than_a_batch_but_not_than_a_frame() {
    let mut batch = BatchBuilder::new(1_000);
    let long = vec![7; 100_000];
    assert_eq!(batch.push(at(1), 0, &long), Pushed::Taken);
    assert_eq!(batch.push(at(2), 0, b"x"), Pushed::Full);
    let frame = batch.finish(Kind::Batch, 0, SOURCE, SESSION, Seq::ZERO);
    assert_eq!(RecordBatch::from_frame(&frame).unwrap().iter().next().unwrap().payload, long);
    assert_eq!(batch.push(at(2), 0, &vec![0; BODY_BYTES_MAX]), Pushed::TooLarge);
    assert!(batch.is_empty());
}

#[test]
fn a_batch_never_mixes_epochs_nor_skips_a_number() {
    let mut batch = BatchBuilder::new(1_000);
    assert_eq!(batch.push(at(5), 0, b""), Pushed::Taken);
    for other in [at(5), at(7), at(4), Seq::from_parts(4, 1), Seq::from_parts(4, 6)] {
        assert_eq!(batch.push(other, 0, b""), Pushed::Split, "{other}");
    }
    // The counter of an epoch ends: records beyond it do not exist.
    let body = [0; 24];
    assert!(Records::new(Seq::from_parts(1, Seq::COUNTER_MAX), 2, &body).is_err());
    assert!(Records::new(Seq::ZERO, 2, &body).is_err());
    assert!(Records::new(at(1), 2, &body).is_ok());
    assert!(Records::new(at(1), 1, &body).is_err());
    assert!(Records::new(at(1), u32::MAX, &body).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_read_and_nothing_else_happens(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _read = (Uplink::decode(&bytes).is_ok(), Feed::decode(&bytes).is_ok());
        let _note = ConsumerState::from_note(&bytes);
        let _stored = Stored::decode(&bytes);
    }

    #[test]
    fn any_body_under_right_checksums_is_refused_or_read(
        which in 0..17_usize,
        body in prop::collection::vec(any::<u8>(), 0..120),
        count in 0..6_u32,
        base in any::<u64>(),
    ) {
        let frames: Vec<_> = uplink_frames().into_iter().chain(feed_frames()).collect();
        let mut header = Frame::decode(&frames[which].1).unwrap().header;
        (header.count, header.base) = (count, Seq::new(base));
        let frame = header.encode(&body);
        let _read = (Uplink::decode(&frame).is_ok(), Feed::decode(&frame).is_ok());
        let _records = RecordBatch::from_frame(&frame).is_ok();
    }

    #[test]
    fn records_come_out_as_they_went_in_and_are_cut_where_asked(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..80),
        cut in 0..90_u64,
    ) {
        let mut batch = BatchBuilder::new(64 * 1024);
        for (offset, payload) in payloads.iter().enumerate() {
            let pushed = batch.push(at(1 + offset as u64), offset as u64, payload);
            prop_assert_eq!(pushed, Pushed::Taken);
        }
        let frame = batch.finish(Kind::Data, 0, LOG, SESSION, Seq::ZERO);
        let read = RecordBatch::from_frame(&frame).unwrap();
        let found: Vec<_> = read.iter().map(|record| record.payload.to_vec()).collect();
        prop_assert_eq!(&found, &payloads);
        let mut kept = read.clone();
        let left = kept.keep_after(at(cut));
        prop_assert_eq!(left, (cut as usize) < payloads.len());
        if left {
            let found: Vec<_> = kept.iter().map(|record| record.payload.to_vec()).collect();
            prop_assert_eq!(&found[..], &payloads[cut as usize..]);
            prop_assert_eq!(kept.first(), at(cut + 1));
            prop_assert_eq!(kept.last(), read.last());
        }
    }

    #[test]
    fn a_consumers_state_survives_its_note(
        session in any::<u64>(), nonce in any::<u64>(), committed in any::<u64>(),
        pending in prop::option::of((any::<u64>(), any::<u64>(), prop::collection::vec(any::<u8>(), 0..=48))),
    ) {
        let pending = pending.map(|(start, end, plan)| {
            Pending { start: Seq::new(start), end: Seq::new(end), plan }
        });
        let committed = Seq::new(committed);
        let state = ConsumerState { session, nonce, committed, pending, tally: None };
        let note = state.to_note();
        prop_assert!(note.len() <= forebay_wire::feed::NOTE_BYTES_MAX);
        prop_assert_eq!(ConsumerState::from_note(&note), Some(state));
    }
}
