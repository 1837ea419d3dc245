//! SIGKILL of the real binary under load: what it acked is there once, whenever it died.
//!
//! Three fronts send, with a device that roams between all of them; the middle is killed at random
//! moments (seed printed) and started again; the consumer reads and commits on the way. It cannot
//! show power cuts: the page cache survives a kill.

mod support;

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
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

/// The running binary; it never outlives the test.
struct Middle(Child);

impl Middle {
    fn kill(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("waited for");
    }
}

impl Drop for Middle {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(dir: &Path, addresses: &Addresses) -> Middle {
    let child = Command::new(env!("CARGO_BIN_EXE_forebay-middle"))
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
        .expect("the binary");
    Middle(child)
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
    let mut middle = spawn(dir.path(), &addresses);
    let fronts: Vec<_> = (1..=3).map(Front::new).collect();
    let senders: Vec<_> = fronts.iter().map(|front| front.connect(&addresses.uplink)).collect();
    let consumer = Consumer::connect(&addresses);
    let wanted = Arc::new(AtomicUsize::new(usize::MAX));
    let told = Arc::clone(&wanted);
    // It reads and commits whatever happens to the middle.
    let reader = std::thread::spawn(move || consumer.take_and_commit(&told));
    let (mut sent, mut roamed) = (0, 0);
    for _ in 0..KILLS {
        let until = Instant::now() + Duration::from_millis(random.random_range(50..900));
        while Instant::now() < until {
            // Some frames' worth in flight at each front, not more: the test is of kills.
            for (at, front) in fronts.iter().enumerate() {
                front.wait_backlog_below(2000);
                front.append(&format!("device-{at}"), sent + 1..=sent + 50);
                // Each front has most of what the roamer sent, in pieces that overlap.
                front.append("roamer", roamed + 1..=roamed + 10 + at as u64 * 5);
            }
            (sent, roamed) = (sent + 50, roamed + 20);
        }
        middle.kill();
        middle = spawn(dir.path(), &addresses);
    }
    println!("{sent} messages of each device, {roamed} of the one that roams");
    wanted.store(3 * sent as usize + roamed as usize, Ordering::Release);
    let consumer = reader.join().expect("everything came");
    consumer.assert_once();
    fronts.iter().for_each(|front| front.wait_acked(front.standing().0));
    for sender in senders {
        sender.stop(DEADLINE).expect("ends");
    }
    middle.kill();
}
