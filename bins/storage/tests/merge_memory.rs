//! An hour of large payloads is merged, and read again, in memory that does not grow with it.
//!
//! Method: the highest private and shared memory of this process (`VmHWM`), which has no other test
//! in it, after files of 250 MiB in all were written one at a time, merged in two rounds and read.
//! It cannot show what an allocator other than the system's would keep.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{path::PathBuf, sync::Arc};

use common::rows::START_US;
use forebay_link::{QueueId, Seq};
use forebay_model::{Body, Message, MessageId, SessionId, Timestamp};
use forebay_storage::{
    lake::{
        Gate, encode,
        merge::{FILES_MAX, Merged, merge},
    },
    read::{Columns, Filter, scan::scan},
    rows::{Cell, Rows},
};
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};

const FILES: u64 = 32;
const ROWS: u64 = 200;
const DEVICES: u64 = 5;
/// 16 open files with a batch and two pages of a MiB each, a row group of 8 MiB and the copies that
/// are made of both, beside what building the files took.
const BYTES_MAX: u64 = 192 << 20;

fn highest_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

/// Bytes that nothing can compress, 16 to 64 KiB of them.
fn payload(number: u64) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(number);
    let mut payload = vec![0; random.random_range(16 << 10..=64 << 10)];
    random.fill_bytes(&mut payload);
    payload
}

/// A file of payloads, of all devices in turn.
fn file(rows: &mut Rows, number: u64) -> encode::File {
    rows.clear(QueueId::new(1));
    for row in number * ROWS + 1..=(number + 1) * ROWS {
        let body = Body::Opaque {
            content_type: "application/x-test".into(),
            payload: payload(row).into(),
        };
        let message = Message {
            tenant: "default".into(),
            device: format!("device-{}", row % DEVICES).into(),
            session: SessionId::new(1).unwrap(),
            seq: MessageId::new(row).unwrap(),
            rejected_before: 0,
            received: Timestamp::from_micros(START_US + row as i64).unwrap(),
            body,
        };
        rows.append(Seq::from_parts(1, row), &message);
    }
    let mut files = encode::encode(rows).unwrap();
    assert_eq!(files.len(), 1, "of one hour");
    files.remove(0)
}

#[test]
fn an_hour_of_large_payloads_is_merged_and_read_in_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(&dir.path().join("lake"));
    let mut rows = Rows::new(QueueId::new(1));
    let (mut inputs, mut bytes) = (Vec::<PathBuf>::new(), 0);
    for number in 0..FILES {
        let file = file(&mut rows, number);
        let name = file.name.to_string();
        assert!(gate.put(file.hour, &name, &file.bytes, &(Arc::new(|_| {}) as _)).unwrap());
        inputs.push(gate.root().join(file.hour.folder()).join(name));
        bytes += file.bytes.len() as u64;
    }
    drop(rows);
    assert!(inputs.len() > FILES_MAX, "in rounds");
    assert!(bytes > BYTES_MAX, "{bytes} B are too few to show anything");
    let built = highest_bytes();
    assert!(built < BYTES_MAX, "{built} B before the merge");

    let output = dir.path().join("merged");
    let merged = merge(&inputs, &output, &|| false).unwrap();
    assert_eq!(merged, Merged { rows: FILES * ROWS, repeated: 0 });
    let after_merge = highest_bytes();
    let mut seen = 0;
    scan(&output, &Filter::default(), Columns::All, &mut |row| {
        let Cell::Opaque { payload: found, .. } = row.value else { panic!("{row:?}") };
        assert!(found == payload(row.seq), "{} is not as it was sent", row.seq);
        seen += 1;
    })
    .unwrap();
    assert_eq!(seen, FILES * ROWS);
    let mib = |bytes: u64| bytes >> 20;
    let after_scan = highest_bytes();
    println!(
        "{} MiB in {FILES} files; at most {} MiB to build, {} MiB to merge, {} MiB to read",
        mib(bytes),
        mib(built),
        mib(after_merge),
        mib(after_scan)
    );
    assert!(after_merge < BYTES_MAX, "{} MiB to merge", mib(after_merge));
    assert!(after_scan < BYTES_MAX, "{} MiB to read", mib(after_scan));
}
