//! docs/protocol.md and the code of the frames between tiers change together.
//!
//! Method: the document names the checksum of each file; the vectors in it are run by
//! `link_frames.rs`. Whether the sentences are right is for the eye of whoever renews a checksum.

use std::fmt::Write as _;
use std::path::Path;

const FILES: [&str; 7] = [
    "frame.rs",
    "records.rs",
    "uplink.rs",
    "feed.rs",
    "feed/stored.rs",
    "feed/tally.rs",
    "partition.rs",
];

#[test]
fn the_document_names_the_code_it_describes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("../../docs/protocol.md")).expect("the document");
    let mut expected = String::new();
    for file in FILES {
        let code = std::fs::read(root.join("src").join(file)).expect(file);
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &code);
        writeln!(expected, "- {file}: {crc:08x}").expect("a string takes all");
    }
    assert!(
        page.ends_with(&expected),
        "the frames between tiers have changed: make docs/protocol.md say so, and end it with\n\
         {expected}"
    );
}
