//! One synced entry of 256 bytes writes at most 8 KiB to the device.
//!
//! Method: the kernel's own count of sectors written to a loop device (`/sys/dev/block/*/stat`)
//! while entries are appended and waited for one at a time. Without `MADV_RANDOM` before the first
//! touch, recent kernels write a folio of up to 2 MiB for each: see `map.rs` of the queue. Needs
//! root; skips loudly.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use forebay_queue::{Options, Queue};
use forebay_testkit::{Filesystem, LoopMount, or_skip};

const SOON: Duration = Duration::from_secs(20);
const SECTOR_BYTES: u64 = 512;
const ENTRIES: u64 = 200;
const DEVICE_BYTES_MAX: u64 = 8 << 10;

/// Bytes written to the device under `path` since it was attached.
fn written(path: &Path) -> u64 {
    let device = fs::metadata(path).expect("mounted").dev();
    let major = (device >> 8) & 0xfff | (device >> 32) & !0xfff;
    let minor = device & 0xff | (device >> 12) & !0xff;
    let stat = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).expect("sysfs");
    let sectors = stat.split_whitespace().nth(6).expect("seventh: sectors written");
    sectors.parse::<u64>().expect("a number") * SECTOR_BYTES
}

fn bytes_an_entry(filesystem: Filesystem, image_bytes: u64) {
    let Some(mount) = or_skip(LoopMount::new(filesystem, image_bytes)) else { return };
    let dir = mount.path().join("queue");
    let options = Options {
        capacity_bytes: 8 << 20,
        // What cursors and marks cost comes on top, once in this time.
        checkpoint_interval: Duration::from_secs(3600),
        ..Options::default()
    };
    let queue = Queue::create(&dir, &options).expect("create");
    let append = || {
        let seq = queue.append(0, &[7; 256]).expect("room");
        queue.wait_durable(seq, SOON).expect("durable");
    };
    append();
    let before = written(mount.path());
    for _ in 0..ENTRIES {
        append();
    }
    let each = (written(mount.path()) - before) / ENTRIES;
    println!("{filesystem:?}: {each} bytes written for each synced entry of 256 bytes");
    assert!(each >= 256, "{each} bytes: nothing was synced");
    assert!(each <= DEVICE_BYTES_MAX, "{each} bytes for an entry of 256");
}

#[test]
fn one_synced_entry_writes_at_most_8_kib_to_ext4() {
    bytes_an_entry(Filesystem::Ext4, 64 << 20);
}

#[test]
fn one_synced_entry_writes_at_most_8_kib_to_xfs() {
    bytes_an_entry(Filesystem::Xfs, 320 << 20);
}
