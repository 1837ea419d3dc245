//! The byte stream below the codec: plain TCP, or TLS over it.
//!
//! TLS is rustls without a stream of its own: what has come in is read into a buffer on the stack
//! and decrypted into the core's shared one, so that an idle connection keeps no buffer of ours.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::rustls::ServerConnection;

/// Bytes read from the network at a time before they are decrypted: a TLS record.
const CIPHER_BYTES: usize = 16 * 1024 + 256;

/// A connection past its handshake.
pub(crate) enum Link {
    /// TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsLink>),
}

/// TLS over TCP.
pub(crate) struct TlsLink {
    tcp: TcpStream,
    tls: ServerConnection,
}

impl Link {
    /// TLS whose handshake is done.
    pub(crate) fn tls(tcp: TcpStream, tls: ServerConnection) -> Self {
        Self::Tls(Box::new(TlsLink { tcp, tls }))
    }

    /// Reads what has come into `out`; 0 is the end.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => {
                let mut buffer = ReadBuf::new(out);
                ready!(Pin::new(tcp).poll_read(cx, &mut buffer))?;
                Poll::Ready(Ok(buffer.filled().len()))
            }
            Self::Tls(link) => link.poll_read(cx, out),
        }
    }

    /// Takes bytes to be sent, as many as fit.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.try_write(bytes),
            Self::Tls(link) => link.try_write(bytes),
        }
    }

    /// Sends what [`Self::try_write`] has taken; `WouldBlock` if the peer does not take it all.
    pub(crate) fn try_flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(link) => link.try_flush(),
        }
    }

    /// Whether the peer takes more.
    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp().poll_write_ready(cx)
    }

    /// Ends our half.
    pub(crate) fn shut_write(&mut self) {
        if let Self::Tls(link) = self {
            link.tls.send_close_notify();
            // A peer that takes no more does not wait for a goodbye either.
            let _ = link.try_flush();
        }
        // An error means that the peer has closed already.
        let _ = socket2::SockRef::from(self.tcp()).shutdown(std::net::Shutdown::Write);
    }

    /// Reads and forgets what still comes. Ready at the end of the stream.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            // Nobody wants to know what it says.
            Self::Tls(link) => &mut link.tcp,
        };
        let mut waste = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut waste);
            match ready!(Pin::new(&mut *tcp).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(link) => &link.tcp,
        }
    }
}

impl TlsLink {
    fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut filled = 0;
        let mut ended = self.decrypted(out, &mut filled)?;
        let mut cipher = [0; CIPHER_BYTES];
        while filled == 0 && !ended {
            let mut buffer = ReadBuf::new(&mut cipher);
            ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut buffer))?;
            let mut come = buffer.filled();
            ended = come.is_empty();
            while !come.is_empty() {
                self.tls.read_tls(&mut come)?;
                if let Err(error) = self.tls.process_new_packets() {
                    // The peer is told why, if it still listens.
                    let _ = self.try_flush();
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
                }
                // One read is at most a record more than the room in `out`.
                ended |= self.decrypted(out, &mut filled)?;
            }
            if self.tls.wants_write() {
                // An answer of TLS itself, such as a new key; what does not go now goes with the
                // next flush.
                let _ = self.try_flush();
            }
        }
        Poll::Ready(Ok(filled))
    }

    /// Moves what is decrypted to `out`; true at the end of the stream.
    fn decrypted(&mut self, out: &mut [u8], filled: &mut usize) -> io::Result<bool> {
        loop {
            if *filled == out.len() {
                return Ok(false);
            }
            match io::Read::read(&mut self.tls.reader(), &mut out[*filled..]) {
                Ok(0) => return Ok(true),
                Ok(count) => *filled += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(true),
                Err(error) => return Err(error),
            }
        }
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Nothing more is encrypted while something waits: the codec's buffer has the bound.
        self.try_flush()?;
        let count = io::Write::write(&mut self.tls.writer(), bytes)?;
        match self.try_flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(count),
        }
    }

    fn try_flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut Network(&self.tcp))?;
        }
        Ok(())
    }
}

/// The network below TLS, written without waiting.
struct Network<'t>(&'t TcpStream);

impl io::Write for Network<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
