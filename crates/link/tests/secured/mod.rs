//! Tiers with certificates, and strangers of every kind.
#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forebay_link::{AcceptTls, BindConfig, ConnectTls};
use forebay_ops::Metrics;
use forebay_ops::tls::{MutualTls, TlsClient, TlsServer};
use forebay_testkit::certificates::{Authority, Certificate, Validity};
use prometheus::Registry;
use tempfile::TempDir;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, StreamOwned};

/// An installation: one authority, a folder of PEM files.
pub(crate) struct Installation {
    pub(crate) authority: Authority,
    pub(crate) folder: TempDir,
}

impl Installation {
    pub(crate) fn new() -> Self {
        let authority = Authority::new("installation").unwrap();
        Self { authority, folder: tempfile::tempdir().unwrap() }
    }

    /// A certificate that is good for a tier on this machine.
    pub(crate) fn certificate(&self, name: &str) -> Certificate {
        self.authority.issue(name, &["localhost", "127.0.0.1"], Validity::Now).unwrap()
    }

    /// The settings of a tier that shows `certificate` and trusts this installation.
    pub(crate) fn settings(&self, name: &str, certificate: &Certificate) -> MutualTls {
        let files = certificate.write(self.folder.path(), name).unwrap();
        let ca = self.authority.write(self.folder.path(), "ca").unwrap();
        MutualTls { certificate: files.certificate, key: files.key, ca, crl: PathBuf::new() }
    }

    pub(crate) fn server(&self) -> TlsServer {
        server(&self.settings("server", &self.certificate("server")))
    }

    pub(crate) fn client(&self) -> TlsClient {
        client(&self.settings("client", &self.certificate("client")))
    }

    /// The list of revoked certificates, as a file.
    pub(crate) fn revoke(&self, revoked: &[&Certificate]) -> PathBuf {
        let path = self.folder.path().join("crl.pem");
        std::fs::write(&path, self.authority.revocations(revoked).unwrap()).unwrap();
        path
    }
}

pub(crate) fn server(settings: &MutualTls) -> TlsServer {
    TlsServer::open_mutual("port", settings, &Metrics::new(&Registry::new())).unwrap()
}

pub(crate) fn client(settings: &MutualTls) -> TlsClient {
    TlsClient::open("link", settings, &Metrics::new(&Registry::new())).unwrap()
}

/// A port on loopback with this TLS.
pub(crate) fn bind(server: &TlsServer) -> BindConfig {
    let (config, recheck, failed) = (server.clone(), server.clone(), server.clone());
    let tls = AcceptTls::new(
        move || config.config(),
        move |chain| recheck.recheck(chain),
        move |error| failed.failed(error),
    );
    let tls = Some(tls.with_recheck_every(Duration::from_millis(100)));
    BindConfig { tls, ..BindConfig::new("tcp://127.0.0.1:0") }
}

/// The way to such a port.
pub(crate) fn connect(client: &TlsClient) -> Option<ConnectTls> {
    let (config, failed) = (client.clone(), client.clone());
    Some(ConnectTls::new(move || config.config(), move |error| failed.failed(error)))
}

pub(crate) type TlsTcp = StreamOwned<ClientConnection, TcpStream>;

/// A connection that has not shaken hands yet: the first read or write does.
pub(crate) fn dial(endpoint: &str, config: Arc<ClientConfig>) -> TlsTcp {
    let name = "localhost".try_into().unwrap();
    StreamOwned::new(ClientConnection::new(config, name).unwrap(), plain(endpoint))
}

pub(crate) fn plain(endpoint: &str) -> TcpStream {
    let stream = TcpStream::connect(endpoint.strip_prefix("tcp://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Whether the other end closes, whatever it sends before.
pub(crate) fn is_closed(stream: &mut impl Read) -> bool {
    let mut buffer = [0; 4_096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

/// The greeting of a ZMTP 3 peer.
pub(crate) fn greeting() -> Vec<u8> {
    let mut bytes = vec![0; 64];
    (bytes[0], bytes[9], bytes[10]) = (0xff, 0x7f, 3);
    bytes[12..16].copy_from_slice(b"NULL");
    bytes
}

/// Its READY.
pub(crate) fn ready(socket_type: &[u8]) -> Vec<u8> {
    let mut body = b"\x05READY\x0bSocket-Type".to_vec();
    body.extend_from_slice(&(socket_type.len() as u32).to_be_bytes());
    body.extend_from_slice(socket_type);
    [&[4, body.len() as u8], &body[..]].concat()
}

/// The header of a frame of 1 TiB.
pub(crate) fn terabyte() -> Vec<u8> {
    [&[2][..], &(1_u64 << 40).to_be_bytes()].concat()
}
