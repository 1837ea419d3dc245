//! Each external crate that shapes us comes in through one door, so that it can be replaced there.
//!
//! Checked twice: in the manifests, without dev-dependencies, and in the code outside of tests.
//! `benches` stands other people's queues and brokers beside ours and may use any of them.

use crate::source::{Strings, code, has_word, without_tests};
use crate::{imports, none, workspace};

struct Door {
    /// The crates behind the door.
    crates: &'static [&'static str],
    /// The packages that may depend on them.
    packages: &'static [&'static str],
    /// Where in these packages they may be named: files whose paths begin so.
    places: &'static [&'static str],
}

const DOORS: [Door; 5] = [
    Door {
        crates: &["memmap2"],
        packages: &["crates/queue"],
        places: &["crates/queue/src/map.rs", "crates/queue/src/memory.rs"],
    },
    Door { crates: &["zeromq"], packages: &["crates/link"], places: &["crates/link/src/adapter"] },
    Door {
        crates: &["tokio-tungstenite", "tungstenite"],
        packages: &["bins/front", "bins/storage", "crates/client"],
        places: &[
            "bins/front/src/acceptor",
            "bins/front/src/handshake",
            "bins/front/src/socket",
            "bins/storage/src/live",
            "crates/client/src",
        ],
    },
    Door {
        crates: &["parquet", "arrow-array", "arrow-schema"],
        packages: &["bins/storage", "crates/fleet"],
        places: &["bins/storage/src/lake", "bins/storage/src/read", "crates/fleet/src/checker"],
    },
    Door {
        crates: &["clickhouse", "postgres", "tokio-postgres", "redis"],
        packages: &["bins/storage", "crates/fleet"],
        places: &["bins/storage/src/sink", "crates/fleet/src/checker"],
    },
];

#[test]
fn external_crates_are_imported_by_the_packages_of_their_door_only() {
    let mut faults = Vec::new();
    for package in workspace::packages() {
        for import in imports::dependencies(&package.manifest) {
            let door = DOORS.iter().find(|door| door.crates.contains(&import.as_str()));
            let open = door.is_none_or(|door| door.packages.contains(&package.folder.as_str()));
            if !open && package.folder != "benches" {
                faults.push(format!("{} imports {import}", package.folder));
            }
        }
    }
    none("doors", faults);
}

#[test]
fn external_crates_are_named_behind_their_door_only() {
    let mut faults = Vec::new();
    for (path, source) in workspace::sources() {
        if path.starts_with("benches/") || path.contains("/examples/") {
            continue;
        }
        let code = code(without_tests(&path, &source), Strings::Blank);
        for door in &DOORS {
            if door.places.iter().any(|place| path.starts_with(place)) {
                continue;
            }
            for name in door.crates {
                let named = format!("{}::", name.replace('-', "_"));
                let used = code.match_indices(&named).any(|(at, _)| {
                    // A path that begins with it, not one of our own modules of that name.
                    let before = code[..at].chars().next_back();
                    before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':')
                });
                if used && has_word(&code, &name.replace('-', "_")) {
                    faults.push(format!("{path} names {name}"));
                }
            }
        }
    }
    none("doors", faults);
}
