//! One random scenario: a shape, a weather, and what goes wrong when.

use std::time::Duration;

use forebay_link::machine::Random;

use crate::event::{Crash, Event};
use crate::fault::Fault;
use crate::network::Weather;
use crate::world::{Agent, Client, Shape, World};

/// Runs the scenario of `seed` to its end.
pub(crate) fn run(seed: u64, fault: Fault) -> World {
    let mut random = Random::new(seed ^ 0x5eed);
    let shape = Shape {
        fronts: 1 + random.below(3) as usize,
        middles: 1 + random.below(2) as usize,
        names: 1 + random.below(2) as usize,
        processes_each: 1 + usize::from(random.below(4) == 0),
        capacity_bytes: [3_000, 6_000, 1_000_000][random.below(3) as usize],
        process_fronts: random.below(3) == 0,
        fault,
    };
    let mut world = World::new(seed, shape);
    world.network.weather = weather(&mut random);
    let lasts_ms = 1_000 + random.below(4_000);
    let moment = |random: &mut Random| Duration::from_millis(random.below(lasts_ms));
    for middle in 0..shape.middles {
        world.at(Duration::from_millis(300), Event::Reclaim(middle));
    }
    for message in 1..=(20 + random.below(100)) {
        let front = random.below(shape.fronts as u64) as usize;
        let at = moment(&mut random);
        world.at(at, Event::Append { message, front });
        if random.below(6) == 0 {
            // The device did not get its ack and came back elsewhere, soon or much later.
            let front = random.below(shape.fronts as u64) as usize;
            let late = Duration::from_millis(random.below(2_000));
            world.at(at + late, Event::Append { message, front });
        }
    }
    for _ in 0..random.below(8) {
        let at = moment(&mut random);
        world.at(at, disaster(&mut random, &shape));
    }
    let end = Duration::from_millis(lasts_ms);
    while world.violations.is_empty() && world.step(end) {}
    if world.violations.is_empty() {
        world.finish();
    }
    world
}

fn weather(random: &mut Random) -> Weather {
    let delay_us_max = [300, 5_000, 60_000][random.below(3) as usize];
    match random.below(3) {
        // As TCP gives it: nothing lost within a connection.
        0 => Weather { delay_us_max, ..Weather::default() },
        1 => Weather { lost: 20, repeated: 20, reordered: 20, delay_us_max },
        _ => Weather { lost: 120, repeated: 60, reordered: 120, delay_us_max },
    }
}

fn client(random: &mut Random, shape: &Shape) -> (Client, usize) {
    let rings = shape.fronts * shape.middles;
    let processes = shape.middles * shape.names * shape.processes_each;
    match random.below(3) {
        0 => {
            let ring = random.below(rings as u64) as usize;
            (Client::Uplink(ring), ring % shape.middles)
        }
        kind => {
            let process = random.below(processes as u64) as usize;
            let middle = process / (shape.names * shape.processes_each);
            let client = if kind == 1 { Client::Feed(process) } else { Client::Fetch(process) };
            (client, middle)
        }
    }
}

fn disaster(random: &mut Random, shape: &Shape) -> Event {
    let middle = random.below(shape.middles as u64) as usize;
    let front = random.below(shape.fronts as u64) as usize;
    let processes = shape.middles * shape.names * shape.processes_each;
    let process = random.below(processes as u64) as usize;
    match random.below(16) {
        0 => Event::CrashFront(front, Crash::Kill),
        1 | 2 => Event::CrashFront(front, Crash::Power),
        3 => Event::CrashFront(front, Crash::Disk),
        4 => Event::CrashMiddle(middle, Crash::Kill),
        5 | 6 => Event::CrashMiddle(middle, Crash::Power),
        7 => Event::CrashMiddle(middle, Crash::Torn),
        8 if random.below(4) == 0 => Event::CrashMiddle(middle, Crash::Disk),
        8..=10 => Event::CrashProcess(process),
        11 => Event::HalfOpen(random.next_u64()),
        12 => Event::Break(random.next_u64()),
        13 => {
            let by = Duration::from_millis(random.below(20_000));
            let agent = match random.below(3) {
                0 => Agent::Uplink(front * shape.middles + middle),
                1 => Agent::Middle(middle),
                _ => Agent::Process(process),
            };
            Event::JumpClock(agent, by)
        }
        _ => {
            let (client, middle) = client(random, shape);
            let lasts = Duration::from_millis(random.below(8_000));
            Event::Cut { client, middle, lasts }
        }
    }
}
