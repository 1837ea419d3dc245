//! Settings of the sink that keeps last values in Redis or Valkey.

use std::path::PathBuf;

use forebay_ops::{ByteSize, Duration, Faults, Validate};
use serde::{Deserialize, Serialize};

use super::{BUFFER_MIN, Flush, NAME, POSITIVE, is_name};

/// Last values in Redis or Valkey.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// Whether last values are kept there.
    pub enabled: bool,
    /// Where: `redis://[user@]host:port/database`. Without TLS: put a proxy between for that.
    pub url: String,
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

impl Validate for Redis {
    fn validate(&self, faults: &mut Faults) {
        if !self.enabled {
            return;
        }
        faults.check(cfg!(feature = "redis"), "enabled", "this build has no Redis");
        faults.check(self.url.starts_with("redis://"), "url", "must be redis://host:port/database");
        let braces = self.prefix.contains(['{', '}']);
        faults.check(!braces, "prefix", "must hold no braces: they choose a cluster's slot");
        faults.check(!self.timeout.is_zero(), "timeout", POSITIVE);
        faults.check(is_name(&self.consumer), "consumer", NAME);
        faults.check(self.buffer >= BUFFER_MIN, "buffer", "must be at least 256KiB");
        faults.within("flush", |faults| self.flush.validate(faults));
    }
}
