//! The uplink over a network of hosts: a peer that goes without a word, and a name whose address
//! changes. Root only: the hosts are network namespaces.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod memory;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use forebay_link::{ReceiverConfig, SenderConfig, Seq, UplinkReceiver, UplinkSender};
use forebay_testkit::netns::{Host, Lan};
use forebay_testkit::{Child, or_skip, wait_until};
use memory::{Memory, eventually, no_failure};

const STOP: Duration = Duration::from_secs(5);
const WAIT: Duration = Duration::from_secs(60);
/// Entries that the sender of the child appends, one every few milliseconds.
const ENTRIES: u64 = 600;

fn at(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 98, 0, last)
}

fn receiver_on(host: &Host, store: &Memory) -> UplinkReceiver {
    let config = ReceiverConfig::new("receiver", format!("tcp://{}:7410", host.address()));
    host.run(|| UplinkReceiver::start(config, store.clone(), no_failure())).unwrap().unwrap()
}

#[test]
fn a_peer_that_goes_without_a_word_is_noticed_within_three_seconds() {
    let Some(lan) = or_skip(Lan::new()) else { return };
    let (front, middle) = (lan.host(at(1)).unwrap(), lan.host(at(2)).unwrap());
    let (source, store) = (Memory::new(1), Memory::new(2));
    let receiver = receiver_on(&middle, &store);
    let config = SenderConfig::new("sender", format!("tcp://{}:7410", at(2)));
    let sender = front.run(|| UplinkSender::start(config, source.clone(), no_failure()));
    let sender = sender.unwrap().unwrap();
    source.append(b"before");
    eventually("committed", || source.lock().committed == Seq::from_parts(1, 1));
    middle.unplug().unwrap();
    let unplugged = Instant::now();
    // It has something in flight: TCP alone would try for minutes.
    source.append(b"meanwhile");
    wait_until("the silence is noticed", WAIT, || !sender.stats().welcomed.get());
    let noticed = unplugged.elapsed();
    println!("noticed after {noticed:?}");
    // Three seconds after the last sign of life, and what a busy machine adds.
    assert!(noticed < Duration::from_millis(4_000), "{noticed:?}");
    eventually("it tries again", || sender.stats().connects.get() >= 3);
    middle.plug().unwrap();
    eventually("goes on", || source.lock().committed == Seq::from_parts(1, 2));
    assert_eq!(store.stored().len(), 2);
    sender.stop(STOP).unwrap();
    receiver.stop(STOP).unwrap();
}

/// A sender to the name `middle.test`, in a process whose `/etc/hosts` is its host's.
#[test]
#[ignore = "runs only as the child of another test"]
fn child() {
    let source = Memory::new(1);
    let config = SenderConfig::new("sender", "tcp://middle.test:7410");
    let sender = UplinkSender::start(config, source.clone(), no_failure()).unwrap();
    for number in 1..=ENTRIES {
        source.append(format!("entry {number}").as_bytes());
        std::thread::sleep(Duration::from_millis(5));
        if number == 1 {
            eventually("a first commit", || source.lock().committed > Seq::ZERO);
            println!("going");
        }
    }
    let last = Seq::from_parts(1, ENTRIES);
    wait_until("all is committed", WAIT, || source.lock().committed == last);
    println!("all committed over {} connections", sender.stats().sessions.get());
    sender.stop(STOP).unwrap();
}

#[test]
fn a_middle_that_comes_back_at_another_address_is_found_by_its_name() {
    let Some(lan) = or_skip(Lan::new()) else { return };
    let (front, mut middle) = (lan.host(at(1)).unwrap(), lan.host(at(2)).unwrap());
    let store = Memory::new(2);
    front.set_names(&[("middle.test", at(2))]).unwrap();
    let receiver = receiver_on(&middle, &store);
    let folder = tempfile::tempdir().unwrap();
    let mut command = front.command(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--ignored", "--nocapture"]);
    let mut sender = Child::spawn("sender", &mut command, folder.path()).unwrap();
    sender.wait_for("going", WAIT).unwrap();
    // Its host is gone before it could say good-bye.
    middle.unplug().unwrap();
    receiver.stop(STOP).unwrap();
    middle.move_to(at(3)).unwrap();
    middle.plug().unwrap();
    let receiver = receiver_on(&middle, &store);
    front.set_names(&[("middle.test", at(3))]).unwrap();
    sender.wait_for("all committed", WAIT).unwrap();
    let stored = store.stored();
    let expected = (1..=ENTRIES)
        .map(|number| (Seq::from_parts(1, number), format!("entry {number}").into_bytes()));
    assert!(stored.into_iter().map(|(_, seq, payload)| (seq, payload)).eq(expected));
    receiver.stop(STOP).unwrap();
}
