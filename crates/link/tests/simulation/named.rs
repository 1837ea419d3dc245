//! Scenarios with a name: each is a story that cost somebody a night.
//!
//! They are played in the same world as the random ones, in calm weather, and end with the same
//! checks; here it is what happens when that is fixed.

use std::time::Duration;

use forebay_link::Seq;

use crate::event::{Crash, Event};
use crate::fault::Fault;
use crate::network::Weather;
use crate::world::{Client, Shape, World};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const SHAPE: Shape = Shape {
    fronts: 2,
    middles: 1,
    names: 1,
    processes_each: 1,
    capacity_bytes: 1_000_000,
    process_fronts: false,
    fault: Fault::None,
};

fn calm(shape: Shape) -> World {
    let mut world = World::new(1, shape);
    world.network.weather = Weather { delay_us_max: 500, ..Weather::default() };
    world
}

fn append(world: &mut World, at_ms: u64, front: usize, messages: std::ops::RangeInclusive<u64>) {
    for message in messages {
        world.at(ms(at_ms), Event::Append { message, front });
    }
}

fn run_to(world: &mut World, at_ms: u64) {
    while world.step(ms(at_ms)) {}
}

fn finish(mut world: World) -> World {
    if world.violations.is_empty() {
        world.finish();
    }
    assert!(world.violations.is_empty(), "{:#?}", world.violations);
    world
}

/// Messages that the middle's log or its snapshots know.
fn stored(world: &World) -> usize {
    world.middles[0].store.known.messages.len()
}

#[test]
fn a_front_that_lost_in_a_power_cut_what_the_middle_already_has_goes_on_in_a_new_epoch() {
    let mut world = calm(Shape { fronts: 1, process_fronts: true, ..SHAPE });
    append(&mut world, 2_000, 0, 1..=20);
    // The middle has all of it when the power goes at the front, whose disk had it yet to sync.
    run_to(&mut world, 2_020);
    assert_eq!(stored(&world), 20);
    world.rings[0].log.forget_sync();
    world.at(ms(2_020), Event::CrashFront(0, Crash::Power));
    run_to(&mut world, 2_021);
    let before = world.rings[0].log.last();
    assert!(before < Seq::from_parts(1, 20), "something was lost: {before}");
    append(&mut world, 6_000, 0, 21..=40);
    let world = finish(world);
    assert!(world.rings[0].log.last().epoch() > before.epoch());
    let ring = &world.rings[0];
    assert_eq!(ring.cursor, ring.log.last());
}

#[test]
fn a_middle_that_lost_its_disk_joins_its_fronts_where_they_are_and_says_so() {
    let mut world = calm(SHAPE);
    append(&mut world, 2_000, 0, 1..=30);
    append(&mut world, 2_000, 1, 31..=50);
    run_to(&mut world, 3_000);
    assert_eq!(stored(&world), 50);
    world.at(ms(3_000), Event::CrashMiddle(0, Crash::Disk));
    append(&mut world, 3_100, 0, 51..=80);
    let world = finish(world);
    let joined = &world.middles[0].store.joined;
    let mut lost: Vec<_> = joined.iter().map(|joined| joined.lost).collect();
    lost.sort_unstable();
    assert_eq!(lost, [Some(20), Some(30)], "each front says what is missing: {joined:?}");
}

#[test]
fn a_middle_whose_newer_snapshot_is_torn_scans_from_the_older_one() {
    let mut world = calm(SHAPE);
    world.at(ms(100), Event::Reclaim(0));
    append(&mut world, 1_000, 0, 1..=30);
    append(&mut world, 3_000, 0, 31..=60);
    run_to(&mut world, 4_500);
    world.at(ms(4_500), Event::CrashMiddle(0, Crash::Torn));
    // The devices of all of them come back to the other front.
    append(&mut world, 4_600, 1, 1..=60);
    let world = finish(world);
    assert_eq!(world.truth.sent.len(), 60);
}

#[test]
fn a_resend_long_after_its_entries_were_reclaimed_is_still_a_duplicate() {
    let mut world = calm(SHAPE);
    world.at(ms(100), Event::Reclaim(0));
    append(&mut world, 1_000, 0, 1..=40);
    run_to(&mut world, 8_000);
    assert!(world.middles[0].store.disk.log.entries.is_empty(), "all is reclaimed");
    world.at(ms(8_000), Event::CrashMiddle(0, Crash::Power));
    append(&mut world, 9_000, 1, 1..=40);
    let world = finish(world);
    let sink = world.sinks.values().next().expect("one");
    assert!(sink.rows.values().all(|queues| queues.len() == 1));
}

#[test]
fn a_batch_of_nothing_but_duplicates_is_acked_and_stays_acked_over_a_crash() {
    let mut world = calm(SHAPE);
    append(&mut world, 1_000, 0, 1..=20);
    run_to(&mut world, 2_500);
    append(&mut world, 2_600, 1, 1..=20);
    run_to(&mut world, 2_700);
    assert_eq!(world.rings[1].cursor, Seq::from_parts(1, 20), "acked on the marker");
    world.at(ms(2_700), Event::CrashMiddle(0, Crash::Power));
    append(&mut world, 6_500, 1, 21..=30);
    let world = finish(world);
    assert!(world.middles[0].store.joined.is_empty(), "the position was not forgotten");
}

#[test]
fn a_device_that_roams_between_fronts_and_back_loses_and_doubles_nothing() {
    let mut world = calm(SHAPE);
    // 1 to 5 reach front 0, which is then cut off; 6 to 20 go to front 1; 21 on to front 0.
    append(&mut world, 1_000, 0, 1..=5);
    world.at(ms(999), Event::Cut { client: Client::Uplink(0), middle: 0, lasts: ms(6_000) });
    append(&mut world, 2_000, 1, 6..=20);
    append(&mut world, 3_000, 0, 21..=30);
    // It had no acks for some: they go to both.
    append(&mut world, 2_000, 1, 3..=5);
    append(&mut world, 3_000, 0, 18..=20);
    let world = finish(world);
    let sink = world.sinks.values().next().expect("one");
    assert_eq!(sink.rows.len(), 30);
}

#[test]
fn of_two_processes_with_one_name_only_the_newer_writes() {
    let mut world = calm(Shape { processes_each: 2, ..SHAPE });
    append(&mut world, 1_000, 0, 1..=100);
    append(&mut world, 3_000, 1, 101..=200);
    let world = finish(world);
    assert_eq!(world.processes.iter().filter(|process| process.fenced).count(), 1);
}

#[test]
fn a_full_middle_takes_more_once_its_consumer_comes_back() {
    let mut world = calm(Shape { capacity_bytes: 3_000, ..SHAPE });
    world.at(ms(100), Event::Reclaim(0));
    world.at(ms(1_800), Event::CrashProcess(0));
    append(&mut world, 2_000, 0, 1..=200);
    run_to(&mut world, 2_400);
    assert!(stored(&world) < 200, "it has no room for all");
    let world = finish(world);
    assert_eq!(world.sinks.values().next().expect("one").rows.len(), 200);
}
