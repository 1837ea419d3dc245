//! TLS on the devices' port: versions, mutual TLS, revocation and reload, and that the protocol
//! above it is the same.
//!
//! Method: a private CA, real connections by rustls. Not shown: TLS itself, which is rustls'.

mod support;

use std::{path::Path, sync::Arc};

use forebay_front::config::{Config, ProxyProtocol};
use forebay_ops::tls::{ClientCertificate, Version};
use forebay_testkit::certificates::{Authority, Certificate, Validity};
use forebay_wire::device::Format;
use support::{
    Front,
    plain::{self, BINARY, TEXT, frame},
    until,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::rustls::{
    self, ClientConfig, RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A CA, a server certificate of it in a folder, and how a front uses them.
struct Pki {
    folder: tempfile::TempDir,
    ca: Authority,
}

impl Pki {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ca = Authority::new("devices").expect("a CA");
        let pki = Self { folder, ca };
        pki.renew();
        pki.ca.write(pki.path(), "ca").expect("written");
        pki
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A new certificate for the server, in the place of the old one.
    fn renew(&self) {
        let server = self.ca.issue("front", &["localhost"], Validity::Now).expect("issued");
        server.write(self.path(), "front").expect("written");
    }

    fn device(&self, name: &str) -> Certificate {
        let uri = format!("forebay://{name}");
        self.ca.issue(name, &[&uri], Validity::Now).expect("issued")
    }

    fn settings(&self, config: &mut Config) {
        config.tls.certificate = self.path().join("front.pem");
        config.tls.key = self.path().join("front.key");
    }

    fn mutual(&self, config: &mut Config) {
        self.settings(config);
        config.tls.client_certificate = ClientCertificate::Required;
        config.tls.client_ca = self.path().join("ca.pem");
    }

    /// How a device connects, with a certificate of its own or none.
    fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        own: Option<&Certificate>,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.ca.pem().as_bytes()).expect("a CA");
        roots.add(ca).expect("a CA");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        Arc::new(match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain =
                    vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).expect("PEM")];
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("PEM");
                builder.with_client_auth_cert(chain, key).expect("a key")
            }
        })
    }
}

type Tls = TlsStream<TcpStream>;

/// Connects, asks for a session as `device` and reads the status.
async fn open(
    front: &Front,
    client: &Arc<ClientConfig>,
    device: &str,
    before: &[u8],
) -> std::io::Result<(u16, Tls)> {
    let work = async {
        let mut tcp = TcpStream::connect(front.running.addresses().ingest).await?;
        tcp.write_all(before).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        let mut tls = TlsConnector::from(Arc::clone(client)).connect(name, tcp).await?;
        tls.write_all(plain::request(device, "forebay.v1.json").as_bytes()).await?;
        let head = until_text(&mut tls, "\r\n\r\n").await?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.unwrap_or_default(), tls))
    };
    timeout(support::PATIENCE, work).await.expect("in time")
}

/// Reads until `part` has come, or the end.
async fn until_text(tls: &mut Tls, part: &str) -> std::io::Result<String> {
    let mut text = String::new();
    while !text.contains(part) {
        let mut bytes = [0; 1];
        match timeout(support::PATIENCE, tls.read(&mut bytes)).await.expect("in time")? {
            0 => break,
            _ => text.push(char::from(bytes[0])),
        }
    }
    Ok(text)
}

fn message(seq: u64, bytes: usize) -> Vec<u8> {
    let mut message = Vec::new();
    support::data(seq, support::large(bytes)).encode(Format::Json, &mut message);
    message
}

const HELLO: &[u8] = br#"{"session":1,"next_seq":1}"#;
const BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

#[tokio::test]
async fn the_protocol_is_the_same_over_tls_whatever_the_sizes() {
    let pki = Pki::new();
    let front = Front::with(|config| {
        pki.settings(config);
        config.tls.version_min = Version::Tls12;
    });
    for version in [&TLS12, &TLS13] {
        let client = pki.client(&[version], None);
        let device = format!("v{:?}", version.version).replace("TLSv", "").replace('_', "-");
        let (status, mut tls) = open(&front, &client, &device, b"").await.expect("TLS");
        assert_eq!(status, 101);
        let mut bytes = frame(true, TEXT, HELLO);
        // From less than a TLS record to several of them, and all of it in one write.
        for (seq, size) in (1..).zip([1, 100, 16_000, 16_384, 40_000, 48_000]) {
            bytes.extend(frame(true, TEXT, &message(seq, size)));
        }
        for seq in 7..=300 {
            bytes.extend(frame(true, TEXT, &message(seq, 64)));
        }
        tls.write_all(&bytes).await.expect("sent");
        until_text(&mut tls, r#"{"ack":300}"#).await.expect("acked");
        // In the smallest pieces.
        for byte in frame(true, TEXT, &message(301, 8)) {
            tls.write_all(&[byte]).await.expect("sent");
        }
        until_text(&mut tls, r#"{"ack":301}"#).await.expect("acked");
        tls.write_all(&frame(true, BINARY, b"no text")).await.expect("sent");
        let end = until_text(&mut tls, "JSON in text").await.expect("told");
        assert!(end.contains("JSON in text"), "{end}");
    }
    assert_eq!(front.end().len(), 602);
}

#[tokio::test]
async fn an_older_version_is_refused_unless_it_is_allowed_and_so_is_no_tls() {
    let pki = Pki::new();
    let front = Front::with(|config| pki.settings(config));
    assert!(open(&front, &pki.client(&[&TLS12], None), "old", b"").await.is_err());
    assert_eq!(open(&front, &pki.client(&BOTH, None), "new", b"").await.expect("TLS").0, 101);
    let mut tcp = TcpStream::connect(front.running.addresses().ingest).await.expect("TCP");
    tcp.write_all(plain::request("plain", "").as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let _ = timeout(support::PATIENCE, tcp.read_to_end(&mut answer)).await.expect("in time");
    assert!(!answer.starts_with(b"HTTP"), "no session without TLS");
    until("both are counted", || {
        front.metric("forebay_front_handshakes_total", &[("outcome", "bad_tls")]) >= 2.0
    })
    .await;
}

#[tokio::test]
async fn a_certificate_names_the_device_and_its_revocation_ends_the_session() {
    let pki = Pki::new();
    let crl = pki.path().join("crl.pem");
    std::fs::write(&crl, pki.ca.revocations(&[]).expect("a list")).expect("written");
    let front = Front::with(|config| {
        pki.mutual(config);
        config.tls.client_crl = crl.clone();
    });
    let pump = pki.device("acme/pump");
    let (bad, good) = (pki.client(&BOTH, Some(&pump)), pki.client(&BOTH, None));
    assert_eq!(open(&front, &bad, "fan", b"").await.expect("TLS").0, 403);
    assert!(open(&front, &good, "pump", b"").await.is_err(), "no certificate, no session");
    let stranger = Authority::new("strangers").expect("a CA");
    let stranger = stranger.issue("x", &["forebay://acme/pump"], Validity::Now).expect("issued");
    let stranger = pki.client(&BOTH, Some(&stranger));
    assert!(open(&front, &stranger, "pump", b"").await.is_err(), "of another CA");
    let expired = pki.ca.issue("x", &["forebay://acme/pump"], Validity::Expired).expect("issued");
    assert!(open(&front, &pki.client(&BOTH, Some(&expired)), "pump", b"").await.is_err());
    let unnamed = pki.ca.issue("x", &["pump"], Validity::Now).expect("issued");
    let unnamed = pki.client(&BOTH, Some(&unnamed));
    assert_eq!(open(&front, &unnamed, "pump", b"").await.expect("TLS").0, 401);

    let (status, mut tls) = open(&front, &bad, "pump", b"").await.expect("TLS");
    assert_eq!(status, 101);
    let bytes = [frame(true, TEXT, HELLO), frame(true, TEXT, &message(1, 9))].concat();
    tls.write_all(&bytes).await.expect("sent");
    until_text(&mut tls, r#"{"ack":1}"#).await.expect("acked");
    std::fs::write(&crl, pki.ca.revocations(&[&pump]).expect("a list")).expect("written");
    let end = until_text(&mut tls, "revoked").await.expect("told");
    assert!(end.contains("revoked"), "{end}");
    assert!(open(&front, &bad, "pump", b"").await.is_err(), "it cannot come back");
    let stored = front.end();
    assert_eq!((stored[0].tenant.as_str(), stored[0].device.as_str()), ("acme", "pump"));
}

#[tokio::test]
async fn a_new_server_certificate_is_used_without_a_restart_and_old_connections_stay() {
    let pki = Pki::new();
    let front = Front::with(|config| pki.settings(config));
    let client = pki.client(&BOTH, None);
    let shown = |tls: &Tls| tls.get_ref().1.peer_certificates().expect("shown")[0].clone();
    let (_, mut first) = open(&front, &client, "pump", b"").await.expect("TLS");
    let old = shown(&first);
    first.write_all(&frame(true, TEXT, HELLO)).await.expect("sent");
    until_text(&mut first, "level").await.expect("welcomed");
    pki.renew();
    let begun = std::time::Instant::now();
    loop {
        let (_, tls) = open(&front, &client, "fan", b"").await.expect("TLS");
        if shown(&tls) != old {
            break;
        }
        assert!(begun.elapsed() < support::PATIENCE, "the new certificate is not shown");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    first.write_all(&frame(true, TEXT, &message(1, 9))).await.expect("sent");
    until_text(&mut first, r#"{"ack":1}"#).await.expect("acked");
}

#[tokio::test]
async fn a_proxy_says_before_tls_where_a_connection_comes_from() {
    let pki = Pki::new();
    let front = Front::with(|config| {
        pki.settings(config);
        config.proxy.protocol = ProxyProtocol::Proxy;
        config.proxy.trusted = vec!["127.0.0.1".parse().expect("a network")];
        config.limits.connections_per_address = 1;
    });
    let client = pki.client(&BOTH, None);
    let from = |host: u8| format!("PROXY TCP4 192.0.2.{host} 10.0.0.1 5 443\r\n").into_bytes();
    let (status, _first) = open(&front, &client, "a", &from(1)).await.expect("TLS");
    assert_eq!(status, 101);
    assert!(open(&front, &client, "b", &from(1)).await.is_err(), "one of each address");
    assert_eq!(open(&front, &client, "c", &from(2)).await.expect("TLS").0, 101);
    assert!(open(&front, &client, "d", b"").await.is_err(), "a proxy that says nothing");
}
