//! The uplink over real sockets on loopback: acks rest on what is durable, and nothing is lost
//! when either end goes away and comes back.
//!
//! Queues are in memory; what a crash does to them is the simulator's subject, not this file's.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod memory;

use std::net::TcpListener;
use std::time::Duration;

use forebay_link::{
    Level, ReceiverConfig, SenderConfig, Seq, StoreError, UplinkReceiver, UplinkSender,
};
use forebay_wire::uplink::{Standing, Uplink, Welcome};
use memory::{Memory, eventually, no_failure};
use zeromq::{RouterSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

const STOP: Duration = Duration::from_secs(5);

fn receiver_at(store: &Memory, endpoint: &str) -> UplinkReceiver {
    let config = ReceiverConfig::new("receiver", endpoint);
    UplinkReceiver::start(config, store.clone(), no_failure()).unwrap()
}

fn sender_config(endpoint: &str) -> SenderConfig {
    let mut config = SenderConfig::new("sender", endpoint);
    config.connect.backoff_max = Duration::from_millis(200);
    config
}

fn sender_to(source: &Memory, endpoint: &str) -> UplinkSender {
    UplinkSender::start(sender_config(endpoint), source.clone(), no_failure()).unwrap()
}

fn append_many(source: &Memory, count: u64) -> Seq {
    let mut last = Seq::ZERO;
    for number in 0..count {
        last = source.append(format!("entry {number}").as_bytes());
    }
    last
}

fn assert_stored(store: &Memory, source: &Memory) {
    let stored: Vec<_> =
        store.stored().into_iter().map(|(_, seq, payload)| (seq, payload)).collect();
    assert_eq!(stored, source.lock().entries);
}

#[test]
fn entries_are_committed_once_they_are_durable_at_the_receiver() {
    let (source, store) = (Memory::new(1), Memory::new(2));
    store.lock().sync_at_once = false;
    let receiver = receiver_at(&store, "tcp://127.0.0.1:0");
    let sender = sender_to(&source, receiver.endpoint());
    let last = append_many(&source, 10_000);
    eventually("all are taken", || store.lock().entries.len() == 10_000);
    assert_eq!(source.lock().committed, Seq::ZERO, "nothing is durable yet");
    store.sync();
    eventually("all are committed", || source.lock().committed == last);
    assert_stored(&store, &source);
    assert_eq!(receiver.stats().entries.get(), 10_000);
    assert!(sender.stats().batches.get() < 1_000, "entries travel in batches");
    sender.stop(STOP).unwrap();
    receiver.stop(STOP).unwrap();
}

#[test]
fn a_sender_goes_on_where_it_was_after_the_receiver_was_restarted() {
    let (source, store) = (Memory::new(1), Memory::new(2));
    let receiver = receiver_at(&store, "tcp://127.0.0.1:0");
    let endpoint = receiver.endpoint().to_owned();
    let sender = sender_to(&source, &endpoint);
    append_many(&source, 1_000);
    eventually("first part", || store.lock().entries.len() == 1_000);
    receiver.stop(STOP).unwrap();
    let last = append_many(&source, 1_000);
    let receiver = receiver_at(&store, &endpoint);
    eventually("second part", || source.lock().committed == last);
    assert_stored(&store, &source);
    sender.stop(STOP).unwrap();
    receiver.stop(STOP).unwrap();
}

#[test]
fn a_restarted_sender_sends_again_only_what_was_not_acked() {
    let (source, store) = (Memory::new(1), Memory::new(2));
    store.lock().sync_at_once = false;
    let receiver = receiver_at(&store, "tcp://127.0.0.1:0");
    let sender = sender_to(&source, receiver.endpoint());
    append_many(&source, 500);
    eventually("taken", || store.lock().entries.len() == 500);
    sender.stop(STOP).unwrap();
    // The power went before the source was told: it opens a new epoch and sends again.
    source.lock().epoch = 2;
    let sender = sender_to(&source, receiver.endpoint());
    let last = append_many(&source, 500);
    eventually("sent again", || store.lock().entries.len() == 1_000);
    store.sync();
    eventually("committed", || source.lock().committed == last);
    assert_stored(&store, &source);
    sender.stop(STOP).unwrap();
    receiver.stop(STOP).unwrap();
}

#[test]
fn a_receiver_that_says_nothing_is_dropped_after_its_silence() {
    // A listener that never answers the handshake, then one that is gone: the sender keeps trying.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let (source, store) = (Memory::new(1), Memory::new(2));
    let mut config = sender_config(&endpoint);
    config.connect.connect_timeout = Duration::from_millis(200);
    let sender = UplinkSender::start(config, source.clone(), no_failure()).unwrap();
    eventually("several attempts", || sender.stats().connects.get() >= 3);
    drop(listener);
    let receiver = receiver_at(&store, &endpoint);
    let last = append_many(&source, 10);
    eventually("committed", || source.lock().committed == last);
    sender.stop(STOP).unwrap();
    receiver.stop(STOP).unwrap();
}

#[test]
fn a_receiver_that_falls_silent_is_dropped_and_found_again() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (source, store) = (Memory::new(1), Memory::new(2));
    // It welcomes, and then says nothing more: a peer whose machine has gone, but whose
    // connection has not.
    let (mut router, endpoint) = runtime.block_on(async {
        let mut router = RouterSocket::new();
        let endpoint = router.bind("tcp://127.0.0.1:0").await.unwrap();
        (router, endpoint.to_string())
    });
    append_many(&source, 10);
    let mut config = sender_config(&endpoint);
    (config.connect.ping_every, config.connect.silence_max) =
        (Duration::from_millis(100), Duration::from_millis(300));
    let sender = UplinkSender::start(config, source.clone(), no_failure()).unwrap();
    runtime.block_on(async {
        let mut sessions = Vec::new();
        while sessions.len() < 2 {
            let message = router.recv().await.unwrap();
            let Ok(Uplink::Hello(hello)) = Uplink::decode(message.get(1).unwrap()) else {
                continue;
            };
            sessions.push(hello.session);
            let (queue, session) = (hello.queue, hello.session);
            let standing = Standing { queue, session, durable: Seq::ZERO, credit: 1_000_000 };
            let mut answer = ZmqMessage::from(message.get(0).unwrap().clone());
            answer.push_back(Welcome { standing, level: Level::Disk }.encode());
            router.send(answer).await.unwrap();
        }
        assert_ne!(sessions[0], sessions[1], "a new session over a new connection");
        drop(router);
    });
    runtime.shutdown_timeout(STOP);
    assert_eq!(source.lock().committed, Seq::ZERO, "nothing was acked");
    let receiver = receiver_at(&store, &endpoint);
    eventually("all is sent again", || source.lock().committed == Seq::from_parts(1, 10));
    assert_stored(&store, &source);
    sender.stop(STOP).unwrap();
    receiver.stop(STOP).unwrap();
}

#[test]
fn a_full_store_stops_the_sender_and_room_starts_it_again() {
    let (source, store) = (Memory::new(1), Memory::new(2));
    store.lock().room_bytes = 300_000;
    let receiver = receiver_at(&store, "tcp://127.0.0.1:0");
    let sender = sender_to(&source, receiver.endpoint());
    let last = append_many(&source, 50_000);
    eventually("credit is used up", || {
        sender.stats().welcomed.get() && sender.stats().credit_bytes.get() == 0
    });
    assert!(source.lock().committed < last);
    store.lock().room_bytes = 100_000_000;
    eventually("committed", || source.lock().committed == last);
    assert_stored(&store, &source);
    sender.stop(STOP).unwrap();
    receiver.stop(STOP).unwrap();
}

#[test]
fn sources_with_another_partition_map_or_a_higher_level_are_refused() {
    let (source, store) = (Memory::new(1), Memory::new(2));
    store.lock().level = Level::Process;
    let receiver = receiver_at(&store, "tcp://127.0.0.1:0");
    let sender = sender_to(&source, receiver.endpoint());
    eventually("level refused", || sender.stats().refused.get());
    sender.stop(STOP).unwrap();
    let mut config = sender_config(receiver.endpoint());
    (config.level, config.partitions) = (Level::Process, 42);
    let sender = UplinkSender::start(config, source.clone(), no_failure()).unwrap();
    eventually("map refused", || sender.stats().refused.get());
    assert!(receiver.stats().refused.get() >= 2);
    assert_eq!(receiver.stats().sessions.get(), 0);
    sender.stop(STOP).unwrap();
    receiver.stop(STOP).unwrap();
}

#[test]
fn a_restored_copy_of_a_queue_is_not_committed_by_acks_of_its_other_life() {
    let (source, store) = (Memory::new(1), Memory::new(2));
    store.lock().positions.insert(source.lock().id, Seq::from_parts(7, 5));
    let receiver = receiver_at(&store, "tcp://127.0.0.1:0");
    append_many(&source, 10);
    let sender = sender_to(&source, receiver.endpoint());
    eventually("held", || sender.stats().refused.get());
    assert_eq!(source.lock().committed, Seq::ZERO);
    sender.stop(STOP).unwrap();
    receiver.stop(STOP).unwrap();
}

#[test]
fn many_sources_are_served_side_by_side_over_a_unix_socket() {
    let store = Memory::new(2);
    let path = std::env::temp_dir().join(format!("forebay-uplink-{}", std::process::id()));
    let receiver = receiver_at(&store, &format!("ipc://{}", path.display()));
    let sources: Vec<Memory> = (10..20).map(Memory::new).collect();
    let senders: Vec<_> =
        sources.iter().map(|source| sender_to(source, receiver.endpoint())).collect();
    let lasts: Vec<Seq> = sources.iter().map(|source| append_many(source, 2_000)).collect();
    for (source, last) in sources.iter().zip(lasts) {
        eventually("committed", || source.lock().committed == last);
    }
    assert_eq!(store.lock().entries.len(), 20_000);
    for sender in senders {
        sender.stop(STOP).unwrap();
    }
    receiver.stop(STOP).unwrap();
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_store_that_fails_ends_the_receiver_and_says_so() {
    struct Broken(Memory);
    impl forebay_link::EntryStore for Broken {
        fn level(&self) -> Level {
            Level::Disk
        }
        fn position(&mut self, _: forebay_link::QueueId) -> Result<Seq, forebay_link::Fault> {
            Ok(Seq::ZERO)
        }
        fn append(
            &mut self,
            _: forebay_link::QueueId,
            _: &forebay_link::Records<'_>,
        ) -> Result<Seq, StoreError> {
            Err(StoreError::Fatal("the disk is gone".into()))
        }
        fn durable(&mut self) -> Seq {
            Seq::ZERO
        }
        fn poll_durable(
            &mut self,
            _: Seq,
            _: &std::task::Waker,
        ) -> Result<bool, forebay_link::Fault> {
            Ok(false)
        }
        fn room_bytes(&self) -> u64 {
            self.0.lock().room_bytes
        }
        fn joined(&mut self, _: &forebay_link::Joined) {}
    }
    let (failed, failure) = std::sync::mpsc::channel();
    let on_failure = Box::new(move |error: forebay_link::Error| {
        failed.send(error.to_string()).unwrap();
    });
    let config = ReceiverConfig::new("receiver", "tcp://127.0.0.1:0");
    let receiver = UplinkReceiver::start(config, Broken(Memory::new(2)), on_failure).unwrap();
    let source = Memory::new(1);
    let sender = sender_to(&source, receiver.endpoint());
    append_many(&source, 1);
    let failure = failure.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(failure.contains("the disk is gone"), "{failure}");
    assert_eq!(source.lock().committed, Seq::ZERO);
    sender.stop(STOP).unwrap();
    receiver.stop(STOP).unwrap();
}
