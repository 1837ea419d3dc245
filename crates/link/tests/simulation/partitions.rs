//! A changed partition map: an installation of one middle gets a second.
//!
//! Told as operators do it: no device sends while everything drains, then every front and middle is
//! started with the new map. Ends that differ refuse each other; and without the drain the checks
//! see what it is there to prevent.

use std::time::Duration;

use crate::event::{Crash, Event};
use crate::fault::Fault;
use crate::network::Weather;
use crate::world::{Shape, World};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Two fronts that know one middle, which knows no other; the second middle knows of both.
fn one_of_two() -> World {
    let shape = Shape {
        fronts: 2,
        middles: 2,
        names: 1,
        processes_each: 1,
        capacity_bytes: 1_000_000,
        process_fronts: false,
        fault: Fault::None,
    };
    let mut world = World::new(1, shape);
    world.network.weather = Weather { delay_us_max: 500, ..Weather::default() };
    for front in 0..2 {
        know(&mut world, front, 1);
    }
    world.maps.middles[0] = 1;
    world.at(ms(1), Event::CrashMiddle(0, Crash::Kill));
    world
}

/// Starts a front again, with a map of so many middles.
fn know(world: &mut World, front: usize, middles: usize) {
    world.maps.fronts[front] = middles;
    world.at(world.now, Event::CrashFront(front, Crash::Kill));
}

fn append(world: &mut World, front: usize, messages: std::ops::RangeInclusive<u64>) {
    for message in messages {
        world.at(world.now, Event::Append { message, front });
    }
}

fn run_for(world: &mut World, millis: u64) {
    let until = world.now + ms(millis);
    while world.step(until) {}
}

/// Messages that the store behind a middle has.
fn rows(world: &World, middle: usize) -> Vec<u64> {
    let sinks = world.sinks.iter().filter(|((of, _), _)| *of == middle);
    sinks.flat_map(|(_, sink)| sink.rows.keys().copied()).collect()
}

#[test]
fn a_partition_map_changed_after_a_drain_loses_and_doubles_nothing() {
    let mut world = one_of_two();
    run_for(&mut world, 7_000);
    append(&mut world, 0, 1..=30);
    append(&mut world, 1, 31..=60);
    run_for(&mut world, 10_000);
    assert!(world.is_drained(), "the old map is drained");
    assert_eq!(rows(&world, 0).len(), 60);
    assert!(rows(&world, 1).is_empty());
    // The middle first, then one front, the other late: it is refused, and keeps what it has.
    world.maps.middles[0] = 2;
    world.at(world.now, Event::CrashMiddle(0, Crash::Kill));
    know(&mut world, 0, 2);
    run_for(&mut world, 7_000);
    append(&mut world, 0, 61..=80);
    append(&mut world, 1, 82..=82);
    run_for(&mut world, 3_000);
    assert!(world.maps.refused > 0, "a front with the old map is refused");
    assert_eq!(rows(&world, 1).len(), 10, "the odd numbers of those that the other front sent");
    assert!(!rows(&world, 0).contains(&82), "nothing of a refused front is taken");
    know(&mut world, 1, 2);
    run_for(&mut world, 7_000);
    append(&mut world, 1, 83..=100);
    world.finish();
    assert!(world.violations.is_empty(), "{:#?}", world.violations);
    assert_eq!(rows(&world, 0).len() + rows(&world, 1).len(), 99);
}

#[test]
fn a_partition_map_changed_without_a_drain_doubles_what_is_sent_again() {
    let mut world = one_of_two();
    run_for(&mut world, 7_000);
    append(&mut world, 0, 1..=30);
    run_for(&mut world, 3_000);
    // The devices had no acks: they send again, and are sent past the record of duplicates.
    world.maps.middles[0] = 2;
    world.at(world.now, Event::CrashMiddle(0, Crash::Kill));
    know(&mut world, 0, 2);
    know(&mut world, 1, 2);
    run_for(&mut world, 7_000);
    append(&mut world, 0, 1..=30);
    world.finish();
    let (old, new) = (rows(&world, 0), rows(&world, 1));
    assert_eq!(old.iter().filter(|message| new.contains(message)).count(), 15);
    assert!(world.violations[0].contains("I12"), "{:#?}", world.violations);
}
