//! TLS of the way to the middles: the certificates are `ops`'s, the connections are `link`'s.

use forebay_link::ConnectTls;
use forebay_ops::{
    Metrics,
    reload::ReloadError,
    tls::{MutualTls, TlsClient},
};

/// TLS for all forwarders of a front, if it is set.
///
/// # Errors
/// A file of the certificates cannot be read or used: do not connect.
pub(crate) fn connect(
    settings: &MutualTls,
    metrics: &Metrics,
) -> Result<Option<ConnectTls>, ReloadError> {
    if !settings.is_on() {
        return Ok(None);
    }
    let client = TlsClient::open("uplink", settings, metrics)?;
    let config = client.clone();
    Ok(Some(ConnectTls::new(move || config.config(), move |error| client.failed(error))))
}
