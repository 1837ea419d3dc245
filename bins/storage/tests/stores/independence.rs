//! One store that hangs holds up itself and nothing else, and costs no memory that grows.
//!
//! One storage process feeds a lake and four real servers, each as a sink of its own, while
//! messages come at a steady pace. Each server in turn is stopped with SIGSTOP for a while: its
//! connections stay open and are not answered, which is worse than a refusal. Meanwhile every other
//! sink must commit what comes, and the private memory of the process must not grow by what the
//! stopped one leaves at the middle. Then it goes on, and in the end each store has everything once.
//!
//! `FOREBAY_STALL_SECONDS=120` holds each up for longer: the bound on memory is the same. What this
//! cannot show: a middle whose disk becomes full of what one store does not take.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use forebay_model::{Body, Message, Reading, Value};
use forebay_testkit::{
    Redis, Victoria, clickhouse::ClickHouse, or_skip, postgres::Postgres, rss_anon,
};

use crate::{
    common::{
        DEADLINE, Log, Served, eventually,
        rows::{lake_rows, simple},
    },
    postgres, process, remote_write,
    storm::Store as _,
};

/// All consumers: the lake, and a server each.
const SINKS: [&str; 5] = ["lake", "clickhouse", "postgres", "remote-write", "redis"];
const DEVICES: u64 = 40;
const MESSAGES_PER_SECOND: u64 = 600;
const TICK: Duration = Duration::from_millis(20);
/// Of the text in each message: what a stopped store leaves behind shall be worth counting.
const TEXT_BYTES: usize = 4096;
/// What the process may take on while a store hangs. A sink holds two ranges of 1 MiB, one of them
/// encoded, too, and 256 KiB of its feed; the rest is room for an allocator that five sinks share.
/// In five seconds 12 MiB come.
const GROWTH_BYTES_MAX: u64 = 8 << 20;
/// Of what comes in a stall, the least that each other sink commits in it: what a second of the
/// normal run's five brings may be under way at its end, on a machine that others use too.
const SHARE_MIN: f64 = 0.8;

fn stall() -> Duration {
    let seconds = std::env::var("FOREBAY_STALL_SECONDS").ok();
    Duration::from_secs(seconds.map_or(5, |seconds| seconds.parse().expect("whole seconds")))
}

/// A number and a long text.
fn message(number: u64) -> Message<'static> {
    let (device, seq) = (number % DEVICES, number / DEVICES + 1);
    let mut message = simple(&format!("device-{device}"), seq, number as f64);
    if let Body::Readings(readings) = &mut message.body {
        let word = format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let text = Value::Text(word.repeat(TEXT_BYTES / word.len()).into());
        let time = readings[0].time;
        readings.push(Reading { key: "text".into(), value: text, unit: None, time });
    }
    message
}

fn sections(
    folder: &Path,
    house: &ClickHouse,
    postgres: &Postgres,
    victoria: &Victoria,
    redis: &Redis,
) -> String {
    // Small, so that what a stopped store leaves behind fills them many times.
    let bounds = "buffer = \"256KiB\"\nflush = { rows = 2000, held = \"1MiB\", age = \"300ms\" }\n";
    let password = folder.join("the.password");
    std::fs::write(&password, forebay_testkit::postgres::PASSWORD).unwrap();
    format!(
        "[lake]\ndir = {:?}\ndead_letters = {:?}\n{bounds}\
         [clickhouse]\nenabled = true\nurl = \"{}\"\n{bounds}\
         [postgres]\nenabled = true\nurl = \"host=127.0.0.1 port={} user={} dbname=postgres\"\n\
         password_file = {password:?}\n{bounds}\
         [remote_write]\nenabled = true\nurl = \"http://{}/api/v1/write\"\nhold_back = \"0s\"\n\
         {bounds}[redis]\nenabled = true\nurl = \"{}\"\nhold_back = \"0s\"\n{bounds}",
        folder.join("lake"),
        folder.join("dead"),
        house.url(),
        postgres.port(),
        forebay_testkit::postgres::USER,
        victoria.address(),
        redis.url(),
    )
}

/// Where the log and all cursors were at a moment.
#[derive(Debug)]
struct Look {
    head: u64,
    committed: Vec<u64>,
}

impl Look {
    fn at(log: &Log) -> Self {
        let committed = |sink: &&str| log.state(sink).committed.counter();
        let committed = SINKS.iter().map(committed).collect();
        Self { head: log.head().counter(), committed }
    }
}

/// Waits until no sink is more than a second behind.
fn wait_until_all_keep_up(log: &Log) {
    // What came in a stall is brought after it.
    let end = Instant::now() + DEADLINE + stall();
    loop {
        let look = Look::at(log);
        let keeps_up = |&at: &u64| at > 0 && at + MESSAGES_PER_SECOND > look.head;
        if look.committed.iter().all(keeps_up) {
            return;
        }
        assert!(Instant::now() < end, "{SINKS:?} do not keep up: {look:?}");
        std::thread::sleep(TICK);
    }
}

/// Watches the process for a while: where everything was before and after, and the most private
/// memory in between.
fn watch(log: &Log, pid: u32, time: Duration) -> (Look, Look, u64) {
    let before = Look::at(log);
    let (end, mut most) = (Instant::now() + time, 0);
    while Instant::now() < end {
        most = most.max(rss_anon(pid).unwrap());
        std::thread::sleep(Duration::from_millis(20));
    }
    (before, Look::at(log), most)
}

#[test]
fn a_store_that_hangs_leaves_all_others_at_full_pace_and_memory_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let Some(mut house) = or_skip(ClickHouse::start(&at("clickhouse"))) else { return };
    let database = Postgres::start(&at("postgres"), &["fsync=off"]);
    let Some(mut database) = or_skip(database) else { return };
    for name in ["victoria", "redis"] {
        std::fs::create_dir_all(at(name)).unwrap();
    }
    let victoria = Victoria::start(&at("victoria"), &remote_write::FLAGS);
    let Some(mut victoria) = or_skip(victoria) else { return };
    let Some(mut redis) = or_skip(Redis::start(&at("redis"), &[])) else { return };
    let log = Log::new(5);
    let served = Served::start(&log);
    let sections = sections(folder.path(), &house, &database, &victoria, &redis);
    let mut storage = process::start("storage", folder.path(), &served, &sections, None);
    let (over, came) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let feeder = scope.spawn(|| {
            let began = Instant::now();
            while !over.load(Ordering::SeqCst) {
                // By the clock, not by the pauses: the pace is the same on a busy machine.
                let due = began.elapsed().as_millis() as u64 * MESSAGES_PER_SECOND / 1000;
                for number in came.load(Ordering::SeqCst)..due {
                    log.append(&message(number));
                    came.store(number + 1, Ordering::SeqCst);
                }
                std::thread::sleep(TICK);
            }
        });
        // Whatever happens below, the feeder ends: a scope waits for its threads.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_until_all_keep_up(&log);
            let (_, _, mut usual) = watch(&log, storage.pid(), stall());
            for hung in &SINKS[1..] {
                wait_until_all_keep_up(&log);
                let mut pause = |on: bool| match (*hung, on) {
                    ("clickhouse", true) => house.pause(),
                    ("clickhouse", false) => house.resume(),
                    ("postgres", true) => database.pause(),
                    ("postgres", false) => database.resume(),
                    ("remote-write", on) => victoria.set_paused(on),
                    (_, on) => redis.set_paused(on),
                };
                pause(true).unwrap();
                let (before, after, most) = watch(&log, storage.pid(), stall());
                pause(false).unwrap();
                tell(hung, &before, &after, usual, most);
                usual = usual.max(most);
            }
        }));
        over.store(true, Ordering::SeqCst);
        feeder.join().unwrap();
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    eventually("each sink has everything", || {
        SINKS.iter().all(|sink| log.state(sink).committed == log.head())
    });
    storage.terminate(Duration::from_secs(30)).unwrap();
    let rows = came.load(Ordering::SeqCst) * 2;
    assert_eq!((house.count(), house.distinct()), (rows, rows));
    assert_eq!(postgres::counts(&database), (rows, rows));
    assert_eq!(lake_rows(&folder.path().join("lake")).len() as u64, rows);
}

/// Shows what a stall did, and fails if it did more than hold up the one.
fn tell(hung: &str, before: &Look, after: &Look, usual: u64, most: u64) {
    let came = after.head - before.head;
    let moved: Vec<u64> = after
        .committed
        .iter()
        .zip(&before.committed)
        .map(|(after, before)| after - before)
        .collect();
    let growth = most.saturating_sub(usual);
    let shares: Vec<String> = SINKS
        .iter()
        .zip(&moved)
        .map(|(sink, moved)| format!("{sink} {:.2}", *moved as f64 / came as f64))
        .collect();
    println!(
        "{hung} hung for {:?} while {came} messages came, {:.1} MB: of these the sinks committed \
         {}; private memory {:.1} MiB, {:.1} MiB more than ever before",
        stall(),
        came as f64 * TEXT_BYTES as f64 / 1e6,
        shares.join(", "),
        most as f64 / f64::from(1 << 20),
        growth as f64 / f64::from(1 << 20),
    );
    for (sink, moved) in SINKS.iter().zip(moved) {
        if *sink == hung {
            assert!(moved < came / 2, "{sink} was to hang, and committed {moved} of {came}");
        } else {
            let least = (came as f64 * SHARE_MIN) as u64;
            assert!(moved >= least, "{sink} committed {moved} of {came} while {hung} hung");
        }
    }
    assert!(growth <= GROWTH_BYTES_MAX, "{growth} bytes more while {hung} hung");
}
