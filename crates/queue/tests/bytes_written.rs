//! One synced entry dirties a page or two, not a folio of 2 MiB.
//!
//! Method: the bytes that the kernel accounts to this thread as dirtied in the page cache of a file,
//! which is what the next sync writes. On recent kernels ext4 caches files in large folios, and a
//! store of one byte then dirties 2,097,152 of them; `MADV_RANDOM` before the first touch of a page
//! keeps folios small. Cannot show: what the journal adds on the device.

use std::io::Write;
use std::time::Duration;

use forebay_queue::{Options, Queue};

/// Bytes dirtied by this thread so far; `None` where the kernel does not count.
fn dirtied_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/io").ok()?;
    text.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.trim().parse().ok()
}

#[test]
fn a_lone_acknowledgement_writes_at_most_two_pages() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("directory");
    let options = Options { capacity_bytes: 16 << 20, ..Options::default() };
    let queue = match Queue::create(dir.path(), &options) {
        Ok(queue) => queue,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "SKIPPED a_lone_acknowledgement: {error}");
            assert!(std::env::var_os("CI").is_none(), "CI must have ext4 or xfs: {error}");
            return;
        }
    };
    let ack = || {
        let seq = queue.append(1, &[7; 256]).expect("append");
        queue.wait_durable(seq, Duration::from_secs(20)).expect("durable");
    };
    ack();
    let Some(before) = dirtied_bytes() else {
        let _ = writeln!(std::io::stderr(), "SKIPPED a_lone_acknowledgement: no /proc io");
        return;
    };
    let count = 300;
    (0..count).for_each(|_| ack());
    let each = (dirtied_bytes().expect("counted before") - before) / count;
    assert!((256..=8192).contains(&each), "{each} bytes an acknowledgement");
}
