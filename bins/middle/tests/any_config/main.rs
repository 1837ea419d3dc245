//! Any text as a configuration: refused or taken, never a panic; what was taken is printed and taken
//! again, the same.
//!
//! Text at random, text of the words and signs that a configuration is made of, and the corpus of the
//! fuzz target, which runs the same check for longer.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod checks;

use std::path::Path;

use proptest::prelude::*;

/// The corpus of the fuzz target, which holds sound files and variables.
fn corpus() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/ops/fuzz/corpus/config");
    let files = std::fs::read_dir(folder).unwrap();
    files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect()
}

#[test]
fn every_seed_of_the_fuzz_corpus_is_taken_or_refused() {
    let corpus = corpus();
    assert!(corpus.len() >= 4, "only {} seeds", corpus.len());
    corpus.iter().for_each(|text| checks::config(text));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_text_is_taken_or_refused(text in any::<String>()) {
        checks::config(&text);
    }

    #[test]
    fn any_settings_are_taken_or_refused(
        text in r#"(\[?(uplink|feed|fetch|queue|dedup|admin|tls|nothing)\]?(\.|\n| = |=|__))?((listen|capacity|durability|dir|partitions|snapshot_every)? ?= ?("[a-z0-9:/.]{0,12}(MiB|ms|s)?"|[0-9]{1,20}|-?[0-9.]{1,6}|true|\["a", "b"\]|\{\})\n){0,4}"#,
    ) {
        checks::config(&text);
    }

    #[test]
    fn a_seed_with_any_characters_changed_is_taken_or_refused(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<char>()), 1..6),
    ) {
        thread_local!(static CORPUS: Vec<String> = corpus());
        CORPUS.with(|corpus| {
            let mut text: Vec<char> = which.get(corpus).chars().collect();
            for (place, character) in edits {
                if !text.is_empty() {
                    let at = place.index(text.len());
                    text[at] = character;
                }
            }
            checks::config(&text.into_iter().collect::<String>());
        });
    }
}
