//! The document and the code of the snapshot's format change together, and old files stay readable.
//!
//! Method: docs/snapshot-format.md names the checksum of `format.rs`; a slot written by version 1
//! lies in `bins/middle/tests/golden`, must be what this version writes, and must read as it did.

use std::path::{Path, PathBuf};

use super::format::{Chunk, Header, Item};
use super::slot::{FileMedium, Medium, SlotWriter, read_body, read_header};
use crate::dedup::{
    Key, Row, RunningTime,
    ranges::{Range, Ranges},
    sources::Source,
};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.snapshot")
}

fn sources() -> [(u128, Source); 2] {
    let source = |position, seen| Source { position, seen: RunningTime(seen) };
    [(0xfeed, source(1 << 40 | 17, 60)), (u128::MAX, source(3 << 40 | 1, 61))]
}

fn sessions() -> [Row; 2] {
    let key = |device, session| Key { tenant: "default", device, session };
    let mut roamed = Ranges::of(Range { first: 1, last: 300 });
    roamed.insert(Range { first: 302, last: 302 });
    roamed.insert(Range { first: 1 << 33, last: (1 << 33) + 9 });
    [
        Row::new(key("pump-7", 4_611_686_018_427), RunningTime(59), roamed),
        Row::new(key("urn:dev:8", 0), RunningTime(7), Ranges::of(Range { first: 5, last: 5 })),
    ]
}

/// Writes the slot as this version does.
fn write(path: &Path) {
    let mut slot = FileMedium::open(path).unwrap();
    let mut writer = SlotWriter::begin(&mut slot, 42);
    let mut chunk = Chunk::default();
    sources().into_iter().for_each(|(queue, source)| chunk.push_source(queue, source));
    writer.chunk(&mut chunk).unwrap();
    sessions().iter().for_each(|row| chunk.push_session(row));
    writer.chunk(&mut chunk).unwrap();
    writer.sync_body().unwrap();
    let header = Header {
        chunks: 0,
        log: 0xf00d,
        generation: 42,
        position: 2 << 40 | 1_000,
        body_bytes: 0,
        sessions: 2,
        sources: 2,
        running: RunningTime(61),
    };
    writer.header(header).unwrap();
    writer.sync_header().unwrap();
}

#[test]
fn the_golden_slot_of_version_1_is_what_is_written_and_reads_as_it_did() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("slot");
    write(&path);
    let bytes = std::fs::read(golden()).expect("the golden file");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    std::fs::write(&path, &bytes).unwrap();
    let slot = FileMedium::open(&path).unwrap();
    let header = read_header(&slot).unwrap();
    assert_eq!((header.chunks, header.log, header.generation), (2, 0xf00d, 42));
    assert_eq!((header.position, header.running), (2 << 40 | 1_000, RunningTime(61)));
    assert_eq!(slot.length_bytes().unwrap(), super::format::BODY_OFFSET + header.body_bytes);
    let mut items = Vec::new();
    read_body(&slot, &header, |item| items.push(format!("{item:?}"))).unwrap();
    let sources = sources().into_iter().map(|(queue, source)| Item::Source(queue, source));
    let sessions = sessions().into_iter().map(Item::Session);
    assert!(items.into_iter().eq(sources.chain(sessions).map(|item| format!("{item:?}"))));
}

#[test]
fn the_document_knows_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let code = std::fs::read(root.join("src/snapshot/format.rs")).unwrap();
    let page = std::fs::read_to_string(root.join("../../docs/snapshot-format.md")).unwrap();
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &code);
    let expected = format!("format.rs: {crc:08x}");
    assert!(
        page.trim_end().ends_with(&expected),
        "format.rs has changed: make docs/snapshot-format.md say so, and end it with `{expected}`"
    );
}

/// Writes the golden file; by hand, when a version is made.
#[test]
#[ignore = "writes tests/golden/v1.snapshot"]
fn write_the_golden_file() {
    std::fs::create_dir_all(golden().parent().unwrap()).unwrap();
    write(&golden());
}
