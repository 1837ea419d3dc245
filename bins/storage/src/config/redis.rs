//! Settings of the sink that keeps last values in Redis or Valkey.

use std::path::PathBuf;

use forebay_ops::{ByteSize, Duration, Faults, Validate, tls::StoreTls};
use serde::{Deserialize, Serialize};

use super::{BUFFER_MIN, Flush, NAME, POSITIVE, is_name, tls};

/// Last values in Redis or Valkey.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// Whether last values are kept there.
    pub enabled: bool,
    /// Where: `redis://[user@]host:port/database`, or `rediss://..` over TLS.
    pub url: String,
    /// TLS to the server, for a `rediss://` address.
    pub tls: StoreTls,
    /// A file that holds the password; read at each connect.
    pub password_file: Option<PathBuf>,
    /// Begins each key of ours.
    pub prefix: String,
    /// How long after the answer a value is taken to survive the server's death: until then the
    /// middle keeps it.
    pub hold_back: Duration,
    /// Longest wait for one answer.
    pub timeout: Duration,
    /// Its consumer at each middle.
    pub consumer: String,
    /// When a range is closed.
    pub flush: Flush,
    /// Bytes of the feed held unread at most; what comes beyond is fetched later.
    pub buffer: ByteSize,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            enabled: false,
            url: "redis://127.0.0.1:6379/0".to_owned(),
            tls: StoreTls::default(),
            password_file: None,
            prefix: "forebay:last:".to_owned(),
            // `appendfsync everysec` writes within two seconds.
            hold_back: Duration::from_secs(3),
            timeout: Duration::from_secs(10),
            consumer: "redis".to_owned(),
            // Who asks Redis for last values wants them fresh.
            flush: Flush { age: Duration::from_millis(500), ..Flush::default() },
            buffer: ByteSize::mib(4),
        }
    }
}

/// Of a URL: without TLS, and over it.
const SCHEMES: [&str; 2] = ["redis://", "rediss://"];

impl Redis {
    /// TLS, if it is spoken.
    #[must_use]
    pub fn spoken_tls(&self) -> Option<&StoreTls> {
        self.url.starts_with(SCHEMES[1]).then_some(&self.tls)
    }

    /// The same address as a URL without TLS.
    pub(crate) fn plain_url(&self) -> String {
        match self.url.strip_prefix(SCHEMES[1]) {
            Some(address) => format!("{}{address}", SCHEMES[0]),
            None => self.url.clone(),
        }
    }

    pub(super) fn exposure(&self) -> Option<tls::Exposure> {
        // A password may stand in the URL too, before the host.
        let address = tls::address(&self.url, SCHEMES).unwrap_or_default();
        let user = address.rsplit_once('@').map_or("", |(user, _)| user);
        let has_password = self.password_file.is_some() || user.contains(':');
        let of = tls::Reached { section: "redis", has_password, tls: &self.tls };
        of.at_url(&self.url, SCHEMES)
    }
}

impl Validate for Redis {
    fn validate(&self, faults: &mut Faults) {
        if !self.enabled {
            return;
        }
        faults.check(cfg!(feature = "redis"), "enabled", "this build has no Redis");
        let good = tls::address(&self.url, SCHEMES).is_some();
        const URL: &str = "must be redis://host:port/database or rediss://host:port/database";
        faults.check(good, "url", URL);
        tls::validate(faults, &self.url, SCHEMES, &self.tls);
        let braces = self.prefix.contains(['{', '}']);
        faults.check(!braces, "prefix", "must hold no braces: they choose a cluster's slot");
        faults.check(!self.timeout.is_zero(), "timeout", POSITIVE);
        faults.check(is_name(&self.consumer), "consumer", NAME);
        faults.check(self.buffer >= BUFFER_MIN, "buffer", "must be at least 256KiB");
        faults.within("flush", |faults| self.flush.validate(faults));
    }
}
