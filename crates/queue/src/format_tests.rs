//! The format keeps its promise: what is encoded decodes; what is damaged or misplaced is refused.

use super::*;

fn block() -> SuperBlock {
    SuperBlock { id: QueueId::from_u128(0x1234), capacity: 8192, page_bytes: 4096 }
}

#[test]
fn a_super_block_survives_encoding_and_refuses_strangers() {
    let bytes = block().encode();
    assert_eq!(SuperBlock::decode(&bytes), Ok(block()));
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(SuperBlock::decode(&flipped).is_err(), "bit {bit}");
    }
    let mut other = bytes;
    other[8..12].copy_from_slice(&VERSION.to_be_bytes());
    assert_eq!(SuperBlock::decode(&other), Err("written in another byte order".into()));
}

#[test]
fn a_head_is_valid_only_where_and_for_which_queue_it_was_written() {
    let geometry = Geometry::new(&block());
    let head = Head::entry(100, 7, Seq::new(1, 2), 99, 64);
    let bytes = head.encode(&geometry, 8192 + 64);
    assert_eq!(Head::decode(&bytes, &geometry, 8192 + 64), Some(head));
    assert_eq!(head.proven(8192 + 64), Some(8192));
    // An earlier lap, another place, another queue.
    assert_eq!(Head::decode(&bytes, &geometry, 64), None);
    assert_eq!(Head::decode(&bytes, &geometry, 8192 + 72), None);
    let stranger = Geometry::new(&SuperBlock { id: QueueId::from_u128(1), ..block() });
    assert_eq!(Head::decode(&bytes, &stranger, 8192 + 64), None);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Head::decode(&flipped, &geometry, 8192 + 64), None, "bit {bit}");
    }
}

#[test]
fn a_record_that_would_leave_its_lap_is_no_record() {
    let geometry = Geometry::new(&block());
    let at = 8192 - 64;
    let fits = Head::entry(32, 0, Seq::new(1, 1), 0, 0);
    let leaves = Head::entry(33, 0, Seq::new(1, 1), 0, 0);
    assert!(Head::decode(&fits.encode(&geometry, at), &geometry, at).is_some());
    assert!(Head::decode(&leaves.encode(&geometry, at), &geometry, at).is_none());
    let pad = Head::pad(64, Seq::new(1, 1));
    assert!(
        Head::decode(&pad.encode(&geometry, at), &geometry, at)
            .is_some_and(|head| !head.is_entry())
    );
}

#[test]
fn a_slot_survives_encoding_and_refuses_any_flipped_bit() {
    let mark = |position, counter| Mark { position, seq: Seq::new(3, counter) };
    let slot = Slot {
        generation: 9,
        head: mark(64, 1),
        durable: mark(640, 5),
        tail: mark(704, 6),
        epoch: 3,
        epoch_position: 64,
        process: true,
        readers: vec![
            Row { name: "lake".into(), cursor: mark(64, 1), note: vec![1, 2, 3] },
            Row {
                name: "x".repeat(NAME_BYTES_MAX),
                cursor: mark(640, 5),
                note: vec![9; NOTE_BYTES_MAX],
            },
        ],
    };
    let bytes = slot.encode();
    assert_eq!(Slot::decode(&bytes, 8192), Some(slot.clone()));
    assert_eq!(Slot::decode(&bytes, 512), None, "more than the ring holds");
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Slot::decode(&flipped, 8192), None, "bit {bit}");
    }
}

#[test]
fn pieces_of_a_range_follow_the_ring_around() {
    let geometry = Geometry::new(&block());
    let base = 3 * 4096;
    assert_eq!(geometry.pieces(100, 200), [(base + 100, 100), (base + 200, 0)]);
    assert_eq!(geometry.pieces(8000, 8400), [(base + 8000, 192), (base, 208)]);
    assert_eq!(geometry.pieces(8192, 16384), [(base, 8192), (base, 0)]);
}
