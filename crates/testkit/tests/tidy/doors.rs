//! Each external crate that shapes us comes in through one door, so that it can be replaced there.
//!
//! Checked twice: in the manifests, without dev-dependencies, and in the code outside of tests.
//! `benches` stands other people's queues and brokers beside ours and may use any of them.

use crate::source::{Strings, code, without_tests};
use crate::{imports, none, workspace};

struct Door {
    /// The crates behind the door.
    crates: &'static [&'static str],
    /// The packages that may depend on them.
    packages: &'static [&'static str],
    /// Where in these packages they may be named: files whose paths begin so.
    places: &'static [&'static str],
}

const DOORS: [Door; 8] = [
    Door {
        crates: &["memmap2"],
        packages: &["crates/queue"],
        places: &["crates/queue/src/map.rs", "crates/queue/src/memory.rs"],
    },
    Door {
        // Configurations come from one place; others see them through tokio-rustls, which does I/O.
        crates: &["rustls"],
        packages: &["crates/ops"],
        places: &["crates/ops/src/tls"],
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
            "bins/storage/src/http/socket.rs",
            "crates/client/src",
        ],
    },
    Door {
        crates: &["parquet", "arrow-array", "arrow-schema", "arrow-select"],
        packages: &["bins/storage", "crates/fleet"],
        places: &["bins/storage/src/lake", "bins/storage/src/read", "crates/fleet/src/checker"],
    },
    Door {
        crates: &["clickhouse"],
        packages: &["bins/storage"],
        places: &["bins/storage/src/clickhouse"],
    },
    Door {
        crates: &["postgres", "tokio-postgres"],
        packages: &["bins/storage"],
        places: &["bins/storage/src/postgres"],
    },
    Door { crates: &["redis"], packages: &["bins/storage"], places: &["bins/storage/src/redis"] },
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
        if !path.starts_with("benches/") {
            let named = named_outside(&path, without_tests(&path, &source));
            faults.extend(named.iter().map(|name| format!("{path} names {name}")));
        }
    }
    none("doors", faults);
}

/// The crates that this source names and whose door is elsewhere.
fn named_outside(path: &str, source: &str) -> Vec<&'static str> {
    let code = code(source, Strings::Blank);
    let closed = DOORS.iter().filter(|door| !door.places.iter().any(|at| path.starts_with(at)));
    closed.flat_map(|door| door.crates).copied().filter(|name| names(&code, name)).collect()
}

/// Whether a path in `code` begins with this crate.
fn names(code: &str, name: &str) -> bool {
    let start = format!("{}::", name.replace('-', "_"));
    code.match_indices(&start).any(|(at, _)| {
        // Not one of our own modules or crates whose name ends so.
        let before = code[..at].trim_end_matches("::").chars().next_back();
        let rooted = code[..at].ends_with("::") && !code[..at].ends_with([' ', '(', '<']);
        !rooted && before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
    })
}

#[test]
fn a_crate_named_elsewhere_is_found() {
    let used = "use zeromq::Socket; // parquet::\nfn f(m: memmap2::MmapMut) { \"parquet::\" }";
    assert_eq!(named_outside("bins/front/src/lib.rs", used), ["memmap2", "zeromq"]);
    assert_eq!(named_outside("crates/queue/src/map.rs", used), ["zeromq"]);
    assert!(named_outside("x.rs", "crate::parquet::f(); use my_parquet::g;").is_empty());
}
