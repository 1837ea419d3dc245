//! That good certificates are let in, each bad one is refused for its own reason, and files that
//! change are followed. Handshakes run in memory, over rustls itself.

use std::path::PathBuf;

use forebay_testkit::certificates::{Authority, Certificate, Validity};
use prometheus::Registry;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection};
use tempfile::TempDir;

use super::*;
use crate::Metrics;

struct Place {
    folder: TempDir,
    authority: Authority,
}

impl Place {
    fn new() -> Place {
        Place { folder: tempfile::tempdir().unwrap(), authority: Authority::new("test").unwrap() }
    }

    fn certificate(&self, name: &str) -> Certificate {
        self.authority.issue(name, &["localhost"], Validity::Now).unwrap()
    }

    /// The settings of `name` with `certificate`, trusting `authority`.
    fn settings(&self, name: &str, certificate: &Certificate, authority: &Authority) -> MutualTls {
        let files = certificate.write(self.folder.path(), name).unwrap();
        let ca = authority.write(self.folder.path(), &format!("{name}-ca")).unwrap();
        MutualTls { certificate: files.certificate, key: files.key, ca, crl: PathBuf::new() }
    }

    fn crl(&self, revoked: &[&Certificate]) -> PathBuf {
        let path = self.folder.path().join("crl.pem");
        std::fs::write(&path, self.authority.revocations(revoked).unwrap()).unwrap();
        path
    }

    fn server(&self) -> MutualTls {
        self.settings("server", &self.certificate("server"), &self.authority)
    }

    fn client(&self, certificate: &Certificate) -> TlsClient {
        client(&self.settings("client", certificate, &self.authority))
    }
}

fn server(settings: &MutualTls) -> TlsServer {
    TlsServer::open_mutual("test", settings, &Metrics::new(&Registry::new())).unwrap()
}

fn client(settings: &MutualTls) -> TlsClient {
    TlsClient::open("test", settings, &Metrics::new(&Registry::new())).unwrap()
}

/// Moves bytes from `from` to `to` until there are none.
fn carry(
    from: &mut rustls::ConnectionCommon<impl rustls::SideData>,
    to: &mut rustls::ConnectionCommon<impl rustls::SideData>,
) -> Result<bool, rustls::Error> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets()?;
    }
    Ok(!bytes.is_empty())
}

/// What the server says of the client, and then what the client says of the server.
fn handshake(
    server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
    name: &'static str,
) -> Result<ServerConnection, (&'static str, rustls::Error)> {
    let mut server = ServerConnection::new(server).unwrap();
    let mut client = ClientConnection::new(client, ServerName::try_from(name).unwrap()).unwrap();
    loop {
        let there = carry(&mut client, &mut server).map_err(|error| ("server", error))?;
        let back = carry(&mut server, &mut client).map_err(|error| ("client", error))?;
        if !there && !back {
            assert!(!server.is_handshaking() && !client.is_handshaking());
            return Ok(server);
        }
    }
}

fn refused(server: &TlsServer, client: &TlsClient) -> (&'static str, Reason) {
    let refused = handshake(server.config(), client.config(), "localhost");
    let (by, error) = refused.expect_err("the handshake fails");
    (by, Reason::of(&error))
}

#[test]
fn two_tiers_of_one_authority_agree_on_tls_1_3() {
    let place = Place::new();
    let (server, client) = (server(&place.server()), place.client(&place.certificate("client")));
    let agreed = handshake(server.config(), client.config(), "localhost").unwrap();
    assert_eq!(agreed.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    server.recheck(agreed.peer_certificates().unwrap()).unwrap();
}

#[test]
fn each_bad_certificate_is_refused_for_its_own_reason() {
    let place = Place::new();
    let mut settings = place.server();
    let revoked = place.certificate("revoked");
    settings.crl = place.crl(&[&revoked]);
    let server = server(&settings);
    for (validity, reason) in
        [(Validity::Expired, Reason::Expired), (Validity::Later, Reason::NotYetValid)]
    {
        let certificate = place.authority.issue("client", &["localhost"], validity).unwrap();
        assert_eq!(refused(&server, &place.client(&certificate)), ("server", reason));
    }
    assert_eq!(refused(&server, &place.client(&revoked)), ("server", Reason::Revoked));
    let other = Authority::new("other").unwrap();
    let foreign = other.issue("client", &["localhost"], Validity::Now).unwrap();
    assert_eq!(refused(&server, &place.client(&foreign)), ("server", Reason::Authority));

    let none = handshake(server.config(), without_certificate(&place), "localhost");
    let none = none.err().map(|(by, error)| (by, Reason::of(&error)));
    assert_eq!(none, Some(("server", Reason::NoCertificate)));
}

fn without_certificate(place: &Place) -> Arc<rustls::ClientConfig> {
    let roots = pem::roots("ca", place.authority.pem().as_bytes()).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(Version::Tls12))
        .unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

#[test]
fn the_dialing_end_refuses_a_server_just_as_well() {
    let place = Place::new();
    let client = place.client(&place.certificate("client"));
    let good = server(&place.server());
    let wrong = handshake(good.config(), client.config(), "elsewhere").err().unwrap();
    assert_eq!((wrong.0, Reason::of(&wrong.1)), ("client", Reason::Name));

    let expired = place.authority.issue("server", &["localhost"], Validity::Expired).unwrap();
    let expired = server(&place.settings("expired", &expired, &place.authority));
    assert_eq!(refused(&expired, &client), ("client", Reason::Expired));

    let other = Authority::new("other").unwrap();
    let foreign = other.issue("server", &["localhost"], Validity::Now).unwrap();
    let foreign = server(&place.settings("foreign", &foreign, &place.authority));
    assert_eq!(refused(&foreign, &client), ("client", Reason::Authority));

    let revoked = place.certificate("server");
    let mut settings = place.settings("careful", &place.certificate("client"), &place.authority);
    settings.crl = place.crl(&[&revoked]);
    let revoked = server(&place.settings("revoked", &revoked, &place.authority));
    assert_eq!(refused(&revoked, &self::client(&settings)), ("client", Reason::Revoked));
}

#[test]
fn a_port_for_everybody_may_ask_for_a_certificate_and_speak_tls_1_2() {
    let place = Place::new();
    let mut settings = ServerTls::mutual(&place.server());
    let metrics = || Metrics::new(&Registry::new());
    settings.client_certificate = ClientCertificate::Optional;
    let optional = TlsServer::open("test", &settings, &metrics()).unwrap();
    let nobody = handshake(optional.config(), without_certificate(&place), "localhost").unwrap();
    assert!(nobody.peer_certificates().is_none());
    optional.recheck(&[]).unwrap();
    let somebody = place.client(&place.certificate("client"));
    let somebody = handshake(optional.config(), somebody.config(), "localhost").unwrap();
    assert_eq!(somebody.peer_certificates().map(<[_]>::len), Some(1));

    let old = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_root_certificates(pem::roots("ca", place.authority.pem().as_bytes()).unwrap())
        .with_no_client_auth();
    let old = Arc::new(old);
    let refused = handshake(optional.config(), Arc::clone(&old), "localhost").err().unwrap();
    assert_eq!(Reason::of(&refused.1), Reason::Protocol);
    settings.version_min = Version::Tls12;
    let lenient = TlsServer::open("test", &settings, &metrics()).unwrap();
    handshake(lenient.config(), old, "localhost").unwrap();
}

#[test]
fn a_new_certificate_is_taken_once_its_key_is_there_and_the_old_one_serves_until_then() {
    let place = Place::new();
    let settings = place.server();
    let server = server(&settings);
    let client = place.client(&place.certificate("client"));
    let before = serving(&server, &client);
    let next = place.certificate("server");
    std::fs::write(&settings.certificate, &next.certificate).unwrap();
    assert!(!server.look(), "the key does not belong to it yet");
    assert_eq!(serving(&server, &client), before);
    std::fs::write(&settings.key, &next.key).unwrap();
    assert!(server.look());
    assert_ne!(serving(&server, &client), before);
    assert_eq!(server.generation(), 2);
}

/// The certificate that the server shows.
fn serving(server: &TlsServer, client: &TlsClient) -> Vec<u8> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut there = ClientConnection::new(client.config(), name).unwrap();
    let mut here = ServerConnection::new(server.config()).unwrap();
    while carry(&mut there, &mut here).unwrap() | carry(&mut here, &mut there).unwrap() {}
    there.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn an_open_connection_is_found_bad_once_its_certificate_is_revoked() {
    let place = Place::new();
    let mut settings = place.server();
    settings.crl = place.crl(&[]);
    let server = server(&settings);
    let certificate = place.certificate("client");
    let client = place.client(&certificate);
    let open = handshake(server.config(), client.config(), "localhost").unwrap();
    let chain = open.peer_certificates().unwrap();
    server.recheck(chain).unwrap();
    place.crl(&[&certificate]);
    assert!(server.look());
    assert_eq!(Reason::of(&server.recheck(chain).unwrap_err()), Reason::Revoked);
    // And nothing lets it in by an abbreviated handshake.
    assert_eq!(refused(&server, &client), ("server", Reason::Revoked));
}

#[test]
fn files_that_cannot_be_used_are_named_by_their_setting_and_never_shown() {
    let place = Place::new();
    let good = place.server();
    let open = |settings: &MutualTls| {
        let opened = TlsServer::open_mutual("test", settings, &Metrics::new(&Registry::new()));
        opened.err().unwrap().to_string()
    };
    let swapped =
        MutualTls { certificate: good.key.clone(), key: good.certificate.clone(), ..good.clone() };
    assert_eq!(open(&swapped), "test_tls: certificate: no PEM block of a CERTIFICATE in the file");
    let keyless = MutualTls { key: good.certificate.clone(), ..good.clone() };
    assert_eq!(open(&keyless), "test_tls: key: no PEM block of a PRIVATE KEY in the file");
    let other = place.certificate("other").write(place.folder.path(), "other").unwrap();
    let mixed = MutualTls { key: other.key, ..good.clone() };
    assert!(
        open(&mixed).starts_with("test_tls: certificate: keys may not be consistent"),
        "{}",
        open(&mixed)
    );
    let missing = MutualTls { ca: "nowhere.pem".into(), ..good };
    assert!(open(&missing).starts_with("nowhere.pem: No such file"), "{}", open(&missing));
}
