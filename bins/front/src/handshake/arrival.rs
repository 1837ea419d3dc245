//! A connection before its request: behind a proxy's header, plain or TLS.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
};

use forebay_ops::tls::{Reason, TlsServer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::either::Either;

use super::proxy::{self, Header};
use crate::socket::link::Link;

/// Bytes that were read already, then a TCP stream.
pub(super) struct Early {
    tcp: TcpStream,
    early: Vec<u8>,
}

/// What a request comes over: TCP, or TLS over TCP.
pub(super) type Transport = Either<Early, Box<TlsStream<Early>>>;

/// Reads a proxy's header and leaves what follows it in `early`. `None`: it is not one.
pub(super) async fn read_proxy(
    stream: &mut TcpStream,
    early: &mut Vec<u8>,
) -> Option<Option<IpAddr>> {
    early.reserve(proxy::HEADER_BYTES_MAX);
    loop {
        if stream.read_buf(early).await.ok()? == 0 {
            return None;
        }
        match proxy::parse(early) {
            Header::Whole(bytes, from) => {
                early.drain(..bytes);
                return Some(from);
            }
            Header::Partial if early.len() < proxy::HEADER_BYTES_MAX => {}
            Header::Partial | Header::Bad => return None,
        }
    }
}

/// Does the TLS handshake. `None`: it failed, and the peer knows why.
pub(super) async fn accept_tls(
    tls: &TlsServer,
    tcp: TcpStream,
    early: Vec<u8>,
) -> Option<Transport> {
    match TlsAcceptor::from(tls.config()).accept(Early { tcp, early }).await {
        Ok(stream) => Some(Either::Right(Box::new(stream))),
        Err(error) => {
            let reason = Reason::of_io(&error);
            tls.refusals().count(reason);
            tracing::debug!(reason = reason.as_str(), %error, "TLS handshake failed");
            None
        }
    }
}

/// TCP without TLS, of which `early` was read already.
pub(super) fn plain(tcp: TcpStream, early: Vec<u8>) -> Transport {
    Either::Left(Early { tcp, early })
}

/// The certificates that the peer showed, its own first.
pub(super) fn certificates(transport: &Transport) -> Vec<CertificateDer<'static>> {
    match transport {
        Either::Left(_) => Vec::new(),
        Either::Right(stream) => {
            stream.get_ref().1.peer_certificates().map(<[_]>::to_vec).unwrap_or_default()
        }
    }
}

/// The stream for a session. The request has been read, and with it all that came early.
pub(super) fn into_link(transport: Transport) -> Link {
    match transport {
        Either::Left(plain) => Link::Plain(plain.tcp),
        Either::Right(stream) => {
            let (plain, tls) = stream.into_inner();
            Link::tls(plain.tcp, tls)
        }
    }
}

impl AsyncRead for Early {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.tcp).poll_read(cx, out);
        }
        let count = self.early.len().min(out.remaining());
        out.put_slice(&self.early[..count]);
        self.early.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Early {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
