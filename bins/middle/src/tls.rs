//! TLS of the middle's ports: the certificates are `ops`'s, the connections are `link`'s.

use forebay_link::{AcceptTls, BindConfig};
use forebay_ops::{
    Metrics,
    reload::ReloadError,
    tls::{MutualTls, TlsServer},
};

/// A port of the middle, `port` in logs and metrics, with TLS if it is set.
///
/// # Errors
/// A file of the certificates cannot be read or used: do not listen.
pub(crate) fn bind(
    port: &str,
    listen: &str,
    allow_public: bool,
    settings: &MutualTls,
    metrics: &Metrics,
) -> Result<BindConfig, ReloadError> {
    let plain = BindConfig { allow_public, ..BindConfig::new(listen) };
    if !settings.is_on() {
        return Ok(plain);
    }
    let server = TlsServer::open_mutual(port, settings, metrics)?;
    let (config, recheck) = (server.clone(), server.clone());
    let tls = AcceptTls::new(
        move || config.config(),
        move |chain| recheck.recheck(chain),
        move |error| server.failed(error),
    );
    Ok(BindConfig { tls: Some(tls), ..plain })
}
