//! Settings of the sink for VictoriaMetrics and other endpoints of Prometheus remote write.

use std::path::PathBuf;

use forebay_ops::{ByteSize, Duration, Faults, Validate, tls::StoreTls};
use serde::{Deserialize, Serialize};

use super::{BUFFER_MIN, Flush, NAME, POSITIVE, is_name, tls};

/// Numbers at an endpoint of Prometheus remote write.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RemoteWrite {
    /// Whether numbers are stored there.
    pub enabled: bool,
    /// Where to: `http://host:port/path`, or `https://host:port/path` over TLS.
    pub url: String,
    /// TLS to the server, for an `https://` address.
    pub tls: StoreTls,
    /// Set before each key to make the name of a metric.
    pub prefix: String,
    /// A file that holds a bearer token; read anew for each range.
    pub token_file: Option<PathBuf>,
    /// How long after the answer the samples are taken to be on disk: until then the middle keeps
    /// them. VictoriaMetrics answers before it has written.
    pub hold_back: Duration,
    /// Samples a request at most.
    pub samples: usize,
    /// Longest time for one request.
    pub timeout: Duration,
    /// Its consumer at each middle.
    pub consumer: String,
    /// When a range is closed.
    pub flush: Flush,
    /// Bytes of the feed held unread at most; what comes beyond is fetched later.
    pub buffer: ByteSize,
}

impl Default for RemoteWrite {
    fn default() -> Self {
        Self {
            enabled: false,
            url: "http://127.0.0.1:8428/api/v1/write".to_owned(),
            tls: StoreTls::default(),
            prefix: String::new(),
            token_file: None,
            // After kill -9 VictoriaMetrics 1.79 lacked the last 6 s, and had what was 11 s old.
            hold_back: Duration::from_secs(30),
            // Some 400 KiB before compression: below every receiver's limit.
            samples: 20_000,
            timeout: Duration::from_secs(30),
            consumer: "remote-write".to_owned(),
            flush: Flush { age: Duration::from_secs(2), ..Flush::default() },
            buffer: ByteSize::mib(4),
        }
    }
}

/// Of a URL: without TLS, and over it.
const SCHEMES: [&str; 2] = ["http://", "https://"];

impl RemoteWrite {
    /// TLS, if it is spoken.
    #[must_use]
    pub fn spoken_tls(&self) -> Option<&StoreTls> {
        self.url.starts_with(SCHEMES[1]).then_some(&self.tls)
    }

    pub(super) fn exposure(&self) -> Option<tls::Exposure> {
        let has_password = self.token_file.is_some();
        let of = tls::Reached { section: "remote_write", has_password, tls: &self.tls };
        of.at_url(&self.url, SCHEMES)
    }
}

impl Validate for RemoteWrite {
    fn validate(&self, faults: &mut Faults) {
        if !self.enabled {
            return;
        }
        faults.check(cfg!(feature = "remote-write"), "enabled", "this build has no remote write");
        let good = tls::address(&self.url, SCHEMES).is_some();
        faults.check(good, "url", "must be http://host:port/path or https://host:port/path");
        tls::validate(faults, &self.url, SCHEMES, &self.tls);
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let digit = self.prefix.starts_with(|first: char| first.is_ascii_digit());
        let prefix = self.prefix.chars().all(plain) && !digit;
        faults.check(prefix, "prefix", "must be of A-Z a-z 0-9 _ : and begin with no digit");
        faults.check(self.samples > 0, "samples", POSITIVE);
        faults.check(!self.timeout.is_zero(), "timeout", POSITIVE);
        faults.check(is_name(&self.consumer), "consumer", NAME);
        faults.check(self.buffer >= BUFFER_MIN, "buffer", "must be at least 256KiB");
        faults.within("flush", |faults| self.flush.validate(faults));
    }
}
