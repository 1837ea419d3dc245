//! Any bytes at any decoder: refused or read, never a panic; what was read survives being written
//! and read again.
//!
//! Bytes at random, sound messages with bytes changed, and the corpus of the fuzz targets, which run
//! the same checks for longer. Not shown here: how much a decoder allocates; the fuzz targets run
//! under a limit.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod checks;

use std::path::Path;

use forebay_wire::device::Format;
use proptest::prelude::*;

fn all(bytes: &[u8]) {
    checks::uplink(bytes);
    checks::feed(bytes);
    checks::device(Format::Cbor, bytes);
    checks::device(Format::Json, bytes);
    checks::canonical_entry(bytes);
    checks::live(bytes);
}

/// The corpus of every fuzz target, which holds sound messages of each kind.
fn corpus() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let folders = std::fs::read_dir(root).unwrap().map(|folder| folder.unwrap().path());
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap());
    files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

#[test]
fn every_decoder_takes_every_seed_of_the_fuzz_corpus() {
    let corpus = corpus();
    assert!(corpus.len() >= 20, "only {} seeds", corpus.len());
    for bytes in corpus {
        all(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_decoder_takes_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        all(&bytes);
    }

    #[test]
    fn every_decoder_takes_a_seed_with_any_bytes_changed(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        thread_local!(static CORPUS: Vec<Vec<u8>> = corpus());
        CORPUS.with(|corpus| {
            let mut bytes = which.get(corpus).clone();
            bytes.truncate(cut.index(bytes.len() + 1).max(bytes.len() / 2));
            for (place, byte) in edits {
                if !bytes.is_empty() {
                    let at = place.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            all(&bytes);
        });
    }
}
