//! How this tier connects to its middles: addresses from the settings, TLS if it is set.
//!
//! Every subscriber of this tier is set up here, so that none goes without TLS where it is set.

use forebay_link::{ConnectTls, SubscriberConfig};
use forebay_ops::{Metrics, reload::ReloadError, tls::TlsClient};

use crate::config::{Feed, Middle};

/// The way to the middles.
#[derive(Debug, Clone)]
pub(crate) struct FeedLink {
    tls: Option<ConnectTls>,
}

impl FeedLink {
    /// # Errors
    /// A file of the certificates cannot be read or used: do not connect.
    pub(crate) fn open(settings: &Feed, metrics: &Metrics) -> Result<Self, ReloadError> {
        if !settings.tls.is_on() {
            return Ok(Self { tls: None });
        }
        let client = TlsClient::open("feed", &settings.tls, metrics)?;
        let config = client.clone();
        let tls = ConnectTls::new(move || config.config(), move |error| client.failed(error));
        Ok(Self { tls: Some(tls) })
    }

    /// The defaults of a subscriber to `middle`, on a thread of this name.
    pub(crate) fn subscriber(&self, thread: String, middle: &Middle) -> SubscriberConfig {
        let mut config = SubscriberConfig::new(thread, &middle.feed, &middle.fetch);
        config.feed.tls.clone_from(&self.tls);
        config.fetch.tls.clone_from(&self.tls);
        config
    }
}
