//! Other people's queues, each as its own documentation uses it, at the durability it really gives.

use std::path::Path;
use std::time::{Duration, Instant};

use forebay_queue::{Durability, Queue};

use forebay_benches::{Goal, Report, median};

use crate::{MIB, fresh, group_commit, nanos_each, options, streaming};

const PAYLOAD: [u8; 256] = [7; 256];
const BURST: usize = 50_000;
const ROUNDS: usize = 5;

/// Nanoseconds an append, in a directory of its own.
type Peer = fn(&Path) -> f64;

/// Appends without a sync, then synced commits, ours beside theirs.
pub(crate) fn run(report: &Report, root: &Path) {
    let ours = ours(root);
    // Its own trace of each append counts against it unless it is told to be quiet.
    let is_quiet = std::env::var_os("WALRUS_QUIET").is_some();
    let walrus_name = if is_quiet { "walrus" } else { "walrus with its trace" };
    let peers: [(&str, Peer); 4] = [
        ("yaque", yaque),
        ("mrecordlog", mrecordlog),
        ("queue-file", queue_file),
        (walrus_name, walrus),
    ];
    for (name, peer) in peers {
        let theirs = peer(&fresh(root, name));
        report.add(&format!("{name}: an append"), theirs, "ns", Goal::None);
        let goal = Goal::AtLeast(10.0);
        report.add(&format!("{name}: an append"), theirs / ours, "x ours", goal);
        let _ = std::fs::remove_dir_all(root.join(name));
    }
    let buffered = mrecordlog_buffered(&fresh(root, "mrecordlog"));
    // Lost at a kill, so that nothing of ours stands beside it.
    report.add("mrecordlog: an append into its buffer", buffered, "ns", Goal::None);
    let acks = okaywal_acks(&fresh(root, "okaywal"), 64);
    report.add("okaywal: commits, 64 threads", acks, "1/s", Goal::None);
    let ratio = group_commit(report, root, 64, 2.0) / acks;
    report.add("disk: 64 waiters", ratio, "x okaywal", Goal::AtLeast(1.5));
    let records = okaywal_records(&fresh(root, "okaywal"));
    report.add("okaywal: records, 64 a commit, each awaited", records, "1/s", Goal::None);
    // It can only await each commit; ours can, and need not.
    let awaited = super::awaited_batches(report, root) / records;
    report.add("disk: batches of 64, each awaited", awaited, "x okaywal", Goal::None);
    let ratio = streaming(report, root) / records;
    report.add("disk: streaming", ratio, "x okaywal, awaited", Goal::AtLeast(2.0));
}

fn rounds(mut burst: impl FnMut()) -> f64 {
    burst();
    median((0..ROUNDS).map(|_| nanos_each(BURST, &mut burst)).collect())
}

fn ours(root: &Path) -> f64 {
    let options = options(64 * MIB, Durability::Process);
    let queue = Queue::create(fresh(root, "ring"), &options).expect("queue");
    // Only the appends count: the space is freed in between.
    let burst = || {
        let nanos = nanos_each(BURST, || {
            for _ in 0..BURST {
                queue.append(1, &PAYLOAD).expect("append");
            }
        });
        let mut reader = queue.reader("bench").expect("reader");
        for note in [b"1", b"2", b"3"] {
            reader.commit_durable(queue.appended(), Some(note)).expect("commit");
        }
        nanos
    };
    // A ring is past its first lap for all of its life but seconds.
    let lap = 64 * MIB as usize / 288 / BURST + 1;
    for _ in 0..lap {
        burst();
    }
    median((0..ROUNDS).map(|_| burst()).collect())
}

fn yaque(dir: &Path) -> f64 {
    let mut sender = yaque::Sender::open(dir).expect("yaque");
    rounds(|| {
        for _ in 0..BURST {
            sender.try_send(PAYLOAD).expect("send");
        }
    })
}

/// As it opens by default: each append is handed to the kernel, and survives a kill, as ours does.
/// No policy of version 0.4 syncs the file.
fn mrecordlog(dir: &Path) -> f64 {
    // A hand-over to another thread each: fewer will do.
    mrecordlog_with(dir, mrecordlog::SyncPolicy::OnAppend, BURST / 10)
}

/// Into a buffer of 32 KiB in the process, which a kill takes along.
fn mrecordlog_buffered(dir: &Path) -> f64 {
    let never = mrecordlog::SyncPolicy::OnDelay(Duration::from_secs(3600));
    mrecordlog_with(dir, never, BURST)
}

fn mrecordlog_with(dir: &Path, policy: mrecordlog::SyncPolicy, burst: usize) -> f64 {
    std::fs::create_dir_all(dir).expect("directory");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    runtime.block_on(async {
        let mut log =
            mrecordlog::MultiRecordLog::open_with_prefs(dir, policy).await.expect("mrecordlog");
        log.create_queue("q").await.expect("queue");
        let mut times = Vec::new();
        for _ in 0..=ROUNDS {
            let started = Instant::now();
            for _ in 0..burst {
                log.append_record("q", None, &PAYLOAD[..]).await.expect("append");
            }
            times.push(started.elapsed().as_nanos() as f64 / burst as f64);
        }
        median(times)
    })
}

fn queue_file(dir: &Path) -> f64 {
    std::fs::create_dir_all(dir).expect("directory");
    let mut queue =
        queue_file::QueueFile::with_capacity(dir.join("queue"), 256 << 20).expect("queue-file");
    queue.set_sync_writes(false);
    rounds(|| {
        for _ in 0..BURST {
            queue.add(&PAYLOAD).expect("add");
        }
    })
}

fn walrus(dir: &Path) -> f64 {
    std::fs::create_dir_all(dir).expect("directory");
    // It knows no path of its own: files go below the current directory.
    let before = std::env::current_dir().expect("current directory");
    std::env::set_current_dir(dir).expect("directory");
    let nanos = {
        let log = walrus_rust::Walrus::with_consistency_and_schedule(
            walrus_rust::ReadConsistency::StrictlyAtOnce,
            walrus_rust::FsyncSchedule::Milliseconds(200),
        )
        .expect("walrus");
        rounds(|| {
            for _ in 0..BURST {
                log.append_for_topic("q", &PAYLOAD).expect("append");
            }
        })
    };
    std::env::set_current_dir(before).expect("directory");
    nanos
}

fn okaywal_acks(dir: &Path, threads: usize) -> f64 {
    let log = okaywal::WriteAheadLog::recover(dir, okaywal::LogVoid).expect("okaywal");
    let seconds = 2.0;
    let deadline = Instant::now() + Duration::from_secs_f64(seconds);
    let done: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut done = 0;
                    while Instant::now() < deadline {
                        let mut entry = log.begin_entry().expect("entry");
                        entry.write_chunk(&PAYLOAD).expect("chunk");
                        entry.commit().expect("commit");
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("worker")).sum()
    });
    done as f64 / seconds
}

fn okaywal_records(dir: &Path) -> f64 {
    let log = okaywal::WriteAheadLog::recover(dir, okaywal::LogVoid).expect("okaywal");
    let commits = 5_000;
    let started = Instant::now();
    for _ in 0..commits {
        let mut entry = log.begin_entry().expect("entry");
        for _ in 0..64 {
            entry.write_chunk(&PAYLOAD).expect("chunk");
        }
        entry.commit().expect("commit");
    }
    commits as f64 * 64.0 / started.elapsed().as_secs_f64()
}
