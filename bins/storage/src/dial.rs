//! A TCP connection to a store, with or without TLS.

use forebay_ops::tls::{StoreTls, store_refusal};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

/// TCP, or TLS over TCP.
pub(crate) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum DialError {
    /// A human must mend it: a file, a certificate, an end that speaks something else.
    Refused(String),
    /// A later try may do.
    Away(String),
}

/// Connects, over TLS if there are settings of it: the files are read now, the name is checked, and
/// these protocols are offered. There is no limit of time here.
pub(crate) async fn dial(
    host: &str,
    port: u16,
    tls: Option<&StoreTls>,
    protocols: &[&str],
) -> Result<Stream, DialError> {
    let away = |error: std::io::Error| match store_refusal(&error) {
        Some(reason) => DialError::Refused(reason),
        None => DialError::Away(format!("{host}:{port}: {error}")),
    };
    let refused = |reason: String| DialError::Refused(reason);
    let connector = tls.map(|tls| {
        let config = tls.config(protocols).map_err(|error| refused(error.to_string()))?;
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| refused(format!("TLS: {host:?} is no name of a server")))?;
        Ok((TlsConnector::from(std::sync::Arc::new(config)), name))
    });
    let connector = connector.transpose()?;
    let stream = TcpStream::connect((host, port)).await.map_err(away)?;
    stream.set_nodelay(true).map_err(away)?;
    let Some((connector, name)) = connector else { return Ok(Either::Left(stream)) };
    let stream = connector.connect(name, stream).await.map_err(away)?;
    Ok(Either::Right(Box::new(stream)))
}
