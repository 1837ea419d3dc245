//! A front that had no CPU for a while closes no device for it.
//!
//! Method: the real binary, stopped by SIGSTOP for longer than a silent device is kept, as a machine
//! that is paused or overloaded stops it. It had closed them all as "silent for too long" when it
//! woke, with their answers unread in its sockets. Cannot show: a front that gets little CPU, but
//! some, all the time (`core/time.rs` is tested for that).

mod support;

use std::{net::SocketAddr, process::Command, time::Duration};

use forebay_testkit::{Child, Port};
use forebay_wire::device::Format;
use support::{
    Device, PATIENCE,
    plain::{self, Plain},
};

const DEVICES: u64 = 20;
/// Of the front under test; one that is silent for twice as long is closed.
const PING: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_front_that_was_paused_keeps_its_devices_and_still_closes_the_silent() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = Port::free().expect("a port");
    let address = SocketAddr::from(([127, 0, 0, 1], port.number()));
    let config = folder.path().join("front.toml");
    let (ring, nobody) = (folder.path().join("ring"), folder.path().join("nobody"));
    let text = format!(
        "listen.address = \"{address}\"\nadmin.address = \"127.0.0.1:0\"\n\
         limits.ping = \"{}s\"\nqueue.dir = {ring:?}\nqueue.capacity = \"4MiB\"\n\
         queue.any_filesystem = true\nuplink.middle = \"ipc://{}\"\n",
        PING.as_secs(),
        nobody.display(),
    );
    std::fs::write(&config, text).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-front"));
    command.arg("--config").arg(&config);
    let mut front = Child::spawn("front", &mut command, folder.path()).expect("a front");
    front.wait_for("front ready", PATIENCE).expect("it listens");
    let mut devices = Vec::new();
    for number in 0..DEVICES {
        let name = format!("d{number}");
        let device = Device::connect(address, &name, Some(Format::Cbor)).await;
        let mut device = device.expect("a handshake");
        device.hello(1, 1).await;
        devices.push(device);
    }
    let mut silent = Plain::to(address).await;
    silent.write(plain::request("silent", "").as_bytes()).await;
    assert!(silent.read_head().await.starts_with("HTTP/1.1 101 "));

    front.pause().expect("stopped");
    // Not a wait for something: it is the time that passes without the front.
    tokio::time::sleep(3 * PING).await;
    front.resume().expect("it goes on");

    for device in &mut devices {
        device.data([1]).await;
    }
    for device in &mut devices {
        device.acked(1).await;
    }
    assert_eq!(silent.close_code().await, 1008, "it answers no ping");
    assert!(front.log().contains("a core had no CPU"), "{}", front.log());
}
