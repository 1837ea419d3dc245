//! What was acknowledged survives kills, power cuts and failed syncs, in any mixture and at any
//! moment; with durability `process` it survives kills. A full ring becomes writable again.
//!
//! Method: the real ring over a simulated page cache (`disk.rs`). A run is twenty lives of one
//! queue with options of its own (`run.rs`): each opens, compares what it finds with a model
//! (`model.rs`), works, and ends: between two operations, or at any store or sync in the middle of
//! one, the open included, with that store or sync done in part.
//!
//! Cannot show: reordering within a processor (one thread), what a real disk does with a sync.
//! Twins with one safeguard taken out must fail, or the method is blind.
//!
//! A failure prints the seed of its run: `FOREBAY_SEED=<seed> FOREBAY_CUTS=1` replays it.
//! `FOREBAY_CUTS` sets the number of cuts: `FOREBAY_CUTS=100000000` is the long run.

mod disk;
mod model;
mod random;
mod run;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use forebay_queue::testing::Fault;

use run::{Run, Style};

const LIVES: u64 = 20;
const THREADS: usize = 2;
const PLANTED: &str = "planted";

/// What some runs did.
#[derive(Default)]
struct Tally {
    cuts: AtomicU64,
    power: AtomicU64,
    midway: AtomicU64,
    runs: AtomicU64,
}

/// Runs until `cuts` are done; says which run failed, if one did.
fn cut(style: Style, seed: u64, cuts: u64, faults: &[Fault], tally: &Tally) -> Option<u64> {
    while tally.cuts.load(Ordering::Relaxed) < cuts {
        let run_seed = seed + tally.runs.fetch_add(1, Ordering::Relaxed);
        let mut run = Run::new(run_seed, style, faults);
        for life in 0..LIVES {
            if catch_unwind(AssertUnwindSafe(|| run.life())).is_err() {
                if faults.is_empty() {
                    let which = "run again with";
                    eprintln!("life {life}: {which} FOREBAY_SEED={run_seed} FOREBAY_CUTS=1");
                }
                return Some(run_seed);
            }
            tally.cuts.fetch_add(1, Ordering::Relaxed);
        }
        tally.power.fetch_add(run.power_cuts, Ordering::Relaxed);
        tally.midway.fetch_add(run.midway, Ordering::Relaxed);
    }
    None
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs a style with nothing planted, and prints what was done.
fn survive(style: Style, cuts: u64) {
    let (seed, tally, started) = (number("FOREBAY_SEED", 1), Tally::default(), Instant::now());
    std::thread::scope(|scope| {
        let runs: Vec<_> =
            (0..THREADS).map(|_| scope.spawn(|| cut(style, seed, cuts, &[], &tally))).collect();
        for run in runs {
            let failed = run.join().expect("failures are caught");
            assert_eq!(failed, None, "the seed of the run that failed");
        }
    });
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{style:?}: {} cuts in {:.1} s, {} of the power, {} in the middle of an operation",
        count(&tally.cuts),
        started.elapsed().as_secs_f64(),
        count(&tally.power),
        count(&tally.midway),
    );
}

#[test]
fn acknowledged_entries_survive_kills_power_cuts_and_failed_syncs() {
    survive(Style::Swarm, number("FOREBAY_CUTS", 1_000_000));
}

#[test]
fn a_full_ring_whose_readers_commit_is_writable_again_after_any_cut() {
    survive(Style::Full, number("FOREBAY_CUTS", 1_000_000) / 50);
}

/// Panics of the planted threads are expected: not a word about them.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name() != Some(PLANTED) {
                loud(panic);
            }
        }));
    });
}

#[test]
fn every_planted_fault_is_noticed() {
    hush();
    let noticed = |fault: Fault| {
        let tally = Tally::default();
        let plant = || cut(Style::Swarm, 7, 200_000, &[fault], &tally);
        let found = std::thread::scope(|scope| {
            let planted = std::thread::Builder::new().name(PLANTED.into());
            planted.spawn_scoped(scope, plant).expect("a thread").join().expect("caught")
        });
        let cuts = tally.cuts.load(Ordering::Relaxed);
        println!("{fault:?}: {} after {cuts} cuts", found.map_or("missed", |_| "noticed"));
        found.is_some()
    };
    let missed: Vec<_> = Fault::ALL.into_iter().filter(|fault| !noticed(*fault)).collect();
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}
