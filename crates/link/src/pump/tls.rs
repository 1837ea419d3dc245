//! TLS as the pump needs it: from whoever holds the certificates, through closures.
//!
//! This package knows neither files nor metrics. The tiers hand over what gives the configuration
//! of the moment, so that new certificates need no restart, and what counts a failure.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, Error as Refusal, ServerConfig};

/// How often a failure may be logged as a warning: strangers must not fill the disk.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// How often the certificate of an open connection is looked at again: about 100 µs of work.
const RECHECK_EVERY: Duration = Duration::from_secs(10);

type Configuration<C> = Arc<dyn Fn() -> Arc<C> + Send + Sync>;
type Recheck = Arc<dyn Fn(&[CertificateDer<'_>]) -> Result<(), Refusal> + Send + Sync>;
type Failed = Arc<dyn Fn(&io::Error) + Send + Sync>;

/// TLS of a port: the listening end.
#[derive(Clone)]
pub struct AcceptTls {
    config: Configuration<ServerConfig>,
    recheck: Recheck,
    failed: Failed,
    recheck_every: Duration,
    warned: Arc<Mutex<Option<Instant>>>,
}

/// TLS of a link: the dialing end. The other end must show a certificate for the host's name.
#[derive(Clone)]
pub struct ConnectTls {
    config: Configuration<ClientConfig>,
    failed: Failed,
    told: Arc<Mutex<Option<String>>>,
}

impl AcceptTls {
    /// `config` is asked for each connection. `recheck` says whether who showed this chain would
    /// be let in now; it is asked again and again while the connection is open, and closes it by
    /// an error. `failed` counts: what went wrong is in the error (a [`Refusal`] inside, or
    /// [`io::ErrorKind::TimedOut`]).
    #[must_use]
    pub fn new(
        config: impl Fn() -> Arc<ServerConfig> + Send + Sync + 'static,
        recheck: impl Fn(&[CertificateDer<'_>]) -> Result<(), Refusal> + Send + Sync + 'static,
        failed: impl Fn(&io::Error) + Send + Sync + 'static,
    ) -> Self {
        let (config, recheck, failed) = (Arc::new(config), Arc::new(recheck), Arc::new(failed));
        Self { config, recheck, failed, recheck_every: RECHECK_EVERY, warned: Arc::default() }
    }

    /// The same, which looks at open connections at another pace than every 10 s.
    #[must_use]
    pub fn with_recheck_every(self, recheck_every: Duration) -> Self {
        Self { recheck_every, ..self }
    }

    pub(super) const fn recheck_every(&self) -> Duration {
        self.recheck_every
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        (self.config)()
    }

    pub(super) fn recheck(&self, chain: &[CertificateDer<'_>]) -> io::Result<()> {
        (self.recheck)(chain).map_err(io::Error::other)
    }

    /// Counts a failure, and logs it now and then.
    pub(super) fn failed(&self, address: std::net::SocketAddr, error: &io::Error) {
        (self.failed)(error);
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|last| last.elapsed() >= WARN_EVERY) {
            *warned = Some(Instant::now());
            tracing::warn!(%address, %error, "a connection is refused; others may not be logged");
        }
    }
}

impl ConnectTls {
    /// `config` is asked for each connection; `failed` counts, as for [`AcceptTls::new`].
    #[must_use]
    pub fn new(
        config: impl Fn() -> Arc<ClientConfig> + Send + Sync + 'static,
        failed: impl Fn(&io::Error) + Send + Sync + 'static,
    ) -> Self {
        Self { config: Arc::new(config), failed: Arc::new(failed), told: Arc::default() }
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        (self.config)()
    }

    /// Counts a failure, and logs it once for as long as it stays the same.
    pub(super) fn failed(&self, endpoint: &str, error: &io::Error) {
        (self.failed)(error);
        let text = Some(error.to_string());
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != text {
            tracing::warn!(endpoint, %error, "no TLS connection, trying again");
            *told = text;
        }
    }

    /// The other end has let us in.
    pub(super) fn worked(&self) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Two are the same if one is a clone of the other.
impl PartialEq for AcceptTls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.warned, &other.warned)
    }
}

impl Eq for AcceptTls {}

/// Two are the same if one is a clone of the other.
impl PartialEq for ConnectTls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.told, &other.told)
    }
}

impl Eq for ConnectTls {}

impl fmt::Debug for AcceptTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptTls").finish_non_exhaustive()
    }
}

impl fmt::Debug for ConnectTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectTls").finish_non_exhaustive()
    }
}
