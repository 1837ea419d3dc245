//! The bytes of a connection: TCP, or TLS over it; nothing here waits.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use mio::net::TcpStream;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, ring, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use socket2::{Domain, Protocol, Socket, Type};

use super::Target;

/// A connection's bytes.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<(TcpStream, ClientConnection)>),
}

impl Stream {
    /// Connects connection `number` at once: the server is on this machine.
    pub(super) fn connect(target: &Target, number: usize) -> Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        if let Some(turn) = number.checked_rem(target.sources.len()) {
            socket.bind(&SocketAddr::new(IpAddr::V4(target.sources[turn]), 0).into())?;
        }
        socket.connect(&target.address.into())?;
        socket.set_tcp_nodelay(true)?;
        // Closed by a reset: tens of thousands in TIME_WAIT would use up the ports.
        socket.set_linger(Some(Duration::ZERO))?;
        socket.set_nonblocking(true)?;
        let tcp = TcpStream::from_std(socket.into());
        let Some(config) = &target.tls else { return Ok(Self::Plain(tcp)) };
        let name = ServerName::try_from("localhost").context("a name")?;
        let tls = ClientConnection::new(Arc::clone(config), name)?;
        Ok(Self::Tls(Box::new((tcp, tls))))
    }

    pub(super) fn source(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(both) => &mut both.0,
        }
    }

    /// Whether a read that did not fill its buffer has left nothing behind.
    pub(super) fn ends_with_a_short_read(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Reads what has come; 0 is the end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (tcp, tls) = match self {
            Self::Plain(tcp) => return tcp.read(buffer),
            Self::Tls(both) => (&mut both.0, &mut both.1),
        };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            if tls.read_tls(tcp)? == 0 {
                return Ok(0);
            }
            tls.process_new_packets().map_err(io::Error::other)?;
        }
    }

    /// Writes as much as is taken.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => {
                let whole = bytes.len();
                while !bytes.is_empty() {
                    match tcp.write(bytes) {
                        Ok(count) => bytes = &bytes[count..],
                        Err(error) if is_not_now(&error) => break,
                        Err(error) => return Err(error),
                    }
                }
                Ok(whole - bytes.len())
            }
            Self::Tls(both) => {
                let (tcp, tls) = &mut **both;
                let count = if bytes.is_empty() { 0 } else { tls.writer().write(bytes)? };
                while tls.wants_write() {
                    match tls.write_tls(tcp) {
                        Ok(_) => {}
                        Err(error) if is_not_now(&error) => break,
                        Err(error) => return Err(error),
                    }
                }
                Ok(count)
            }
        }
    }
}

fn is_not_now(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// TLS 1.3 that takes any certificate, and every handshake in full: what is measured is the server.
///
/// # Errors
/// rustls does not know its own defaults.
pub fn trusting_everybody() -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(ring::default_provider());
    let everybody = Arc::new(Everybody(provider.signature_verification_algorithms));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(everybody)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Everybody(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Everybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
