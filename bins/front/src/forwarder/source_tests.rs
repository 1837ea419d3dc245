//! A ring behind the link's sender: nothing is skipped, nothing is committed that was not acked.
//!
//! Method: the calls that the sender makes, in its order, on a real ring. The sender itself and
//! the socket are tested in `forebay-link` and, together with this, in `super::tests`.

use std::{
    sync::Arc,
    task::{Wake, Waker},
    time::Duration,
};

use forebay_link::{BatchBuilder, EntrySource, Records, Seq};
use forebay_queue::{Options, Queue};
use forebay_wire::frame::{Frame, Kind};

use super::{READER, source::RingSource};
use crate::watermark::Watermark;

struct Silent;

impl Wake for Silent {
    fn wake(self: Arc<Self>) {}
}

fn open(dir: &std::path::Path) -> (Queue, RingSource, Arc<Watermark>) {
    open_resting(dir, Duration::ZERO)
}

fn open_resting(dir: &std::path::Path, rest: Duration) -> (Queue, RingSource, Arc<Watermark>) {
    let options = Options { capacity_bytes: 1 << 20, any_filesystem: true, ..Options::default() };
    let queue = Queue::open_or_create(dir, &options).expect("a ring");
    let (reader, acked) = (queue.reader(READER).expect("a reader"), Arc::new(Watermark::default()));
    acked.advance(reader.cursor());
    let source = RingSource::new(queue.clone(), reader, Arc::clone(&acked), Arc::default(), rest);
    (queue, source, acked)
}

fn append(queue: &Queue, numbers: impl IntoIterator<Item = u64>, bytes: usize) {
    let mut last = queue.appended();
    for number in numbers {
        let mut payload = vec![0; bytes.max(8)];
        payload[..8].copy_from_slice(&number.to_le_bytes());
        last = queue.append(0, &payload).expect("room");
    }
    queue.wait_durable(last, Duration::from_secs(10)).expect("durable");
}

/// Fills frames from `after` on until there is no more; the numbers, and the last Seq.
fn read_all(source: &mut RingSource, after: Seq, frame_bytes: usize) -> (Vec<u64>, Seq) {
    let (mut got, mut after) = (Vec::new(), after);
    let mut batch = BatchBuilder::new(frame_bytes);
    loop {
        source.fill(after, &mut batch).expect("a ring");
        if batch.is_empty() {
            return (got, after);
        }
        after = batch.last();
        let frame = batch.finish(Kind::Batch, 0, source.queue(), 0, Seq::ZERO);
        let frame = Frame::decode(&frame).expect("a frame");
        for record in &Records::of(&frame).expect("records") {
            got.push(u64::from_le_bytes(record.payload[..8].try_into().expect("8 bytes")));
        }
    }
}

#[test]
fn frames_hold_every_entry_once_whatever_their_sizes() {
    let dir = tempfile::tempdir().expect("a directory");
    let (queue, mut source, _) = open(dir.path());
    for number in 0..600 {
        append(&queue, [number], (number as usize * 37) % 900);
    }
    for frame_bytes in [200, 1000, 4096, 65_536] {
        let (got, _) = read_all(&mut source, Seq::ZERO, frame_bytes);
        assert_eq!(got, (0..600).collect::<Vec<_>>(), "frames of {frame_bytes}");
    }
    assert_eq!(source.replays(), 3 * 600);
}

#[test]
fn a_step_back_sends_the_same_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (queue, mut source, _) = open(dir.path());
    append(&queue, 1..=100, 64);
    let first = Seq::new(queue.appended().get() - 100);
    let (_, end) = read_all(&mut source, Seq::ZERO, 4096);
    let (again, same_end) = read_all(&mut source, Seq::new(first.get() + 40), 4096);
    assert_eq!((again, same_end), ((41..=100).collect(), end));
}

#[test]
fn only_a_commit_moves_the_cursor_and_the_watermark() {
    let dir = tempfile::tempdir().expect("a directory");
    let (queue, mut source, acked) = open(dir.path());
    append(&queue, 1..=10, 64);
    let (_, end) = read_all(&mut source, Seq::ZERO, 4096);
    assert_eq!((acked.get().get(), source.bounds().expect("a ring").committed), (0, Seq::ZERO));
    let fifth = Seq::new(end.get() - 5);
    source.commit(fifth).expect("a ring");
    let bounds = source.bounds().expect("a ring");
    assert_eq!((bounds.committed, acked.get().get()), (fifth, fifth.get()));
    assert_eq!(bounds.oldest.get(), fifth.get() + 1);
    assert_eq!(bounds.next.get(), end.get() + 1);
    assert_eq!(read_all(&mut source, fifth, 4096).0, [6, 7, 8, 9, 10]);
    // An older ack that comes late changes nothing.
    source.commit(Seq::new(fifth.get() - 2)).expect("a ring");
    assert_eq!(acked.get().get(), fifth.get());
}

#[test]
fn an_ack_beyond_the_ring_means_all_of_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let (queue, mut source, acked) = open(dir.path());
    append(&queue, 1..=10, 64);
    let end = queue.appended();
    // The middle has entries that a power cut took back here.
    source.commit(Seq::new(end.get() + 7)).expect("a ring");
    assert_eq!((acked.get(), queue.readers()[0].committed), (end, end));
}

#[test]
fn an_epoch_ends_its_frame_and_the_next_open_goes_on_above_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let (queue, source, _) = open(dir.path());
    append(&queue, 1..=3, 64);
    drop((queue, source));
    let (queue, mut source, _) = open(dir.path());
    let bounds = source.bounds().expect("a ring");
    assert_eq!((bounds.oldest.epoch() + 1, bounds.next.counter()), (bounds.next.epoch(), 1));
    append(&queue, 4..=6, 64);
    let mut batch = BatchBuilder::new(65_536);
    source.fill(Seq::ZERO, &mut batch).expect("a ring");
    assert_eq!((batch.count(), batch.last().counter()), (3, 3));
    let old_end = batch.last();
    batch.clear();
    let (got, end) = read_all(&mut source, old_end, 65_536);
    assert_eq!((got, end.get()), (vec![4, 5, 6], queue.appended().get()));
    // A middle that has the old epoch only up to a number the ring never had.
    source.commit(Seq::new(old_end.get() + 9)).expect("a ring");
    assert_eq!(source.bounds().expect("a ring").oldest, bounds.next);
}

#[test]
fn an_empty_ring_says_where_it_will_go_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let (queue, mut source, _) = open(dir.path());
    let waker = Waker::from(Arc::new(Silent));
    let bounds = source.bounds().expect("a ring");
    assert_eq!((bounds.committed, bounds.oldest), (Seq::ZERO, bounds.next));
    assert!(!source.poll_ready(Seq::ZERO, &waker).expect("a ring"));
    append(&queue, [1], 64);
    assert!(source.poll_ready(Seq::ZERO, &waker).expect("a ring"));
    assert_eq!(queue.appended().get(), bounds.next.get());
}

#[cfg(feature = "planted-faults")]
#[test]
fn the_planted_fault_commits_what_was_merely_sent() {
    let dir = tempfile::tempdir().expect("a directory");
    let (queue, mut source, acked) = open(dir.path());
    append(&queue, 1..=10, 64);
    source.commits_before_ack = true;
    let (_, end) = read_all(&mut source, Seq::ZERO, 4096);
    assert_eq!(source.bounds().expect("a ring").committed, end);
    assert_eq!(acked.get().get(), 0, "it must not ack to devices as well");
    assert_eq!(read_all(&mut source, Seq::ZERO, 4096).0, Vec::<u64>::new(), "they are gone");
}

#[tokio::test]
async fn what_follows_a_frame_that_was_not_full_waits_for_company_and_then_goes_in_one() {
    const REST: Duration = Duration::from_millis(30);
    let dir = tempfile::tempdir().expect("a directory");
    let (queue, mut source, _acked) = open_resting(dir.path(), REST);
    append(&queue, 0..1, 8);
    let begun = std::time::Instant::now();
    let (first, after) = read_all(&mut source, Seq::ZERO, 4096);
    assert_eq!(first, [0], "the first after a pause goes at once");
    append(&queue, 1..10, 8);
    let (mut rest, _) = read_all(&mut source, after, 4096);
    assert!(rest.is_empty() || begun.elapsed() >= REST, "{rest:?} did not wait");
    let ready = std::future::poll_fn(|cx| match source.poll_ready(after, cx.waker()) {
        Ok(true) => std::task::Poll::Ready(()),
        Ok(false) => std::task::Poll::Pending,
        Err(fault) => panic!("{fault}"),
    });
    if rest.is_empty() {
        tokio::time::timeout(Duration::from_secs(10), ready).await.expect("in time");
        assert!(begun.elapsed() >= REST);
        rest = read_all(&mut source, after, 4096).0;
    }
    assert_eq!(rest, (1..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn full_frames_follow_one_another_without_a_rest() {
    let dir = tempfile::tempdir().expect("a directory");
    let (queue, mut source, _acked) = open_resting(dir.path(), Duration::from_secs(3600));
    append(&queue, 0..100, 100);
    assert_eq!(read_all(&mut source, Seq::ZERO, 1024).0, (0..100).collect::<Vec<_>>());
}
