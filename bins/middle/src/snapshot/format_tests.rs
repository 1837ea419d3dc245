//! The snapshot's bytes: what goes in comes out, and no bytes do harm.
//!
//! Method: round trips of random tables; every single bit of a small chunk flipped; random bytes,
//! also under a right checksum. It cannot show what the medium does between writes: see `slots`.

use proptest::prelude::*;

use super::format::*;
use crate::dedup::{
    Key, Row, RunningTime,
    ranges::{Range, Ranges},
    sources::Source,
};

const SEEN: RunningTime = RunningTime(77);

fn row(device: &str, session: u64, spans: &[(u64, u64)]) -> Row {
    let mut spans = spans.iter().map(|(first, last)| Range { first: *first, last: *last });
    let mut stored = Ranges::of(spans.next().expect("at least one"));
    spans.for_each(|range| {
        stored.insert(range);
    });
    Row::new(Key { tenant: "default", device, session }, SEEN, stored)
}

fn decode(bytes: &[u8]) -> Result<Vec<String>, Bad> {
    let Some((head, payload)) = bytes.split_first_chunk() else {
        return Err(Bad::Chunk { index: 3, what: "missing" });
    };
    let (length, crc) = chunk_header(*head);
    let payload = payload
        .get(..length as usize)
        .filter(|whole| whole.len() == payload.len())
        .ok_or(Bad::Chunk { index: 3, what: "cut off" })?;
    let mut items = Vec::new();
    decode_chunk(9, 3, crc, payload, |item| items.push(format!("{item:?}")))?;
    Ok(items)
}

#[test]
fn a_chunk_comes_back_as_it_was() {
    let rows =
        [row("a", 0, &[(1, 1)]), row("b:c", 1 << 52, &[(5, 9), (11, 11), (1 << 40, 1 << 41)])];
    let mut chunk = Chunk::default();
    rows.iter().for_each(|row| chunk.push_session(row));
    let expected: Vec<_> =
        rows.into_iter().map(|row| format!("{:?}", Item::Session(row))).collect();
    assert_eq!(decode(chunk.finish(9, 3)), Ok(expected));

    chunk.clear();
    let source = Source { position: u64::MAX, seen: SEEN };
    chunk.push_source(u128::MAX, source);
    assert_eq!(
        decode(chunk.finish(9, 3)),
        Ok(vec![format!("{:?}", Item::Source(u128::MAX, source))])
    );
}

#[test]
fn a_flipped_bit_or_a_chunk_of_another_place_is_refused() {
    let mut chunk = Chunk::default();
    chunk.push_session(&row("a", 7, &[(1, 5), (7, 8)]));
    let bytes = chunk.finish(9, 3).to_vec();
    for bit in 0..bytes.len() * 8 {
        let mut torn = bytes.clone();
        torn[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&torn).is_err(), "bit {bit}");
    }
    let (_, crc) = chunk_header(*bytes.first_chunk().expect("8 bytes"));
    assert!(decode_chunk(9, 4, crc, &bytes[8..], |_| ()).is_err(), "another index");
    assert!(decode_chunk(8, 3, crc, &bytes[8..], |_| ()).is_err(), "an older generation");
}

#[test]
fn a_header_comes_back_and_every_flipped_bit_is_seen() {
    let header = Header {
        chunks: 3,
        log: 0x0123_4567_89ab_cdef_0011_2233_4455_6677,
        generation: 42,
        position: 1 << 40 | 17,
        body_bytes: 1000,
        sessions: 12,
        sources: 2,
        running: SEEN,
    };
    let bytes = header.encode();
    assert_eq!(Header::decode(&bytes), Ok(header));
    for bit in 0..bytes.len() * 8 {
        let mut torn = bytes;
        torn[bit / 8] ^= 1 << (bit % 8);
        assert!(Header::decode(&torn).is_err(), "bit {bit}");
    }
    for length in 0..bytes.len() {
        assert!(Header::decode(&bytes[..length]).is_err());
    }
}

/// A chunk with a right checksum around any payload.
fn sealed(payload: &[u8]) -> (u32, Vec<u8>) {
    let mut crc = 9u64.to_le_bytes().to_vec();
    crc.extend_from_slice(&3u32.to_le_bytes());
    crc.extend_from_slice(payload);
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &crc) as u32;
    (crc, payload.to_vec())
}

proptest! {
    #[test]
    fn any_sessions_come_back(
        spans in prop::collection::vec((1u64..1 << 20, 1u64..50), 1..40),
        session in 0u64..1 << 53,
        device in "[a-z0-9][a-z0-9._:-]{0,127}",
    ) {
        let spans: Vec<_> = spans.into_iter().map(|(first, more)| (first, first + more)).collect();
        let row = row(&device, session, &spans);
        let mut chunk = Chunk::default();
        chunk.push_session(&row);
        let expected = format!("{:?}", Item::Session(row));
        prop_assert_eq!(decode(chunk.finish(9, 3)), Ok(vec![expected]));
    }

    #[test]
    fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
        let _ = Header::decode(&bytes);
    }

    #[test]
    fn any_payload_under_a_right_checksum_is_safe(
        kind in 0u8..4,
        count in 0u32..20,
        rest in prop::collection::vec(prop_oneof![Just(1u8), Just(b'a'), 0u8..9, any::<u8>()], 0..160),
    ) {
        let mut payload = vec![kind];
        payload.extend_from_slice(&count.to_le_bytes());
        payload.extend_from_slice(&rest);
        let (crc, payload) = sealed(&payload);
        let mut items = 0;
        let result = decode_chunk(9, 3, crc, &payload, |item| {
            items += 1;
            if let Item::Session(row) = item {
                let all: Vec<_> = row.stored.iter().collect();
                assert!(all.windows(2).all(|two| two[0].last + 1 < two[1].first));
            }
        });
        prop_assert!(result.is_err() || items == count);
    }
}
