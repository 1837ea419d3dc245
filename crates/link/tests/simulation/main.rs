//! Whole topologies of the link's machines, simulated: several fronts, middles and consumers,
//! through loss, repetition, reordering, delay, partition, half-open connections, restarts with
//! and without the disk, clock jumps.
//!
//! In each scenario I10 is checked at every commit, I11, I12 and I13 at the end, and that
//! everything drains once the faults stop. A scenario is its seed: `FOREBAY_SIM_SEED=n` runs one,
//! `FOREBAY_SIM_SCENARIOS=n` as many, from `FOREBAY_SIM_FIRST` on (`--long` runs: millions). What
//! it cannot show: mistakes in the tiers' own stores and in the sockets; those have their tests.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod check;
mod disk;
mod event;
mod fault;
mod front;
mod middle;
mod named;
mod network;
mod partitions;
mod process;
mod scenario;
mod store;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use fault::{Fault, PLANTED};

/// Scenarios of a normal run.
const SCENARIOS: u64 = 20_000;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn no_entry_is_lost_doubled_or_invented_whatever_happens() {
    if let Some(seed) = setting("FOREBAY_SIM_SEED") {
        let world = scenario::run(seed, Fault::None);
        println!("seed {seed}: {:?} after {} steps", world.shape, world.steps);
        assert!(world.violations.is_empty(), "seed {seed}: {:#?}", world.violations);
        return;
    }
    let first = setting("FOREBAY_SIM_FIRST").unwrap_or(1);
    let last = first + setting("FOREBAY_SIM_SCENARIOS").unwrap_or(SCENARIOS);
    let (next, steps, messages) = (AtomicU64::new(first), AtomicU64::new(0), AtomicU64::new(0));
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= last || failed.lock().unwrap().len() >= 3 {
                        return;
                    }
                    let world = scenario::run(seed, Fault::None);
                    steps.fetch_add(world.steps, Ordering::Relaxed);
                    messages.fetch_add(world.truth.acked.len() as u64, Ordering::Relaxed);
                    if !world.violations.is_empty() {
                        failed.lock().unwrap().push((seed, world.violations));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    println!(
        "scenarios {}, steps {}, messages acked {}",
        last - first,
        steps.into_inner(),
        messages.into_inner()
    );
    assert!(failed.is_empty(), "run again with FOREBAY_SIM_SEED=seed: {failed:#?}");
}

#[test]
fn every_planted_mistake_is_caught() {
    for fault in PLANTED {
        let caught = (1..3_000).find_map(|seed| {
            let world = scenario::run(seed, fault);
            world.violations.into_iter().next().map(|violation| (seed, violation))
        });
        let (seed, violation) = caught.unwrap_or_else(|| panic!("{fault:?} was not caught"));
        println!("{fault:?}: caught at seed {seed}: {violation}");
    }
}

#[test]
fn a_seed_gives_one_history() {
    for seed in [3, 77] {
        let (one, two) = (scenario::run(seed, Fault::None), scenario::run(seed, Fault::None));
        assert_eq!((one.steps, one.now), (two.steps, two.now));
    }
}
