//! Settings of the PostgreSQL sink.

use std::path::PathBuf;

use forebay_ops::{ByteSize, Duration, Faults, Validate, tls::StoreTls};
use serde::{Deserialize, Serialize};

use super::{BUFFER_MIN, Flush, NAME, POSITIVE, is_name};

/// Rows in PostgreSQL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Postgres {
    /// Whether rows are stored there.
    pub enabled: bool,
    /// How to connect, in the form of libpq: `host=.. port=.. user=.. dbname=..`, or a URL. TLS is
    /// spoken with `sslmode=require`, or where anything is set below `tls`.
    pub url: String,
    /// TLS to the server.
    pub tls: StoreTls,
    /// A file that holds the password; read at each connect.
    pub password_file: Option<PathBuf>,
    /// The database schema that holds our tables; made if it is not there.
    pub schema: String,
    /// How long rows are kept after they were received, in whole days; all for ever without it.
    pub keep: Option<Duration>,
    /// Whether rows are indexed by device, key and time: last values and histories at once, for
    /// some of the pace.
    pub series_index: bool,
    /// Longest time for one block; a server that hangs is left and tried anew.
    pub timeout: Duration,
    /// Its consumer at each middle, and its name in the cursor table.
    pub consumer: String,
    /// When a range is closed.
    pub flush: Flush,
    /// Bytes of the feed held unread at most; what comes beyond is fetched later.
    pub buffer: ByteSize,
}

impl Default for Postgres {
    fn default() -> Self {
        Self {
            enabled: false,
            url: "host=127.0.0.1 user=forebay dbname=forebay".to_owned(),
            tls: StoreTls::default(),
            password_file: None,
            schema: "forebay".to_owned(),
            keep: None,
            series_index: true,
            // A block of 131,072 rows takes below a second on a server at rest.
            timeout: Duration::from_secs(60),
            consumer: "postgres".to_owned(),
            // One commit, so one sync of the server, in two seconds.
            flush: Flush { age: Duration::from_secs(2), ..Flush::default() },
            buffer: ByteSize::mib(4),
        }
    }
}

impl Validate for Postgres {
    fn validate(&self, faults: &mut Faults) {
        if !self.enabled {
            return;
        }
        faults.check(cfg!(feature = "postgres"), "enabled", "this build has no PostgreSQL");
        faults.check(!self.url.is_empty(), "url", "must say where the server is");
        #[cfg(feature = "postgres")]
        super::tls::postgres::validate(faults, &self.url, &self.tls);
        faults.check(is_identifier(&self.schema), "schema", IDENTIFIER);
        let day = |keep: &Duration| keep.as_millis() >= 86_400_000;
        faults.check(self.keep.as_ref().is_none_or(day), "keep", "must be at least 24h");
        faults.check(!self.timeout.is_zero(), "timeout", POSITIVE);
        faults.check(is_name(&self.consumer), "consumer", NAME);
        faults.check(self.buffer >= BUFFER_MIN, "buffer", "must be at least 256KiB");
        faults.within("flush", |faults| self.flush.validate(faults));
    }
}

const IDENTIFIER: &str = "must be 1 to 40 of a-z 0-9 _, and begin with a letter";

/// What needs no quotes and leaves room for a suffix in 63 bytes.
fn is_identifier(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=40).contains(&name.len())
        && name.bytes().all(plain)
        && name.starts_with(|first: char| first.is_ascii_lowercase())
}
