//! Everything dies, again and again, and PostgreSQL holds each row once.
//!
//! A log behind real sockets outlives the real storage binary and the real server. While messages
//! come, both are killed with SIGKILL at random moments, two storage processes run at once, one
//! starts on an empty volume, and the consumer is set back to the start of the log. In the end the
//! rows are counted, without DISTINCT. `FOREBAY_KILLS=200` makes it longer, `FOREBAY_SEED` repeats
//! a run's choices. kill -9 keeps the page cache: a loss of power is not shown.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use forebay_testkit::{Child, or_skip, postgres::Postgres};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    common::{
        Log, Served, eventually,
        rows::{all_rows, messages},
    },
    postgres::{counts, section},
    process::storage,
};

const CONSUMER: &str = "postgres";

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect(name))
}

#[test]
fn postgres_counts_exactly_what_was_acked_after_a_storm_of_kills_and_replays() {
    let folder = tempfile::tempdir().unwrap();
    // A kill leaves the page cache: without syncs each restart takes a fraction of the time.
    let server = Postgres::start(folder.path(), &["fsync=off"]);
    let Some(mut server) = or_skip(server) else { return };
    let kills = number("FOREBAY_KILLS", 10);
    let seed = number("FOREBAY_SEED", rand::random::<u32>().into());
    println!("FOREBAY_SEED={seed} FOREBAY_KILLS={kills}");
    let mut random = StdRng::seed_from_u64(seed);
    let sent = messages(seed, 1500 * kills as usize);
    let (log, done) = (Log::new(u128::from(seed) + 1), AtomicBool::new(false));
    let served = Served::start(&log);
    let section = section(&server, folder.path());
    let mut volumes = 0;
    let mut start = |name: &str, wiped: bool| -> Child {
        volumes += u32::from(wiped);
        let volume: PathBuf = folder.path().join(format!("volume-{volumes}"));
        storage(name, &volume, &served, &section)
    };
    let (mut killed_storage, mut killed_server, mut replays, mut twins) = (0, 0, 0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for part in sent.chunks(100) {
                log.append_all(part);
                std::thread::sleep(Duration::from_millis(40));
            }
            done.store(true, Ordering::SeqCst);
        });
        let mut first = start("one", false);
        let mut second: Option<Child> = None;
        while killed_storage < kills || killed_server < kills {
            std::thread::sleep(Duration::from_millis(random.random_range(10..250)));
            match random.random_range(0..8) {
                0..=2 if killed_storage < kills => {
                    first.kill().unwrap();
                    killed_storage += 1;
                    if random.random_ratio(1, 4) {
                        log.forget(CONSUMER);
                        replays += 1;
                    }
                    first = start("one", random.random_ratio(1, 3));
                }
                3..=5 if killed_server < kills => {
                    server.kill().unwrap();
                    killed_server += 1;
                    std::thread::sleep(Duration::from_millis(random.random_range(0..200)));
                    server.restart().unwrap();
                }
                6 if second.is_none() => {
                    second = Some(start("two", true));
                    twins += 1;
                }
                7 => second = None,
                _ => {}
            }
        }
        drop(second);
        eventually("all messages came", || done.load(Ordering::SeqCst));
        first.kill().unwrap();
        // Once more everything, by a process that knows nothing.
        log.forget(CONSUMER);
        replays += 1;
        let mut last = start("last", true);
        eventually("all is committed", || log.state(CONSUMER).committed == log.head());
        last.terminate(Duration::from_secs(30)).unwrap();
    });
    let acked = all_rows(&sent).len() as u64;
    println!(
        "{acked} rows, {killed_storage} kills of storage, {killed_server} of the server, \
         {replays} full replays, {twins} second processes"
    );
    assert_eq!(counts(&server), (acked, acked), "FOREBAY_SEED={seed}");
}
