//! How a sender comes back to a receiver that is away: never in step with others, and never under a
//! name that it had before.
//!
//! The receiver is a listener that shakes hands by hand, or not at all. That the pauses double and
//! are spread evenly is shown on the machine (`machine/connection.rs`), that a name is resolved anew
//! each time in `network.rs`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod memory;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use forebay_link::{SenderConfig, UplinkSender};
use memory::{Memory, no_failure};

const STOP: Duration = Duration::from_secs(5);
const WAIT: Duration = Duration::from_secs(20);

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    (listener, endpoint)
}

fn sender_to(endpoint: &str) -> UplinkSender {
    let config = SenderConfig::new("sender", endpoint);
    UplinkSender::start(config, Memory::new(1), no_failure()).unwrap()
}

/// The next connection, with a deadline on what is read from it.
fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    stream
}

/// Shakes hands as a ROUTER does, and gives the identity that the peer names; empty for none.
fn identity_of(mut peer: TcpStream) -> Vec<u8> {
    let mut greeting = [0; 64];
    peer.read_exact(&mut greeting).unwrap();
    (greeting[32], greeting[33]) = (0, 0);
    peer.write_all(&greeting).unwrap();
    peer.write_all(b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER").unwrap();
    let mut head = [0; 2];
    peer.read_exact(&mut head).unwrap();
    assert_eq!(head[0], 4, "a short command");
    let mut body = vec![0; usize::from(head[1])];
    peer.read_exact(&mut body).unwrap();
    let mut rest = body.strip_prefix(b"\x05READY").unwrap();
    while let Some((&length, after)) = rest.split_first() {
        let (name, after) = after.split_at(length.into());
        let (length, after) = after.split_first_chunk::<4>().unwrap();
        let (value, after) = after.split_at(u32::from_be_bytes(*length) as usize);
        if name.eq_ignore_ascii_case(b"identity") {
            return value.to_vec();
        }
        rest = after;
    }
    Vec::new()
}

#[test]
fn each_connection_has_an_identity_of_its_own() {
    let (listener, endpoint) = listen();
    let sender = sender_to(&endpoint);
    // An identity that comes back kills the new connection when the old one is reset. An empty one
    // is made up anew by the receiver.
    let mut named: Vec<Vec<u8>> = Vec::new();
    for _ in 0..4 {
        let identity = identity_of(accept(&listener));
        assert!(!named.contains(&identity), "{identity:?} was named before");
        named.extend(Some(identity).filter(|identity| !identity.is_empty()));
    }
    sender.stop(STOP).unwrap();
}

#[test]
fn two_senders_do_not_come_back_in_step() {
    let pauses = || {
        let (listener, endpoint) = listen();
        let sender = sender_to(&endpoint);
        let times: Vec<Instant> = (0..6)
            .map(|_| {
                drop(accept(&listener));
                Instant::now()
            })
            .collect();
        sender.stop(STOP).unwrap();
        times.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>()
    };
    let (one, other) = std::thread::scope(|scope| {
        let other = scope.spawn(pauses);
        (pauses(), other.join().unwrap())
    });
    println!("{one:?}, {other:?}");
    let apart = one.iter().zip(&other).map(|(one, other)| one.abs_diff(*other));
    assert!(apart.max() > Some(Duration::from_millis(20)), "{one:?} and {other:?}");
}
