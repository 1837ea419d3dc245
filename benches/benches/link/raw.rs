//! The floor: the same frames over one TCP connection, with blocking reads and writes.
//!
//! Acks wait for the store on the reading thread: it takes what has arrived, up to as many frames
//! as the link's receiver does, and then acks all of it at once.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use forebay_link::{BatchBuilder, EntrySource, EntryStore, Seq};
use forebay_wire::frame::{FRAME_BYTES_TARGET, HEADER_BYTES, Kind};

use crate::ends::Feed;
use crate::peer;

/// Frames taken before they are acked.
const FRAMES_AT_ONCE: usize = 64;

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let one = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    let (other, _) = listener.accept().expect("accept");
    one.set_nodelay(true).expect("nodelay");
    other.set_nodelay(true).expect("nodelay");
    (one, other)
}

/// Reads one frame into `buffer`; `false` at the end.
fn read_frame(from: &mut TcpStream, buffer: &mut Vec<u8>) -> bool {
    buffer.resize(HEADER_BYTES, 0);
    match from.read_exact(buffer) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return false,
        read => read.expect("a header"),
    }
    let body = u32::from_le_bytes([buffer[52], buffer[53], buffer[54], buffer[55]]) as usize;
    buffer.resize(HEADER_BYTES + body, 0);
    from.read_exact(&mut buffer[HEADER_BYTES..]).expect("a body");
    true
}

/// Whether a read would not wait.
fn is_ready(from: &TcpStream) -> bool {
    from.set_nonblocking(true).expect("nonblocking");
    let ready = from.peek(&mut [0]).is_ok_and(|count| count > 0);
    from.set_nonblocking(false).expect("blocking");
    ready
}

/// Moves all entries from source to store.
pub(crate) fn uplink(mut source: impl EntrySource, mut store: impl EntryStore) {
    let (front, middle) = pair();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (mut from, mut to) = (middle.try_clone().expect("clone"), middle);
            let mut buffer = Vec::new();
            while read_frame(&mut from, &mut buffer) {
                let (mut queue, mut last, mut local) = peer::take(&mut store, &buffer);
                for _ in 1..FRAMES_AT_ONCE {
                    if !is_ready(&from) || !read_frame(&mut from, &mut buffer) {
                        break;
                    }
                    (queue, last, local) = peer::take(&mut store, &buffer);
                }
                peer::wait_durable(&mut store, local);
                if to.write_all(&peer::ack(queue, last)).is_err() {
                    return;
                }
            }
        });
        let (acked, acks) = mpsc::channel();
        let mut from = front.try_clone().expect("clone");
        scope.spawn(move || {
            let mut buffer = Vec::new();
            while read_frame(&mut from, &mut buffer) {
                if acked.send(peer::acked(&buffer)).is_err() {
                    return;
                }
            }
        });
        let mut to = &front;
        peer::send_all(
            &mut source,
            |frame| to.write_all(&frame).expect("write"),
            |wait| if wait { acks.recv().ok() } else { acks.try_recv().ok() },
        );
        front.shutdown(std::net::Shutdown::Both).expect("shutdown");
    });
}

/// Reads the whole feed.
pub(crate) fn feed(log: &Feed) {
    let (publisher, mut subscriber) = pair();
    log.received(0);
    std::thread::scope(|scope| {
        scope.spawn(|| publish(log, |frame| (&publisher).write_all(&frame).expect("write")));
        let mut buffer = Vec::new();
        let mut received = 0;
        while received < log.entries() {
            assert!(read_frame(&mut subscriber, &mut buffer), "the feed goes on");
            received = read(&buffer);
            log.received(received);
        }
    });
}

/// Packs the log as it grows, to its end.
pub(crate) fn publish(log: &Feed, mut send: impl FnMut(bytes::Bytes)) {
    let mut batch = BatchBuilder::new(FRAME_BYTES_TARGET);
    let mut sent = Seq::from_parts(1, 0);
    while sent.counter() < log.entries() {
        log.wait(sent.counter());
        log.pack(sent, &mut batch);
        let prev = sent;
        sent = batch.last();
        send(batch.finish(Kind::Data, 0, forebay_link::QueueId::new(1), 1, prev));
    }
}

/// Checks a frame of the feed and reads its records; the number of the last.
pub(crate) fn read(frame: &[u8]) -> u64 {
    use forebay_wire::feed::Feed as Frame;
    let Ok(Frame::Data(batch)) = Frame::decode(frame) else { panic!("no records") };
    batch.records.iter().map(|record| record.seq.counter()).max().unwrap_or_default()
}
