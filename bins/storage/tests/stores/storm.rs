//! Everything dies, again and again, and the store holds each row once.
//!
//! A log behind real sockets outlives the real storage binary and the real server. While messages
//! come, both are killed with SIGKILL at random moments, some storage processes start on an empty
//! volume, two run at once, the consumer is set back to the start of the log, and the device
//! registry changes. In the end a plain count is the count of distinct identities is the count of
//! what was acked, each row is one that was sent, and whatever the store derives from its rows says
//! the same. A twin with a planted fault, tokens from a counter, must be caught.
//!
//! `FOREBAY_KILLS=200` makes it longer, `FOREBAY_SEED` repeats a run's choices. kill -9 keeps the
//! page cache: a loss of power is not shown; "no failure in N kills" means p < 3/N at 95 %.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use forebay_testkit::{Child, clickhouse::ClickHouse, or_skip, postgres::Postgres};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

use crate::{
    common::{
        Log, Served, eventually,
        rows::{all_rows, messages},
    },
    process,
};

/// Messages that come at a time, and the pause between two times.
const MESSAGES: usize = 50;
const PAUSE: Duration = Duration::from_millis(40);
/// Most times for each kill: a storm that lasts longer goes on with what has come.
const TIMES_A_KILL: usize = 200;

/// A real server in a storm.
pub(crate) trait Store {
    /// Section of the settings, sink and consumer: all have this name.
    const NAME: &'static str;

    /// The section of the configuration.
    fn section(&self, folder: &Path) -> String;

    /// Kills it with SIGKILL.
    fn kill(&mut self);

    /// Starts it on the files it had.
    fn restart(&mut self);

    /// All rows, by a plain count.
    fn count(&self) -> u64;

    /// Different (tenant, device, session, seq, index).
    fn distinct(&self) -> u64;

    /// The identity of each row: tenant, device, session, seq and index with a blank between.
    fn identities(&self) -> Vec<String>;

    /// Different locations that rows were stored with.
    fn locations(&self) -> u64;

    /// What else must hold, and does not.
    fn faults(&self) -> Vec<String>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// The storage process dies; the next one goes on.
    KillStorage,
    /// The same, and its volume is gone.
    WipeVolume,
    /// The same, and everything is read again from the start of the log.
    Replay,
    /// The server dies and is started again.
    KillServer,
    /// A second storage process takes over, and the first from it.
    TakeOver,
    /// The registry says something else of a device.
    ChangeRegistry,
}

/// So many kills of each side, with all that happens in between, in an order of the seed.
fn schedule(kills: usize, random: &mut StdRng) -> Vec<Deed> {
    let third = kills.div_ceil(3);
    let mut deeds = Vec::new();
    for (deed, times) in [
        (Deed::Replay, third),
        (Deed::WipeVolume, third),
        (Deed::KillStorage, kills - third),
        (Deed::KillServer, kills),
        (Deed::TakeOver, kills.div_ceil(5)),
        (Deed::ChangeRegistry, third),
    ] {
        deeds.extend(std::iter::repeat_n(deed, times));
    }
    deeds.shuffle(random);
    deeds
}

/// What the storage processes of a storm share.
struct World<'a> {
    folder: &'a Path,
    served: &'a Served,
    section: String,
    fault: Option<&'static str>,
    volumes: usize,
    registries: usize,
    storage_kills: u64,
}

impl World<'_> {
    fn start(&mut self, name: &str, wiped: bool) -> Child {
        self.volumes += usize::from(wiped);
        let volume: PathBuf = self.folder.join(format!("volume-{}", self.volumes));
        let lake = format!("[lake]\nenabled = false\ndead_letters = {:?}\n", volume.join("dead"));
        let registry = format!("[registry]\nfiles = [{:?}]\n", self.registry());
        let sections = format!("{lake}{registry}{}", self.section);
        process::start(name, &volume, self.served, &sections, self.fault)
    }

    fn kill(&mut self, child: &mut Child) {
        assert!(child.ended().unwrap().is_none(), "it ended by itself:\n{}", child.log());
        child.kill().unwrap();
        self.storage_kills += 1;
    }

    fn registry(&self) -> PathBuf {
        self.folder.join("devices.toml")
    }

    fn change_registry(&mut self) {
        let location = self.registries;
        self.registries += 1;
        let text = format!("[[devices]]\nid = \"device-0\"\nlocation = \"hall {location}\"\n");
        let unfinished = self.folder.join("devices.unfinished");
        fs::write(&unfinished, text).unwrap();
        fs::rename(unfinished, self.registry()).unwrap();
    }
}

/// What a storm ends with.
struct Storm {
    acked: u64,
    count: u64,
    distinct: u64,
    /// Rows that were acked and are not there.
    lost: u64,
    /// Rows that nobody sent.
    invented: u64,
    /// Of the device whose listing changed.
    locations: u64,
    faults: Vec<String>,
    summary: String,
}

impl Storm {
    #[track_caller]
    fn assert_exact(&self) {
        let Self { acked, count, distinct, lost, invented, locations, faults, summary } = self;
        assert_eq!((count, distinct, *lost, *invented), (acked, acked, 0, 0), "{summary}");
        assert!(faults.is_empty(), "{summary}");
        assert!(*locations > 1, "the registry did not change in between: {summary}");
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect(name))
}

fn storm<S: Store>(
    server: &mut S,
    folder: &Path,
    kills: usize,
    fault: Option<&'static str>,
) -> Storm {
    let seed = number("FOREBAY_SEED", rand::random::<u32>().into());
    println!("{}: FOREBAY_SEED={seed} FOREBAY_KILLS={kills}", S::NAME);
    let began = Instant::now();
    let mut random = StdRng::seed_from_u64(seed);
    let deeds = schedule(kills, &mut random);
    let times = |deed: Deed| deeds.iter().filter(|&&other| other == deed).count();
    let sent = messages(seed, MESSAGES * TIMES_A_KILL * kills);
    let log = Log::new(u128::from(seed) + 1);
    let served = Served::start(&log);
    let section = server.section(folder);
    let mut world = World {
        folder,
        served: &served,
        section,
        fault,
        volumes: 0,
        registries: 0,
        storage_kills: 0,
    };
    world.change_registry();
    let (over, came) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let feeder = scope.spawn(|| {
            for part in sent[..sent.len() - MESSAGES].chunks(MESSAGES) {
                log.append_all(part);
                came.fetch_add(part.len(), Ordering::SeqCst);
                std::thread::sleep(PAUSE);
                if over.load(Ordering::SeqCst) {
                    break;
                }
            }
        });
        let mut first = world.start("one", false);
        eventually("the first rows are in", || log.state(S::NAME).committed.get() > 0);
        for &deed in &deeds {
            std::thread::sleep(Duration::from_millis(random.random_range(10..400)));
            match deed {
                Deed::KillStorage | Deed::WipeVolume | Deed::Replay => {
                    world.kill(&mut first);
                    if deed == Deed::Replay {
                        log.forget(S::NAME);
                    }
                    first = world.start("one", deed == Deed::WipeVolume);
                }
                Deed::KillServer => {
                    server.kill();
                    std::thread::sleep(Duration::from_millis(random.random_range(0..200)));
                    server.restart();
                }
                Deed::TakeOver => {
                    let mut second = world.start("two", true);
                    std::thread::sleep(Duration::from_millis(random.random_range(100..600)));
                    world.kill(&mut first);
                    first = world.start("one", false);
                    std::thread::sleep(Duration::from_millis(random.random_range(0..400)));
                    world.kill(&mut second);
                }
                Deed::ChangeRegistry => world.change_registry(),
            }
        }
        over.store(true, Ordering::SeqCst);
        feeder.join().unwrap();
        world.kill(&mut first);
        // Once more everything, by a process that knows nothing, and some that is new to it.
        log.forget(S::NAME);
        let from = came.load(Ordering::SeqCst);
        log.append_all(&sent[from..from + MESSAGES]);
        came.store(from + MESSAGES, Ordering::SeqCst);
        let mut last = world.start("last", true);
        eventually("all is committed", || log.state(S::NAME).committed == log.head());
        last.terminate(Duration::from_secs(30)).unwrap();
    });
    let mut expected: Vec<String> = all_rows(&sent[..came.load(Ordering::SeqCst)])
        .iter()
        .map(|row| {
            let (tenant, device, session, seq, index) = row.identity();
            format!("{tenant} {device} {session} {seq} {index}")
        })
        .collect();
    let mut stored = server.identities();
    expected.sort_unstable();
    stored.sort_unstable();
    stored.dedup();
    let missing = |from: &[String], all: &[String]| {
        from.iter().filter(|row| all.binary_search(row).is_err()).count() as u64
    };
    let (lost, invented) = (missing(&expected, &stored), missing(&stored, &expected));
    let (acked, count, distinct) = (expected.len() as u64, server.count(), server.distinct());
    let (faults, locations) = (server.faults(), server.locations());
    let summary = format!(
        "{}, seed {seed}, {:.0?}: {} kills of storage, {} of the server, {} full replays, {} \
         volumes wiped, {} times two processes, {} changes of the registry: {acked} rows acked, \
         {count} stored, {distinct} distinct, {lost} lost, {invented} invented, {locations} \
         locations of a device, {faults:?}",
        S::NAME,
        began.elapsed(),
        world.storage_kills,
        times(Deed::KillServer),
        times(Deed::Replay) + 1,
        times(Deed::WipeVolume) + times(Deed::TakeOver) + 1,
        times(Deed::TakeOver),
        times(Deed::ChangeRegistry),
    );
    println!("{summary}");
    Storm { acked, count, distinct, lost, invented, locations, faults, summary }
}

fn kills() -> usize {
    number("FOREBAY_KILLS", 10) as usize
}

#[test]
fn postgres_counts_exactly_what_was_acked_after_a_storm_of_kills_and_replays() {
    let folder = tempfile::tempdir().unwrap();
    // A kill leaves the page cache: without syncs each restart takes a fraction of the time.
    let server = Postgres::start(folder.path(), &["fsync=off"]);
    let Some(mut server) = or_skip(server) else { return };
    let storm = storm(&mut server, folder.path(), kills(), None);
    storm.assert_exact();
}

#[test]
fn clickhouse_counts_exactly_what_was_acked_after_a_storm_of_kills_and_replays() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut server) = or_skip(ClickHouse::start(folder.path())) else { return };
    let storm = storm(&mut server, folder.path(), kills(), None);
    storm.assert_exact();
}

#[test]
fn a_storm_of_clickhouse_catches_tokens_from_a_counter() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut server) = or_skip(ClickHouse::start(folder.path())) else { return };
    let storm = storm(&mut server, folder.path(), 2, Some("counted-token"));
    assert!(storm.lost > 0 && storm.count < storm.acked, "not caught: {}", storm.summary);
}
