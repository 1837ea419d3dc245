//! A queue in a hostile place says what is wrong, leaves nothing behind and loses nothing.
//!
//! Method: file systems of the test's own (loop-mounted ext4, a tmpfs with a size), permissions, and
//! files that others cut short. Needs root; skips loudly. `files.rs` of the queue has what needs no
//! mount.
//!
//! Not survivable, and documented: a file cut short *under* a live mapping is a SIGBUS at the next
//! touch, by the kernel's rule. The process dies, and the next open says what is wrong.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use forebay_queue::{Durability, Error, Options, Queue, Seq};
use forebay_testkit::{Filesystem, LoopMount, or_skip};

const SOON: Duration = Duration::from_secs(20);
const DIR: &str = "FOREBAY_HOSTILE_DIR";
const WHAT: &str = "FOREBAY_HOSTILE_WHAT";
const SIGBUS: i32 = 7;
const NOBODY: u32 = 65_534;

fn options(capacity_bytes: u64) -> Options {
    Options { capacity_bytes, entry_bytes_max: 4 << 10, ..Options::default() }
}

fn ext4() -> Option<LoopMount> {
    or_skip(LoopMount::new(Filesystem::Ext4, 16 << 20))
}

fn names(dir: &Path) -> Vec<String> {
    let files = fs::read_dir(dir).expect("readable").flatten();
    files.map(|file| file.file_name().to_string_lossy().into_owned()).collect()
}

/// What the children of these tests do.
#[test]
#[ignore = "the child process of the tests here"]
fn child() {
    let (Some(dir), Ok(what)) = (std::env::var_os(DIR), std::env::var(WHAT)) else { return };
    let dir = Path::new(&dir);
    match what.as_str() {
        "create" => {
            let error = Queue::create(dir.join("new"), &options(64 << 10)).expect_err("refused");
            assert!(error.to_string().contains("ermission denied"), "{error}");
            assert!(error.to_string().contains("/new"), "names the place: {error}");
        }
        "open" => {
            let error = Queue::open(dir, &options(64 << 10)).expect_err("refused");
            assert!(matches!(error, Error::Io { action: "open", .. }), "{error}");
            assert!(error.to_string().contains("ermission denied"), "{error}");
        }
        "locked" => {
            let error = Queue::open(dir, &options(64 << 10)).expect_err("refused");
            assert!(matches!(error, Error::Locked { .. }), "{error}");
        }
        "truncated" => {
            let queue = Queue::open(dir, &options(64 << 10)).expect("opens");
            File::options()
                .write(true)
                .open(dir.join("ring"))
                .expect("there")
                .set_len(8192)
                .expect("cut short");
            // Somewhere in here the kernel ends the process.
            for _ in 0..100 {
                let seq = queue.append(0, &[1; 4096]).expect("room");
                queue.wait_durable(seq, SOON).expect("never said of what has no medium");
                queue.reader("r").expect("free").commit(seq).expect("commits");
            }
        }
        other => panic!("{other}"),
    }
}

/// Runs the child and says how it ended.
fn run(what: &str, dir: &Path, as_nobody: bool) -> std::process::ExitStatus {
    // A copy that everybody may execute.
    let home = tempfile::tempdir().expect("directory");
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    let program = home.path().join("child");
    fs::copy(std::env::current_exe().expect("this test"), &program).expect("copies");
    let mut child = Command::new(&program);
    child.args(["child", "--exact", "--ignored"]).env(DIR, dir).env(WHAT, what);
    child.current_dir("/").stdout(Stdio::null());
    if as_nobody {
        child.uid(NOBODY).gid(NOBODY);
    }
    child.status().expect("starts")
}

#[test]
fn a_full_disk_refuses_a_new_queue_and_nothing_is_left_of_it() {
    let Some(mount) = ext4() else { return };
    let dir = mount.path().join("queue");
    let error = Queue::create(&dir, &options(64 << 20)).expect_err("it cannot fit");
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert!(error.to_string().contains("No space left"), "{error}");
    assert_eq!(names(&dir), Vec::<String>::new());
    // And there is room for one that fits.
    Queue::create(&dir, &options(1 << 20)).expect("fits").close().expect("closes");
}

#[test]
fn a_disk_that_fills_up_later_costs_a_queue_nothing() {
    let Some(mount) = ext4() else { return };
    let dir = mount.path().join("queue");
    let queue = Queue::create(&dir, &options(1 << 20)).expect("create");
    let filler = mount.path().join("filler");
    let mut file = File::create(&filler).expect("a file");
    while std::io::Write::write_all(&mut file, &[1; 1 << 16]).is_ok() {}
    let _ = file.sync_all();
    let mut reader = queue.reader("r").expect("reader");
    for lap in 0..1_500u32 {
        let seq = queue.append(0, &[lap as u8; 2048]).expect("its room was set aside");
        if lap % 16 == 0 {
            queue.wait_durable(seq, SOON).expect("durable on a full disk");
            reader.commit(seq).expect("commits");
        }
    }
    let last = queue.appended();
    drop(reader);
    queue.close().expect("closes");
    let queue = Queue::open(&dir, &options(1 << 20)).expect("opens on a full disk");
    assert_eq!(queue.recovery().corrupt_ranges, 0);
    let mut tail = queue.tail(Some(Seq::new(last.epoch(), last.counter() - 1)));
    assert_eq!(
        tail.read(9, 1 << 20).expect("reads").iter().map(|e| e.seq).collect::<Vec<_>>(),
        [last]
    );
}

#[test]
fn a_read_only_volume_is_a_clear_error_and_loses_nothing() {
    let Some(mount) = ext4() else { return };
    let dir = mount.path().join("queue");
    let queue = Queue::create(&dir, &options(64 << 10)).expect("create");
    queue.append(0, b"kept").expect("append");
    queue.close().expect("closes");
    let remount = |how: &str| {
        let done = Command::new("mount").args(["-o", how]).arg(mount.path()).status();
        assert!(done.expect("mount is there").success(), "{how}");
    };
    remount("remount,ro");
    let error = Queue::open(&dir, &options(64 << 10)).expect_err("read-only");
    assert!(error.to_string().contains("Read-only file system"), "{error}");
    let error =
        Queue::create(mount.path().join("other"), &options(64 << 10)).expect_err("read-only");
    assert!(error.to_string().contains("Read-only file system"), "{error}");
    // The tools read it all the same.
    assert_eq!(forebay_queue::tools::Image::open(&dir).expect("image").entries().count(), 1);
    remount("remount,rw");
    assert_eq!(Queue::open(&dir, &options(64 << 10)).expect("opens").recovery().entries, 1);
}

#[test]
fn a_volume_that_goes_away_ends_the_queue_and_keeps_what_was_acked() {
    let Some(mut mount) = ext4() else { return };
    let dir = mount.path().join("queue");
    let queue = Queue::create(&dir, &options(64 << 10)).expect("create");
    let acked = queue.append(0, b"acked").expect("append");
    queue.wait_durable(acked, SOON).expect("durable");
    mount.cut().expect("it can be cut");
    // Whoever comes to the medium first: the sync thread, or this wait.
    let late = queue.append(0, b"late").and_then(|late| queue.wait_durable(late, SOON));
    let error = late.expect_err("there is no medium");
    assert!(matches!(error, Error::Io { action: "msync", .. }), "{error}");
    assert!(matches!(queue.append(0, b"no more"), Err(Error::Io { .. })), "the end is final");
    assert_eq!(queue.durable(), acked);
    assert!(queue.close().is_err(), "not everything is on the medium");
    mount.unmount().expect("unmounts");
    // The bare mount point: no queue, and none is made silently.
    assert!(matches!(Queue::open(&dir, &options(64 << 10)), Err(Error::Missing { .. })));
    mount.mount().expect("mounts");
    let queue = Queue::open(&dir, &options(64 << 10)).expect("opens");
    let mut tail = queue.tail(Some(Seq::NONE));
    let batch = tail.read(9, 1 << 20).expect("reads");
    assert_eq!(batch.iter().next().map(|entry| entry.payload.to_vec()), Some(b"acked".to_vec()));
}

#[test]
fn strangers_are_refused_by_permission_and_told_where() {
    let Some(mount) = ext4() else { return };
    let dir = mount.path().join("queue");
    Queue::create(&dir, &options(64 << 10)).expect("create").close().expect("closes");
    let ring = fs::read(dir.join("ring")).expect("file");
    fs::set_permissions(mount.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    // The mount lies in a folder that only root may enter.
    let home = mount.path().parent().expect("it has one");
    fs::set_permissions(home, fs::Permissions::from_mode(0o755)).expect("ours");
    assert!(run("open", &dir, true).success(), "somebody else's file");
    assert!(run("create", mount.path(), true).success(), "somebody else's directory");
    assert_eq!(fs::read(dir.join("ring")).expect("file"), ring, "touched");
    assert_eq!(names(&dir), ["ring"]);
    chown(dir.join("ring"), Some(NOBODY), None).expect("root may");
    fs::set_permissions(dir.join("ring"), fs::Permissions::from_mode(0o444)).expect("root may");
    assert!(run("open", &dir, true).success(), "its own file, but read-only");
}

#[test]
fn a_second_process_is_refused_while_the_first_lives() {
    let Some(mount) = ext4() else { return };
    let dir = mount.path().join("queue");
    let queue = Queue::create(&dir, &options(64 << 10)).expect("create");
    assert!(run("locked", &dir, false).success());
    queue.append(0, b"undisturbed").expect("append");
}

#[test]
fn a_file_cut_short_under_the_mapping_ends_the_process_and_the_next_open_says_so() {
    let Some(mount) = ext4() else { return };
    let dir = mount.path().join("queue");
    Queue::create(&dir, &options(64 << 10)).expect("create").close().expect("closes");
    let ended = run("truncated", &dir, false);
    assert!(ended.signal() == Some(SIGBUS) || !ended.success(), "it went on: {ended}");
    let error = Queue::open(&dir, &options(64 << 10)).expect_err("cut short");
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("truncated"), "{error}");
}

#[test]
fn file_systems_in_memory_are_refused_for_disk_unless_overridden_and_their_size_is_kept() {
    if !is_root() {
        return forebay_testkit::skip("only root can mount");
    }
    let home = tempfile::tempdir().expect("directory");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "none"])
        .arg(home.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        return forebay_testkit::skip("a tmpfs cannot be mounted");
    }
    let dir = home.path().join("queue");
    let checks = std::panic::catch_unwind(|| {
        let error = Queue::create(&dir, &options(64 << 10)).expect_err("no medium");
        assert!(matches!(&error, Error::Filesystem { filesystem, .. } if filesystem == "tmpfs"));
        assert!(error.to_string().contains("ext4 or xfs"), "says what to do: {error}");
        let anyway = Options { any_filesystem: true, ..options(64 << 10) };
        Queue::create(&dir, &anyway).expect("overridden").close().expect("closes");
        assert!(matches!(Queue::open(&dir, &options(64 << 10)), Err(Error::Filesystem { .. })));
        let process = Options { durability: Durability::Process, ..options(64 << 10) };
        Queue::open(&dir, &process).expect("process needs no medium").close().expect("closes");
        let large = Options { capacity_bytes: 4 << 20, ..anyway };
        let error = Queue::create(home.path().join("large"), &large).expect_err("too large");
        assert!(error.to_string().contains("No space left"), "{error}");
        assert_eq!(names(&home.path().join("large")), Vec::<String>::new());
    });
    let unmounted = Command::new("umount").arg("-l").arg(home.path()).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    if let Err(failed) = checks {
        std::panic::resume_unwind(failed);
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}
