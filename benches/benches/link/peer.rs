//! The least that moves entries safely over any transport: a window of batches and cumulative acks.

use bytes::Bytes;
use forebay_link::{BatchBuilder, EntrySource, EntryStore, QueueId, Seq};
use forebay_wire::frame::{FRAME_BYTES_TARGET, Kind};
use forebay_wire::uplink::{Standing, Uplink};

/// Batches sent and unacked, as the link has.
const WINDOW_BATCHES: usize = 128;
const SESSION: u64 = 1;

/// Packs and sends everything; `acks` gives what has been acked, and waits for more if told to.
pub(crate) fn send_all(
    source: &mut impl EntrySource,
    mut send: impl FnMut(Bytes),
    mut acks: impl FnMut(bool) -> Option<Seq>,
) {
    let bounds = source.bounds().expect("bounds");
    let last = Seq::new(bounds.next.get() - 1);
    let queue = source.queue();
    let mut batch = BatchBuilder::new(FRAME_BYTES_TARGET);
    let (mut sent, mut acked) = (bounds.committed, Seq::ZERO);
    let mut in_flight = std::collections::VecDeque::new();
    while acked < last {
        let open = in_flight.len() < WINDOW_BATCHES && sent < last;
        if open {
            source.fill(sent, &mut batch).expect("fill");
            let prev = sent;
            sent = batch.last();
            send(batch.finish(Kind::Batch, 0, queue, SESSION, prev));
            in_flight.push_back(sent);
        }
        while let Some(ack) = acks(!open && acked < last) {
            if ack <= acked {
                break;
            }
            acked = ack;
            while in_flight.front().is_some_and(|sent| *sent <= acked) {
                in_flight.pop_front();
            }
            source.commit(acked).expect("commit");
            if in_flight.len() < WINDOW_BATCHES {
                break;
            }
        }
    }
}

/// Checks a frame and appends its records: what the source calls its last one, and our number.
pub(crate) fn take(store: &mut impl EntryStore, frame: &[u8]) -> (QueueId, Seq, Seq) {
    let Ok(Uplink::Batch(batch)) = Uplink::decode(frame) else { panic!("no batch") };
    let local = store.append(batch.queue, &batch.records).expect("append");
    (batch.queue, batch.records.last(), local)
}

/// The frame of an ack.
pub(crate) fn ack(queue: QueueId, durable: Seq) -> Bytes {
    Standing { queue, session: SESSION, durable, credit: 8 << 20 }.encode_ack()
}

/// What an ack says.
pub(crate) fn acked(frame: &[u8]) -> Seq {
    let Ok(Uplink::Ack(standing)) = Uplink::decode(frame) else { panic!("no ack") };
    standing.durable
}

/// Waits until the store has made `seq` durable.
pub(crate) fn wait_durable(store: &mut impl EntryStore, seq: Seq) {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    while !store.poll_durable(seq, &waker).expect("durable") {
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
}
