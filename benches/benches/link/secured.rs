//! Mutual TLS for both ends, as the tiers open it from files.

use std::path::{Path, PathBuf};

use forebay_link::{AcceptTls, ConnectTls};
use forebay_ops::Metrics;
use forebay_ops::tls::{MutualTls, TlsClient, TlsServer};
use forebay_testkit::certificates::{Authority, Validity};
use prometheus::Registry;

/// What a listening and a dialing end need to trust each other.
#[derive(Debug, Clone)]
pub(crate) struct Secured {
    pub(crate) accept: AcceptTls,
    pub(crate) connect: ConnectTls,
}

impl Secured {
    /// An authority of its own and a certificate for each end, in files in `dir`.
    pub(crate) fn create(dir: &Path) -> Self {
        let authority = Authority::new("bench").expect("authority");
        let ca = authority.write(dir, "ca").expect("file");
        let settings = |name: &str| {
            let names = ["localhost", "127.0.0.1"];
            let certificate = authority.issue(name, &names, Validity::Now).expect("certificate");
            let files = certificate.write(dir, name).expect("files");
            let (certificate, key, ca) = (files.certificate, files.key, ca.clone());
            MutualTls { certificate, key, ca, crl: PathBuf::new() }
        };
        let metrics = Metrics::new(&Registry::new());
        let server = TlsServer::open_mutual("port", &settings("port"), &metrics).expect("server");
        let client = TlsClient::open("link", &settings("link"), &metrics).expect("client");
        let (recheck, counted) = (server.clone(), server.clone());
        let accept = AcceptTls::new(
            move || server.config(),
            move |chain| recheck.recheck(chain),
            move |error| counted.failed(error),
        );
        let counted = client.clone();
        let connect = ConnectTls::new(move || client.config(), move |error| counted.failed(error));
        Self { accept, connect }
    }
}
