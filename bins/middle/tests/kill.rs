//! SIGKILL of the real binary under load: what it acked is there once, whenever it died.
//!
//! Three fronts send, with a device that roams between all of them; the middle is killed at random
//! moments (seed printed) and started again; the consumer reads and commits on the way. It cannot
//! show power cuts: the page cache survives a kill.

mod support;

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use forebay_middle::Addresses;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use support::{CONSUMER, Consumer, DEADLINE, Front};

const KILLS: u32 = 12;

/// Four ports that are free now, below those that the system hands out to others.
fn ports(random: &mut SmallRng) -> [u16; 4] {
    let mut found = Vec::new();
    while found.len() < 4 {
        let port = random.random_range(10_000..30_000);
        if !found.contains(&port) && std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            found.push(port);
        }
    }
    [found[0], found[1], found[2], found[3]]
}

fn spawn(dir: &Path, addresses: &Addresses) -> Child {
    Command::new(env!("CARGO_BIN_EXE_forebay-middle"))
        .env("FOREBAY__UPLINK__LISTEN", &addresses.uplink)
        .env("FOREBAY__FEED__LISTEN", &addresses.feed)
        .env("FOREBAY__FETCH__LISTEN", &addresses.fetch)
        .env("FOREBAY__ADMIN__ADDRESS", addresses.admin.to_string())
        .env("FOREBAY__QUEUE__DIR", dir)
        .env("FOREBAY__QUEUE__CAPACITY", "8MiB")
        .env("FOREBAY__QUEUE__ANY_FILESYSTEM", "true")
        .env("FOREBAY__CONSUMERS__REQUIRED", format!("[\"{CONSUMER}\"]"))
        .env("RUST_LOG", "warn")
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary")
}

#[test]
fn acked_entries_survive_sigkill_of_the_middle_and_come_once() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().expect("a directory");
    let [uplink, feed, fetch, admin] = ports(&mut random);
    let tcp = |port: u16| format!("tcp://127.0.0.1:{port}");
    let addresses = Addresses {
        uplink: tcp(uplink),
        feed: tcp(feed),
        fetch: tcp(fetch),
        admin: ([127, 0, 0, 1], admin).into(),
    };
    let mut child = spawn(dir.path(), &addresses);
    let fronts: Vec<_> = (1..=3).map(Front::new).collect();
    let senders: Vec<_> = fronts.iter().map(|front| front.connect(&addresses.uplink)).collect();
    let mut consumer = Consumer::connect(&addresses);
    let (mut sent, mut roamed) = (0, 0);
    for _ in 0..KILLS {
        let until = Instant::now() + Duration::from_millis(random.random_range(50..900));
        while Instant::now() < until {
            for (at, front) in fronts.iter().enumerate() {
                front.append(&format!("device-{at}"), sent + 1..=sent + 50);
                // Each front has most of what the roamer sent, in pieces that overlap.
                front.append("roamer", roamed + 1..=roamed + 10 + at as u64 * 5);
            }
            (sent, roamed) = (sent + 50, roamed + 20);
            consumer.take_until((consumer.got.len() + 20).min(sent as usize));
            if random.random_bool(0.3) && consumer.last.get() > 0 {
                consumer.commit();
            }
        }
        child.kill().expect("killed");
        child.wait().expect("waited for");
        child = spawn(dir.path(), &addresses);
    }
    fronts.iter().for_each(|front| front.wait_acked(front.standing().0));
    consumer.take_until(3 * sent as usize + roamed as usize);
    consumer.commit();
    consumer.assert_once();
    for sender in senders {
        sender.stop(DEADLINE).expect("ends");
    }
    child.kill().expect("killed");
    child.wait().expect("waited for");
}
