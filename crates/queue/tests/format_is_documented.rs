//! The document and the code of the storage format change together, and old files keep opening.
//!
//! Method: the document names the checksum of `format.rs`; a file written by version 1 lies beside
//! this test and is opened by every later version.

use std::path::Path;

use forebay_queue::{Options, Queue, QueueId, Seq, tools::Image};

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |state, byte| {
        (0..8).fold(state ^ u32::from(*byte), |state, _| {
            (state >> 1) ^ (0x82f6_3b78 & (state & 1).wrapping_neg())
        })
    })
}

#[test]
fn the_document_knows_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let code = std::fs::read(root.join("src/format.rs")).expect("format.rs");
    // A packaged crate comes without the workspace's documents.
    let Ok(page) = std::fs::read_to_string(root.join("../../docs/storage-format.md")) else {
        return;
    };
    let expected = format!("format.rs: {:08x}", crc32c(&code));
    assert!(
        page.trim_end().ends_with(&expected),
        "format.rs has changed: make docs/storage-format.md say so, and end it with `{expected}`"
    );
}

/// What the golden file holds from the cursor on: entry `n` of epoch 1.
fn payload(n: u64) -> Vec<u8> {
    (0..n * 13 % 200).map(|byte| (byte * 3 + n) as u8).collect()
}

fn options() -> Options {
    Options {
        capacity_bytes: 8192,
        entry_bytes_max: 1024,
        any_filesystem: true,
        ..Options::default()
    }
}

#[test]
fn the_golden_file_of_version_1_opens() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.ring");
    let dir = tempfile::tempdir().expect("directory");
    std::fs::copy(golden, dir.path().join("ring")).expect("the golden file");
    let image = Image::open(dir.path()).expect("image");
    assert!(image.verdict().is_clean());
    assert_eq!(image.id(), QueueId::from_u128(0x676f_6c64_656e));
    let entries: Vec<_> = image.entries().map(|e| (e.seq, e.time_us, e.payload.to_vec())).collect();
    let expected: Vec<_> = (261..=300).map(|n| (Seq::new(1, n), n * 1000, payload(n))).collect();
    assert_eq!(entries, expected);
    let queue = Queue::open(dir.path(), &options()).expect("open");
    let mut reader = queue.reader("golden").expect("reader");
    assert_eq!((reader.cursor(), reader.note()), (Seq::new(1, 260), b"a note".to_vec()));
    let batch = reader.peek(1000, 1 << 20).expect("peek");
    assert_eq!(batch.len(), expected.len());
    assert_eq!(queue.append(0, b"new").expect("append"), Seq::new(2, 1));
}

/// Writes the golden file; by hand, when a version is made.
#[test]
#[ignore = "writes tests/golden/v1.ring"]
fn write_the_golden_file() {
    use forebay_queue::testing;
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.ring");
    let dir = tempfile::tempdir().expect("directory");
    let mut bytes = testing::fresh(0x676f_6c64_656e, 8192);
    bytes.resize(testing::file_bytes(8192) as usize, 0);
    std::fs::write(dir.path().join("ring"), bytes).expect("fresh file");
    let queue = Queue::open(dir.path(), &options()).expect("open");
    let mut reader = queue.reader("golden").expect("reader");
    for n in 1..=300 {
        let seq = queue.append(n * 1000, &payload(n)).expect("append");
        if n <= 260 {
            queue.wait_durable(seq, std::time::Duration::from_secs(5)).expect("durable");
            reader.commit_durable(seq, Some(b"a note")).expect("commit");
        }
    }
    drop(reader);
    queue.close().expect("close");
    std::fs::create_dir_all(golden.parent().expect("folder")).expect("folder");
    std::fs::copy(dir.path().join("ring"), golden).expect("copy");
}
