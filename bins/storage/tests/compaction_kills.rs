//! A storage process that is killed while it compacts leaves every row in the lake once.
//!
//! A log behind real sockets outlives the real storage binary, which stores small files of past
//! hours and compacts each hour as soon as it can. It is killed with SIGKILL at random moments;
//! after each, the lake is read as any other tool would read it. `FOREBAY_KILLS=200` makes it
//! longer, `FOREBAY_SEED` repeats a run's choices. kill -9 keeps the page cache: a loss of power is
//! not shown.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{fs, path::Path, process::Command, time::Duration};

use common::{
    Log, Served, eventually,
    rows::{OwnedRow, all_rows, hours_ago, messages, visible_files, visible_rows},
};
use forebay_testkit::Child;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

fn storage(folder: &Path, served: &Served) -> Child {
    fs::create_dir_all(folder).unwrap();
    let config = format!(
        "[[middles]]\nfeed = \"{}\"\nfetch = \"{}\"\n\
         [http]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [lake]\ndir = \"{}\"\ndead_letters = \"{}\"\n[live]\nenabled = false\n\
         [lake.flush]\nrows = 60\nage = \"20ms\"\n\
         [lake.compaction]\nafter = \"0s\"\nlook_every = \"10ms\"\n",
        served.publisher.endpoint(),
        served.replay.endpoint(),
        folder.join("lake").display(),
        folder.join("dead").display(),
    );
    let path = folder.join("storage.toml");
    fs::write(&path, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-storage"));
    Child::spawn("storage", command.arg("--config").arg(path), folder).unwrap()
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect(name))
}

/// Folders of exchanges that a dead process has left, unfinished or done.
fn left_behind(lake: &Path) -> usize {
    let Ok(days) = fs::read_dir(lake) else { return 0 };
    let within = |day: fs::DirEntry| fs::read_dir(day.path()).into_iter().flatten().flatten();
    let named = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(".hour=");
    days.flatten().flat_map(within).filter(named).count()
}

#[test]
fn a_process_killed_while_it_compacts_leaves_every_row_once() {
    let folder = tempfile::tempdir().unwrap();
    let kills = number("FOREBAY_KILLS", 25);
    let seed = number("FOREBAY_SEED", rand::random::<u32>().into());
    println!("FOREBAY_SEED={seed} FOREBAY_KILLS={kills}");
    let mut random = StdRng::seed_from_u64(seed);
    let lake = folder.path().join("lake");
    let log = Log::new(u128::from(seed) + 1);
    let served = Served::start(&log);
    let sent = hours_ago(messages(seed, 120 * kills as usize), 6);
    let (mut interrupted, mut appended) = (0, 0);
    for part in sent.chunks(120) {
        log.append_all(part);
        appended += part.len();
        let mut process = storage(folder.path(), &served);
        // From the moment on at which it stores: a start takes longer on a busy machine.
        let before = log.state("lake").committed;
        eventually("it stores", || log.state("lake").committed > before);
        std::thread::sleep(Duration::from_millis(random.random_range(0..60)));
        process.kill().unwrap();
        interrupted += usize::from(left_behind(&lake) > 0);
        let rows = visible_rows(&lake);
        let twice = rows.windows(2).find(|pair| pair[0].identity() == pair[1].identity());
        assert_eq!(twice.map(|pair| &pair[0]), None, "FOREBAY_SEED={seed}");
        // Nothing that is committed is missing, and nothing is there that was not sent.
        let committed = log.state("lake").committed.counter() as usize;
        let known = all_rows(&sent[..appended]);
        let found =
            |row: &OwnedRow| rows.binary_search_by_key(&row.identity(), OwnedRow::identity).is_ok();
        let lost = all_rows(&sent[..committed]).into_iter().find(|row| !found(row));
        assert_eq!(lost, None, "FOREBAY_SEED={seed}");
        assert!(rows.len() <= known.len());
    }
    println!("{interrupted} of {kills} kills left an exchange behind");
    assert!(interrupted > 0, "no kill came while it compacted: FOREBAY_SEED={seed}");
    let mut last = storage(folder.path(), &served);
    eventually("all is committed", || log.state("lake").committed == log.head());
    eventually("all hours are compacted", || visible_files(&lake).len() == 3);
    eventually("nothing is left behind", || left_behind(&lake) == 0);
    last.terminate(Duration::from_secs(30)).unwrap();
    assert_eq!(visible_rows(&lake), all_rows(&sent), "FOREBAY_SEED={seed}");
}
