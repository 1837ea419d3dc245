//! Mutual TLS between tiers: good peers are served, every other is refused for its own reason and
//! costs the good ones nothing, and certificates come and go while entries flow.
//!
//! Real sockets on loopback, real certificates. Not shown: the strength of the ciphers, which is
//! rustls's business.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod memory;
mod secured;

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use forebay_link::{
    ConnectConfig, FeedEvent, FeedPublisher, PublisherConfig, ReceiverConfig, ReplayConfig,
    ReplayServer, SenderConfig, Seq, Subscriber, SubscriberConfig, UplinkReceiver, UplinkSender,
};
use forebay_ops::tls::{Reason, TlsClient, TlsServer};
use forebay_testkit::certificates::{Authority, Validity};
use memory::{Memory, eventually, no_failure};
use secured::{
    Installation, bind, client, connect, dial, greeting, is_closed, plain, ready, server, terabyte,
};
use tokio_rustls::rustls::ClientConfig;

const STOP: Duration = Duration::from_secs(5);

/// A middle's uplink behind TLS, and a good front that has delivered its first entry.
struct Link {
    source: Memory,
    receiver: UplinkReceiver,
    sender: UplinkSender,
}

impl Link {
    fn start(server: &TlsServer, client: &TlsClient) -> Self {
        let (source, store) = (Memory::new(1), Memory::new(2));
        let bind = bind(server);
        let config = ReceiverConfig { bind, ..ReceiverConfig::new("receiver", "") };
        let receiver = UplinkReceiver::start(config, store, no_failure()).unwrap();
        let config = sender(receiver.endpoint(), client);
        let sender = UplinkSender::start(config, source.clone(), no_failure()).unwrap();
        let link = Self { source, receiver, sender };
        link.deliver(b"first");
        link
    }

    fn deliver(&self, payload: &[u8]) {
        let last = self.source.append(payload);
        eventually("committed", || self.source.lock().committed == last);
    }

    /// The good front is still served, over its first connection.
    fn goes_on_undisturbed(self) {
        self.deliver(b"last");
        assert_eq!(self.sender.stats().sessions.get(), 1, "the good peer kept its connection");
        self.sender.stop(STOP).unwrap();
        self.receiver.stop(STOP).unwrap();
    }
}

fn sender(endpoint: &str, client: &TlsClient) -> SenderConfig {
    let mut config = SenderConfig::new("sender", endpoint);
    config.connect.tls = connect(client);
    config
}

#[test]
fn entries_pass_all_three_ports_encrypted() {
    let place = Installation::new();
    let (server, client) = (place.server(), place.client());
    Link::start(&server, &client).goes_on_undisturbed();

    let log = Memory::new(9);
    let config = PublisherConfig { bind: bind(&server), ..PublisherConfig::new("publisher", "") };
    let publisher = FeedPublisher::start(config, log.clone(), no_failure()).unwrap();
    let config = ReplayConfig { bind: bind(&server), ..ReplayConfig::new("replay", "") };
    let replay = ReplayServer::start(config, log.clone(), no_failure()).unwrap();
    log.append(b"before");
    let subscriber = SubscriberConfig::new("reader", publisher.endpoint(), replay.endpoint());
    let with = |config: &ConnectConfig| ConnectConfig { tls: connect(&client), ..config.clone() };
    let subscriber = Subscriber::start(SubscriberConfig {
        feed: with(&subscriber.feed),
        fetch: with(&subscriber.fetch),
        consumer: Some("lake".to_owned()),
        ..subscriber
    })
    .unwrap();
    let mut position = Seq::ZERO;
    // Larger than a record of TLS, a chunk of the pump, and all buffers on the way.
    for bytes in [10, 100_000, 1_000_000, 1_000_000] {
        let last = log.append(&vec![7; bytes]);
        while position < last {
            if let Some(FeedEvent::Batch(batch)) = subscriber.next(STOP).unwrap() {
                position = batch.last();
            }
        }
    }
    subscriber.commit(position, STOP).unwrap();
    assert_eq!(client.refusals().get(Reason::RefusedByPeer), 0);
    subscriber.stop(STOP).unwrap();
    publisher.stop(STOP).unwrap();
    replay.stop(STOP).unwrap();
}

#[test]
fn nobody_gets_in_without_a_good_certificate() {
    let place = Installation::new();
    let mut settings = place.settings("server", &place.certificate("server"));
    let revoked = place.certificate("revoked");
    settings.crl = place.revoke(&[&revoked]);
    let server = server(&settings);
    let link = Link::start(&server, &place.client());
    let endpoint = link.receiver.endpoint().to_owned();

    let names = &["localhost"];
    let expired = place.authority.issue("client", names, Validity::Expired).unwrap();
    let foreign = Authority::new("other").unwrap().issue("client", names, Validity::Now).unwrap();
    for (name, certificate, reason) in [
        ("foreign", foreign, Reason::Authority),
        ("expired", expired, Reason::Expired),
        ("revoked", revoked, Reason::Revoked),
    ] {
        let client = client(&place.settings(name, &certificate));
        let source = Memory::new(3);
        source.append(b"never");
        let config = sender(&endpoint, &client);
        let sender = UplinkSender::start(config, source.clone(), no_failure()).unwrap();
        eventually(name, || server.refusals().get(reason) >= 2);
        eventually("it is told so", || client.refusals().get(Reason::RefusedByPeer) >= 1);
        assert_eq!(source.lock().committed, Seq::ZERO);
        assert_eq!(sender.stats().sessions.get(), 0);
        sender.stop(STOP).unwrap();
    }

    let mut nobody = dial(&endpoint, without_certificate(&place));
    let _sent = nobody.write_all(&greeting());
    assert!(is_closed(&mut nobody));
    eventually("no certificate", || server.refusals().get(Reason::NoCertificate) == 1);

    for bytes in [greeting(), b"GET / HTTP/1.1\r\n\r\n".to_vec(), terabyte()] {
        let mut stranger = plain(&endpoint);
        stranger.write_all(&bytes).unwrap();
        assert!(is_closed(&mut stranger));
    }
    eventually("no TLS", || server.refusals().get(Reason::Protocol) == 3);
    let pump = link.receiver.pump().unwrap();
    eventually("counted", || pump.untrusted.get() >= 3 * 2 + 1 + 3);
    assert_eq!(pump.violations.get(), 0, "nothing of theirs was looked at as ZMTP");
    link.goes_on_undisturbed();
}

fn without_certificate(place: &Installation) -> Arc<ClientConfig> {
    use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = tokio_rustls::rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(place.authority.pem().as_bytes()).unwrap()).unwrap();
    let provider = tokio_rustls::rustls::crypto::ring::default_provider();
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

#[test]
fn a_front_sends_nothing_to_a_middle_that_it_cannot_trust() {
    let place = Installation::new();
    let client = place.client();
    let elsewhere = place.authority.issue("server", &["elsewhere"], Validity::Now).unwrap();
    let foreign = Authority::new("other").unwrap();
    let foreign = foreign.issue("server", &["127.0.0.1"], Validity::Now).unwrap();
    for (certificate, reason) in [(elsewhere, Reason::Name), (foreign, Reason::Authority)] {
        let server = server(&place.settings("server", &certificate));
        let (source, store) = (Memory::new(1), Memory::new(2));
        source.append(b"never");
        let config = ReceiverConfig { bind: bind(&server), ..ReceiverConfig::new("receiver", "") };
        let receiver = UplinkReceiver::start(config, store.clone(), no_failure()).unwrap();
        let config = sender(receiver.endpoint(), &client);
        let sender = UplinkSender::start(config, source, no_failure()).unwrap();
        eventually("refused", || client.refusals().get(reason) >= 2);
        eventually("told", || server.refusals().get(Reason::RefusedByPeer) >= 1);
        assert!(store.stored().is_empty());
        sender.stop(STOP).unwrap();
        receiver.stop(STOP).unwrap();
    }
}

#[test]
fn a_good_certificate_does_not_make_a_terabyte_welcome() {
    let place = Installation::new();
    let (server, client) = (place.server(), place.client());
    let link = Link::start(&server, &client);
    for before in [greeting(), [greeting(), ready(b"DEALER")].concat()] {
        let mut peer = dial(link.receiver.endpoint(), client.config());
        peer.write_all(&[before, terabyte()].concat()).unwrap();
        assert!(is_closed(&mut peer));
    }
    let pump = link.receiver.pump().unwrap();
    eventually("two violations", || pump.violations.get() == 2);
    assert_eq!(pump.untrusted.get(), 0);
    link.goes_on_undisturbed();
}

#[test]
fn a_handshake_that_stands_still_is_ended_in_time() {
    let place = Installation::new();
    let server = place.server();
    let link = Link::start(&server, &place.client());
    // One stops in the middle of TLS, the other between TLS and ZMTP.
    let mut early = plain(link.receiver.endpoint());
    early.write_all(&[0x16, 3, 1, 2, 0]).unwrap();
    let mut late = dial(link.receiver.endpoint(), place.client().config());
    late.write_all(&greeting()[..10]).unwrap();
    assert!(is_closed(&mut early) && is_closed(&mut late));
    eventually("early", || server.refusals().get(Reason::Late) == 1);
    eventually("late", || link.receiver.pump().unwrap().late.get() == 1);
    link.goes_on_undisturbed();
}

#[test]
fn a_connection_does_not_outlive_the_revocation_of_its_certificate() {
    let place = Installation::new();
    let mut settings = place.settings("server", &place.certificate("server"));
    settings.crl = place.revoke(&[]);
    let server = server(&settings);
    let certificate = place.certificate("client");
    let link = Link::start(&server, &client(&place.settings("client", &certificate)));
    place.revoke(&[&certificate]);
    eventually("revoked", || server.refusals().get(Reason::Revoked) >= 2);
    let last = link.source.append(b"never");
    std::thread::sleep(Duration::from_millis(300));
    assert!(link.source.lock().committed < last, "nothing passes any more");
    // Until the operator changes their mind.
    place.revoke(&[]);
    eventually("committed", || link.source.lock().committed == last);
    link.sender.stop(STOP).unwrap();
    link.receiver.stop(STOP).unwrap();
}

#[test]
fn certificates_are_replaced_on_both_ends_while_entries_flow_and_none_is_lost() {
    const ROUNDS: u32 = 12;
    let place = Installation::new();
    let server_files = place.settings("server", &place.certificate("server"));
    let client_files = place.settings("client", &place.certificate("client"));
    let (server, client) = (server(&server_files), client(&client_files));
    let (source, store) = (Memory::new(1), Memory::new(2));
    let config = ReceiverConfig { bind: bind(&server), ..ReceiverConfig::new("receiver", "") };
    let receiver = UplinkReceiver::start(config, store.clone(), no_failure()).unwrap();
    let config = sender(receiver.endpoint(), &client);
    for round in 0..ROUNDS {
        let sender = UplinkSender::start(config.clone(), source.clone(), no_failure()).unwrap();
        for entry in 0..200_u32 {
            source.append(&(round * 200 + entry).to_be_bytes());
            if entry == 100 {
                // In the order that leaves a certificate without its key for a while.
                place.certificate("server").write(place.folder.path(), "server").unwrap();
                place.certificate("client").write(place.folder.path(), "client").unwrap();
                let _taken_by_the_thread_before = (server.look(), client.look());
            }
        }
        let last = source.lock().durable;
        eventually("committed", || source.lock().committed == last);
        sender.stop(STOP).unwrap();
    }
    assert_eq!((server.generation(), client.generation()), (13, 13));
    assert_eq!(Reason::ALL.map(|reason| server.refusals().get(reason)), [0; 12]);
    assert_eq!(Reason::ALL.map(|reason| client.refusals().get(reason)), [0; 12]);
    let stored: Vec<_> = store.stored().into_iter().map(|(_, _, payload)| payload).collect();
    let expected: Vec<_> = (0..ROUNDS * 200).map(|n| n.to_be_bytes().to_vec()).collect();
    assert!(stored == expected, "each once, in order");
    receiver.stop(STOP).unwrap();
}

#[test]
fn tls_is_for_tcp_behind_the_pump() {
    let place = Installation::new();
    let good = bind(&place.server());
    let socket = format!("ipc://{}", place.folder.path().join("uplink").display());
    for bind in [
        forebay_link::BindConfig { endpoint: socket, ..good.clone() },
        forebay_link::BindConfig { pump: false, ..good },
    ] {
        let config = ReceiverConfig { bind, ..ReceiverConfig::new("receiver", "") };
        let refused = UplinkReceiver::start(config, Memory::new(1), no_failure()).unwrap_err();
        assert!(refused.to_string().contains("TLS needs tcp:// and the pump"), "{refused}");
    }
}

#[test]
fn with_tls_a_public_address_needs_no_further_setting() {
    let place = Installation::new();
    let bind = forebay_link::BindConfig {
        endpoint: "tcp://0.0.0.0:0".to_owned(),
        ..bind(&place.server())
    };
    let config = ReceiverConfig { bind, ..ReceiverConfig::new("receiver", "") };
    UplinkReceiver::start(config, Memory::new(1), no_failure()).unwrap().stop(STOP).unwrap();
    let config = ReceiverConfig::new("receiver", "tcp://0.0.0.0:0");
    let refused = UplinkReceiver::start(config, Memory::new(1), no_failure());
    assert!(matches!(refused, Err(forebay_link::Error::PublicAddress { .. })));
}

#[test]
fn a_port_says_nothing_to_who_has_not_shaken_hands() {
    let place = Installation::new();
    let link = Link::start(&place.server(), &place.client());
    let mut stranger = plain(link.receiver.endpoint());
    stranger.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(stranger.read(&mut [0; 64]).is_err(), "not a byte comes before the handshake");
    link.goes_on_undisturbed();
}
