//! Idle connections are many: each costs the front at most 3 KiB, whatever was sent over it before,
//! and pings keep all of them open.
//!
//! Method: the real binary in a process of its own, whose private memory is looked at; the devices
//! are in this one, `FOREBAY_CROWD` of them, 2,000 in the normal run. What the front has for its
//! threads and its ring is there before the first look, as some devices have come and sent by then.
//! Cannot show: more connections than a process may have descriptors, and the kernel's memory (the
//! benchmark `front`, parts `crowd` and `memory`).

mod support;

use std::{net::SocketAddr, process::Command, sync::Arc, time::Duration};

use forebay_testkit::{Child, Port, rss_anon};
use forebay_wire::device::Format;
use support::{Device, PATIENCE};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

/// Of the front under test; one that is silent for twice as long is closed.
const PING: Duration = Duration::from_secs(3);
/// Handshakes at a time.
const OPENING_MAX: usize = 64;
const BURST: u64 = 16;
const BYTES_MAX: f64 = 3.0 * 1024.0;

/// Lets all devices do the same at the same time.
async fn all<F>(devices: Vec<Device>, deed: fn(Device) -> F) -> Vec<Device>
where
    F: Future<Output = Device> + Send + 'static,
{
    let tasks: JoinSet<Device> = devices.into_iter().map(deed).collect();
    tasks.join_all().await
}

/// Connects devices and says hello.
async fn open(address: SocketAddr, name: &'static str, count: usize) -> Vec<Device> {
    let opening = Arc::new(Semaphore::new(OPENING_MAX));
    let open = |number| {
        let opening = Arc::clone(&opening);
        async move {
            let _turn = opening.acquire().await.expect("never closed");
            let name = format!("{name}-{number}");
            let device = Device::connect(address, &name, Some(Format::Cbor)).await;
            let mut device = device.expect("a handshake");
            device.hello(1, 1).await;
            device
        }
    };
    (0..count).map(open).collect::<JoinSet<Device>>().join_all().await
}

async fn send_a_burst(mut device: Device) -> Device {
    device.data(1..=BURST).await;
    device.acked(BURST).await;
    device
}

/// Says nothing for longer than a device may that answers no ping.
async fn be_idle(mut device: Device) -> Device {
    let said = timeout(2 * PING + PING / 2, device.next()).await;
    assert!(said.is_err(), "{said:?}");
    device
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_cost_little_before_and_after_traffic_and_are_kept() {
    let count =
        std::env::var("FOREBAY_CROWD").map_or(2_000, |text| text.parse().expect("a number"));
    let folder = tempfile::tempdir().expect("a folder");
    let port = Port::free().expect("a port");
    let address = SocketAddr::from(([127, 0, 0, 1], port.number()));
    let front = front(folder.path(), address, count);
    let look = || rss_anon(front.pid()).expect("Linux") as f64;
    let few = all(open(address, "few", 200).await, send_a_burst).await;
    let before = look();
    let devices = open(address, "many", count).await;
    let welcomed = (look() - before) / count as f64;
    let devices = all(devices, be_idle).await;
    let devices = all(devices, send_a_burst).await;
    let used = (look() - before) / count as f64;
    eprintln!("{count} connections: {welcomed:.0} B each when welcomed, {used:.0} B after a burst");
    assert!(welcomed <= BYTES_MAX && used <= BYTES_MAX, "{welcomed:.0} B, then {used:.0} B each");
    drop((few, devices));
}

/// Starts the front whose devices these are.
fn front(folder: &std::path::Path, address: SocketAddr, count: usize) -> Child {
    let config = folder.join("front.toml");
    let (ring, nobody) = (folder.join("ring"), folder.join("nobody"));
    // Nobody empties it.
    let ring_mib = 4 + count / 500;
    let text = format!(
        "listen.address = \"{address}\"\nlisten.cores = 1\nadmin.address = \"127.0.0.1:0\"\n\
         limits.ping = \"{}s\"\nack.level = \"process\"\nqueue.dir = {ring:?}\n\
         queue.capacity = \"{ring_mib}MiB\"\nqueue.any_filesystem = true\n\
         uplink.middle = \"ipc://{}\"\n",
        PING.as_secs(),
        nobody.display(),
    );
    std::fs::write(&config, text).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-front"));
    command.arg("--config").arg(&config);
    let mut front = Child::spawn("front", &mut command, folder).expect("a front");
    front.wait_for("front ready", PATIENCE).expect("it listens");
    front
}
