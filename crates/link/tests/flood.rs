//! Ten thousand silent connections and headers of a terabyte, at a plain port and at one with TLS:
//! the process lives, the good peer keeps its pace and its connection, and another good one gets
//! in beside them.
//!
//! The pace is printed; what is asserted leaves room for a busy machine. Everything is in one
//! process, so the flood also takes the time of the good peers' threads. Not shown: a flood that
//! fills the line itself.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod memory;
mod secured;

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use forebay_link::{
    BindConfig, ConnectTls, ReceiverConfig, SenderConfig, UplinkReceiver, UplinkSender,
};
use memory::{Memory, eventually, no_failure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use secured::{Installation, bind, connect, greeting, is_closed, plain, ready, terabyte};

const STOP: Duration = Duration::from_secs(5);
const SILENT: usize = 10_000;
/// From so many addresses, for the ports of one are soon used up in other tests.
const SOURCES: usize = 8;
/// Entries whose way to durable and back is timed.
const TIMED: usize = 200;
/// A peer that is not served at all waits for seconds.
const PACE_MAX: Duration = Duration::from_millis(500);

/// Room for both ends, or why not.
fn make_room() -> Result<(), String> {
    let needed = SILENT as u64 + 2_000;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        let raised = Rlimit { current: Some(needed), maximum: limit.maximum };
        return setrlimit(Resource::Nofile, raised)
            .map_err(|error| format!("{needed} open files are needed: {error}"));
    }
    Ok(())
}

#[test]
fn ten_thousand_silent_connections_cost_the_good_peers_nothing() {
    let Some(()) = forebay_testkit::or_skip(make_room()) else { return };
    flood("plain", BindConfig::new("tcp://127.0.0.1:0"), None);
    let place = Installation::new();
    let (server, client) = (place.server(), place.client());
    flood("tls", bind(&server), connect(&client));
}

fn flood(name: &str, bind: BindConfig, tls: Option<ConnectTls>) {
    let (source, store) = (Memory::new(1), Memory::new(2));
    let config = ReceiverConfig { bind, ..ReceiverConfig::new("receiver", "") };
    let receiver = UplinkReceiver::start(config, store, no_failure()).unwrap();
    let mut config = SenderConfig::new("sender", receiver.endpoint());
    config.connect.tls = tls;
    let good = UplinkSender::start(config.clone(), source.clone(), no_failure()).unwrap();
    let before = pace(&source);

    let address: SocketAddr = receiver.address().unwrap();
    let pump = receiver.pump().unwrap();
    let (begin, flooding) = std::sync::mpsc::channel();
    let stranger = std::thread::spawn(move || {
        let mut silent = Vec::with_capacity(SILENT);
        for number in 0..SILENT {
            silent.push(connect_from(number % SOURCES, address));
            if number == SILENT / 10 {
                begin.send(()).unwrap();
            }
        }
        silent
    });
    flooding.recv().unwrap();
    let during = pace(&source);
    let second = Memory::new(3);
    let last = second.append(b"from a newcomer");
    let asked = Instant::now();
    let newcomer = UplinkSender::start(config, second.clone(), no_failure()).unwrap();
    eventually("the newcomer gets in", || second.lock().committed == last);
    let let_in = asked.elapsed();
    let silent = stranger.join().unwrap();
    let after = pace(&source);
    for before in [greeting(), [greeting(), ready(b"DEALER")].concat()] {
        // With TLS not even the greeting is believed.
        let mut peer = plain(receiver.endpoint());
        let _sent = peer.write_all(&[before, terabyte()].concat());
        assert!(is_closed(&mut peer));
    }
    eventually("none is left", || pump.open.get() == 2);
    let milli = |pace: Duration| pace.as_secs_f64() * 1e3;
    println!(
        "{name}: an entry took {:.2} ms before, {:.2} ms during {SILENT} silent connections, \
         {:.2} ms after; a newcomer was let in within {:.0} ms; refused {}, late {}, untrusted {}",
        milli(before),
        milli(during),
        milli(after),
        milli(let_in),
        pump.refused.get(),
        pump.late.get(),
        pump.untrusted.get(),
    );
    assert!(during < PACE_MAX && after < PACE_MAX, "the good peer lost its pace");
    assert_eq!(good.stats().sessions.get(), 1, "the good peer kept its connection");
    drop(silent);
    good.stop(STOP).unwrap();
    newcomer.stop(STOP).unwrap();
    receiver.stop(STOP).unwrap();
}

/// The median time from an append to its commit, one entry after the other.
fn pace(source: &Memory) -> Duration {
    let mut times: Vec<_> = (0..TIMED)
        .map(|_| {
            let begin = Instant::now();
            let last = source.append(&[7; 256]);
            while source.lock().committed < last {
                assert!(begin.elapsed() < Duration::from_secs(20), "the good peer stands still");
                std::thread::yield_now();
            }
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[TIMED / 2]
}

/// A connection from one of several addresses of this machine.
fn connect_from(source: usize, to: SocketAddr) -> TcpStream {
    let from = SocketAddr::from(([127, 0, 0, u8::try_from(source + 10).unwrap()], 0));
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&from.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}
