//! The queue against its floor, which is memory copy, CRC-32C and store into the same kind of
//! mapping, and against other people's queues.
//!
//! `cargo bench -p forebay-benches [--features peers] --bench queue [-- --json --quick --only PART]`.
//! Every figure is the median of several rounds, and a ratio where there is something to compare
//! with in the same run. A part is a function here, as `appends` or `hop`. `FOREBAY_BENCH_DIR` names the directory on ext4 or xfs; default: `target/bench-queue`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use forebay_benches::{Goal, Report, median, options::Shown};
use forebay_queue::floor::Floor;
use forebay_queue::{Durability, Options, Queue};

#[cfg(feature = "peers")]
#[path = "queue/peers.rs"]
mod peers;

/// Rounds of which the median is taken.
const ROUNDS: usize = 9;
const MIB: u64 = 1 << 20;

fn options(capacity_bytes: u64, durability: Durability) -> Options {
    Options { capacity_bytes, durability, any_filesystem: true, ..Options::default() }
}

fn fresh(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    let _ = std::fs::remove_dir_all(&path);
    path
}

fn nanos_each(count: usize, work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_nanos() as f64 / count as f64
}

/// Commits everything and waits until the space is free again.
fn drain(queue: &Queue) {
    let mut reader = queue.reader("bench").expect("reader");
    let upto = queue.appended();
    queue.wait_durable(upto, Duration::from_secs(30)).expect("durable");
    reader.commit_durable(upto, None).expect("commit");
    reader.commit_durable(upto, Some(&[1])).expect("commit");
    reader.commit_durable(upto, Some(&[2])).expect("commit");
}

/// Appends, batches, reads: each in bursts of half a ring against the floor's same bursts.
fn appends(report: &Report, dir: &Path, place: &str, payload_bytes: usize, ring_mib: u64) {
    let goals = place == "ext4" && payload_bytes == 256 && ring_mib == 64;
    let goal = |goal| if goals { goal } else { Goal::None };
    let name = |what: &str| format!("{what} {payload_bytes} B, {ring_mib} MiB, {place}");
    let payload = vec![7u8; payload_bytes];
    let record = 32 + payload_bytes.next_multiple_of(8);
    let burst = (ring_mib * MIB) as usize / record / 2 / 128 * 128;
    let floor_dir = fresh(dir, "floor");
    std::fs::create_dir_all(&floor_dir).expect("directory");
    let mut floor =
        Floor::create(&floor_dir.join("floor"), (ring_mib * MIB) as usize).expect("floor");
    let ring_dir = fresh(dir, "ring");
    let queue =
        Queue::create(&ring_dir, &options(ring_mib * MIB, Durability::Process)).expect("queue");
    let batch: Vec<&[u8]> = vec![&payload; 64];
    let mut kinds: [Vec<f64>; 5] = Default::default();
    // Two bursts of warming up: every page once.
    for round in 0..ROUNDS + 2 {
        let floor_ns = nanos_each(burst, || (0..burst).for_each(|_| floor.store(&payload)));
        let append_ns = nanos_each(burst, || {
            for _ in 0..burst {
                queue.append(1, &payload).expect("append");
            }
        });
        drain(&queue);
        let batch_ns = nanos_each(burst, || {
            for _ in 0..burst / 64 {
                queue.append_batch(1, &batch).expect("append");
            }
        });
        drain(&queue);
        let mut reader = queue.reader("bench").expect("reader");
        let read_ns = nanos_each(burst, || {
            let mut sum = 0;
            for _ in 0..burst / 64 {
                for _ in 0..64 {
                    queue.append(1, &payload).expect("append");
                }
                let batch = reader.peek(64, 1 << 20).expect("peek");
                let last = batch.last().expect("entries");
                sum += batch.iter().map(|entry| entry.payload.len()).sum::<usize>();
                batch.advance();
                reader.commit(last).expect("commit");
            }
            assert_eq!(sum, burst * payload_bytes);
        });
        drop(reader);
        drain(&queue);
        let two_ns = nanos_each(burst, || {
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        for _ in 0..burst / 2 {
                            queue.append(1, &payload).expect("append");
                        }
                    });
                }
            });
        });
        drain(&queue);
        if round >= 2 {
            for (kind, value) in
                kinds.iter_mut().zip([floor_ns, append_ns, batch_ns, read_ns, two_ns])
            {
                kind.push(value);
            }
        }
    }
    let [floor_ns, append_ns, batch_ns, read_ns, two_ns] = kinds.map(median);
    report.add(&name("floor"), floor_ns, "ns", Goal::None);
    report.add(&name("append"), append_ns / floor_ns, "x floor", goal(Goal::AtMost(1.5)));
    report.add(&name("append_batch(64)"), batch_ns / floor_ns, "x floor", goal(Goal::AtMost(1.2)));
    report.add(
        &name("append, read, commit"),
        read_ns / floor_ns,
        "x floor",
        goal(Goal::AtMost(1.9)),
    );
    report.add(&name("two producers, an append"), two_ns, "ns", goal(Goal::AtMost(140.0)));
    drop(queue);
    let _ = std::fs::remove_dir_all(&ring_dir);
    let _ = std::fs::remove_dir_all(&floor_dir);
}

/// From one thread to another, as fast as both can: ours, which is crash-safe, and a channel that
/// carries the same bytes in memory.
fn hop(report: &Report, dir: &Path) {
    const COUNT: usize = 1_000_000;
    let queue =
        Queue::create(fresh(dir, "ring"), &options(64 * MIB, Durability::Process)).expect("queue");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let mut reader = queue.reader("bench").expect("reader");
        ours.push(nanos_each(COUNT, || {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut sent = 0;
                    while sent < COUNT {
                        match queue.append(1, &[7; 256]) {
                            Ok(_) => sent += 1,
                            Err(error) if error.is_temporary() => std::thread::yield_now(),
                            Err(error) => panic!("{error}"),
                        }
                    }
                });
                let (mut got, mut sum) = (0, 0);
                while got < COUNT {
                    let batch = reader.peek(64, 1 << 20).expect("peek");
                    let Some(last) = batch.last() else {
                        assert!(reader.wait(Duration::from_secs(30)), "nothing came");
                        continue;
                    };
                    for entry in batch.iter() {
                        got += 1;
                        sum += usize::from(entry.payload[255]);
                    }
                    batch.advance();
                    reader.commit(last).expect("commit");
                }
                assert_eq!(sum, 7 * COUNT);
            });
        }));
        let (send, receive) = crossbeam::channel::bounded::<[u8; 256]>(4096);
        theirs.push(nanos_each(COUNT, || {
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    for _ in 0..COUNT {
                        send.send([7; 256]).expect("receiver lives");
                    }
                });
                let sum: usize = receive.iter().map(|message| usize::from(message[255])).sum();
                assert_eq!(sum, 7 * COUNT);
            });
        }));
    }
    let channel = median(theirs.clone());
    report.add_rounds("crossbeam channel, two threads, a hop", &theirs, "ns", Goal::None);
    report.add_rounds("two threads, a hop", &ours, "ns", Goal::None);
    let ratio = median(ours) / channel;
    report.add("two threads, a hop", ratio, "x channel", Goal::AtMost(1.0));
}

/// One thread, one entry at a time, each durable before the next.
fn lone_waiter(report: &Report, dir: &Path) {
    let payload = [7u8; 256];
    let floor_dir = fresh(dir, "floor");
    std::fs::create_dir_all(&floor_dir).expect("directory");
    let mut floor = Floor::create(&floor_dir.join("floor"), 64 << 20).expect("floor");
    let queue =
        Queue::create(fresh(dir, "ring"), &options(64 * MIB, Durability::Disk)).expect("queue");
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for round in 0..2000 {
        let started = Instant::now();
        floor.store(&payload);
        floor.sync().expect("sync");
        let bare_ns = started.elapsed().as_nanos() as f64;
        let started = Instant::now();
        let seq = queue.append(1, &payload).expect("append");
        queue.wait_durable(seq, Duration::from_secs(30)).expect("durable");
        if round >= 100 {
            bare.push(bare_ns);
            ours.push(started.elapsed().as_nanos() as f64);
        }
    }
    let (bare, ours) = (median(bare), median(ours));
    report.add("disk: bare store and msync, p50", bare / 1000.0, "us", Goal::None);
    report.add("disk: lone waiter, p50", ours / bare, "x bare", Goal::AtMost(1.1));
}

/// Threads that append one entry and wait for it; acks a second.
fn group_commit(report: &Report, dir: &Path, threads: usize, seconds: f64) -> f64 {
    let queue =
        Queue::create(fresh(dir, "ring"), &options(64 * MIB, Durability::Disk)).expect("queue");
    let acked = std::sync::atomic::AtomicU64::new(0);
    let deadline = Instant::now() + Duration::from_secs_f64(seconds);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while Instant::now() < deadline {
                    match queue.append(1, &[7; 256]) {
                        Ok(seq) => {
                            queue.wait_durable(seq, Duration::from_secs(30)).expect("durable");
                            acked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                        Err(_) => return,
                    }
                }
            });
        }
        // Keeps the ring from filling.
        let mut reader = queue.reader("bench").expect("reader");
        while Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(50));
            reader.commit(queue.durable()).expect("commit");
        }
    });
    let rate = acked.into_inner() as f64 / seconds;
    let stat = queue.stat();
    report.add(&format!("disk: acks, {threads} waiters"), rate, "1/s", Goal::None);
    let group = stat.appends_total as f64 / stat.syncs_total.max(1) as f64;
    report.add(&format!("disk: group, {threads} waiters"), group, "acks/sync", Goal::None);
    rate
}

/// One producer that never waits, a reader that keeps up; durable records a second.
fn streaming(report: &Report, dir: &Path) -> f64 {
    let queue =
        Queue::create(fresh(dir, "ring"), &options(64 * MIB, Durability::Disk)).expect("queue");
    let mut rates = Vec::new();
    let batch: Vec<[u8; 256]> = vec![[7; 256]; 64];
    let total = 2_000_000 / 64;
    for _ in 0..5 {
        let mut reader = queue.reader("bench").expect("reader");
        let started = Instant::now();
        let last = std::thread::scope(|scope| {
            let producer = scope.spawn(|| {
                let mut last = queue.appended();
                for _ in 0..total {
                    loop {
                        match queue.append_batch(1, &batch) {
                            Ok(span) => break last = span.last,
                            Err(error) if error.is_temporary() => std::thread::yield_now(),
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
                queue.wait_durable(last, Duration::from_secs(30)).expect("durable");
                last
            });
            while !producer.is_finished() {
                std::thread::park_timeout(Duration::from_millis(2));
                reader.commit(queue.durable()).expect("commit");
            }
            producer.join().expect("producer")
        });
        rates.push(total as f64 * 64.0 / started.elapsed().as_secs_f64());
        reader.commit(last).expect("commit");
    }
    let rate = median(rates);
    report.add("disk: streaming, batches of 64", rate, "records/s", Goal::AtLeast(2e6));
    rate
}

/// One producer that waits for each batch of 64; durable records a second.
#[cfg(feature = "peers")]
fn awaited_batches(report: &Report, dir: &Path) -> f64 {
    let queue =
        Queue::create(fresh(dir, "ring"), &options(64 * MIB, Durability::Disk)).expect("queue");
    let mut reader = queue.reader("bench").expect("reader");
    let batch: Vec<[u8; 256]> = vec![[7; 256]; 64];
    let commits = 5_000;
    let nanos = nanos_each(commits, || {
        for _ in 0..commits {
            let last = queue.append_batch(1, &batch).expect("room").last;
            queue.wait_durable(last, Duration::from_secs(30)).expect("durable");
            reader.commit(last).expect("commit");
        }
    });
    let rate = 64e9 / nanos;
    report.add("disk: batches of 64, each awaited", rate, "records/s", Goal::None);
    rate
}

/// Latency of appends at a steady rate while the thread syncs behind them.
fn paced_latency(report: &Report, dir: &Path) {
    let queue =
        Queue::create(fresh(dir, "ring"), &options(64 * MIB, Durability::Disk)).expect("queue");
    let mut reader = queue.reader("bench").expect("reader");
    let (rate, seconds) = (200_000, 5);
    let mut nanos = Vec::with_capacity(rate * seconds);
    let started = Instant::now();
    for n in 0..rate * seconds {
        let due = started + Duration::from_nanos(n as u64 * 1_000_000_000 / rate as u64);
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        let before = Instant::now();
        queue.append(1, &[7; 256]).expect("append");
        nanos.push(before.elapsed().as_nanos() as f64);
        if n % 20_000 == 0 {
            reader.commit(queue.durable()).expect("commit");
        }
    }
    nanos.sort_by(f64::total_cmp);
    let at = |part: f64| nanos[(nanos.len() as f64 * part) as usize] / 1000.0;
    report.add("append at 200,000/s while syncing, p50", at(0.5), "us", Goal::AtMost(0.2));
    report.add("append at 200,000/s while syncing, p99.9", at(0.999), "us", Goal::AtMost(25.0));
}

/// Opening a full ring.
fn recovery(report: &Report, dir: &Path) {
    let path = fresh(dir, "ring");
    let large = options(512 * MIB, Durability::Process);
    let queue = Queue::create(&path, &large).expect("queue");
    let batch: Vec<[u8; 256]> = vec![[7; 256]; 64];
    while queue.append_batch(1, &batch).is_ok() {}
    drop(queue);
    let mut times = Vec::new();
    let mut scans = Vec::new();
    for _ in 0..3 {
        let started = Instant::now();
        let queue = Queue::open(&path, &large).expect("open");
        times.push(started.elapsed().as_secs_f64());
        let found = queue.recovery();
        scans.push(found.bytes as f64 / found.took_us as f64 / 1000.0);
    }
    report.add("open of a full 512 MiB ring", median(times), "s", Goal::AtMost(0.5));
    report.add("recovery scan", median(scans), "GB/s", Goal::AtLeast(4.0));
    let _ = std::fs::remove_dir_all(path);
}

/// Measures the queue.
#[derive(Parser)]
struct Wanted {
    /// Nothing but 256 B in 64 MiB on ext4.
    #[arg(long)]
    quick: bool,
    /// One part of it, by its function's name.
    #[arg(long, value_name = "PART")]
    only: Option<String>,
    #[command(flatten)]
    shown: Shown,
}

impl Wanted {
    fn has(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == part)
    }
}

fn main() {
    let wanted = Wanted::parse();
    let report = wanted.shown.report();
    let root = std::env::var_os("FOREBAY_BENCH_DIR")
        .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-queue"), PathBuf::from);
    std::fs::create_dir_all(&root).expect("bench directory");
    let parts: &[(&str, &dyn Fn())] = &[
        ("appends", &|| appends(&report, &root, "ext4", 256, 64)),
        ("hop", &|| hop(&report, &root)),
        ("lone_waiter", &|| lone_waiter(&report, &root)),
        ("group_commit", &|| {
            for threads in [16, 64, 256] {
                group_commit(&report, &root, threads, 2.0);
            }
        }),
        ("streaming", &|| {
            streaming(&report, &root);
        }),
        ("paced_latency", &|| paced_latency(&report, &root)),
        ("recovery", &|| recovery(&report, &root)),
        ("sizes", &|| sizes(&report, &root, wanted.quick)),
        #[cfg(feature = "peers")]
        ("peers", &|| peers::run(&report, &root)),
    ];
    if let Some(only) =
        wanted.only.as_deref().filter(|only| parts.iter().all(|(part, _)| part != only))
    {
        eprintln!("no part {only}; the peers are there with --features peers");
        std::process::exit(2);
    }
    for (name, part) in parts {
        if wanted.has(name) {
            part();
        }
    }
    let _ = std::fs::remove_dir_all(&root);
}

/// The other sizes of payload and ring, on ext4 and in memory.
fn sizes(report: &Report, root: &Path, quick: bool) {
    if quick {
        return;
    }
    let memory = Path::new("/dev/shm").join(format!("forebay-bench-{}", std::process::id()));
    std::fs::create_dir_all(&memory).expect("bench directory in memory");
    for (dir, place) in [(root, "ext4"), (&memory, "tmpfs")] {
        for bytes in [64, 256, 1024] {
            for ring in [4, 64] {
                if (place, bytes, ring) != ("ext4", 256, 64) {
                    appends(report, dir, place, bytes, ring);
                }
            }
        }
    }
    let _ = std::fs::remove_dir_all(&memory);
}
