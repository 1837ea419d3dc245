//! Settings of the ClickHouse sink.

use std::path::PathBuf;

use forebay_ops::{ByteSize, Duration, Faults, Validate, tls::StoreTls};
use serde::{Deserialize, Serialize};

use super::{BUFFER_MIN, Flush, NAME, is_name, tls};

/// 50 years.
const RETENTION_SECONDS_MAX: u64 = 438_000 * 3600;

/// A ClickHouse server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clickhouse {
    /// Whether rows are stored there.
    pub enabled: bool,
    /// Its HTTP interface, `http://host:port`, or `https://host:port` over TLS.
    pub url: String,
    /// TLS to the server, for an `https://` address.
    pub tls: StoreTls,
    /// Database of the tables; made if it is not there.
    pub database: String,
    /// What the names of the tables begin with.
    pub prefix: String,
    /// User.
    pub user: String,
    /// File with the password; read again when the store refuses it. No password without it.
    pub password_file: Option<PathBuf>,
    /// Environment variable with the password, instead of a file.
    pub password_env: Option<String>,
    /// Its consumer at each middle.
    pub consumer: String,
    /// When a range is closed.
    pub flush: Flush,
    /// Bytes of the feed held unread at most; what comes beyond is fetched later.
    pub buffer: ByteSize,
    /// Longest time a piece of a block may take to be sent.
    pub send_timeout: Duration,
    /// Longest time until the store has answered, rollups included.
    pub answer_timeout: Duration,
    /// Whether tables are made and migrated; otherwise only their version is checked.
    pub manage_schema: bool,
    /// Length of a partition, by receive time: `month` or `day`.
    pub partition: Partition,
    /// Blocks whose tokens the store remembers.
    pub dedup_window: u32,
    /// Whether the store syncs a block before it answers: it then survives a power cut.
    pub fsync: bool,
    /// What becomes of old rows.
    pub retention: Retention,
    /// Name of a cluster: tables are made replicated and distributed on it.
    pub cluster: Option<String>,
}

impl Default for Clickhouse {
    fn default() -> Self {
        Self {
            enabled: false,
            url: "http://127.0.0.1:8123".to_owned(),
            tls: StoreTls::default(),
            database: "forebay".to_owned(),
            prefix: String::new(),
            user: "default".to_owned(),
            password_file: None,
            password_env: None,
            consumer: "clickhouse".to_owned(),
            flush: Flush {
                // Blocks of 50,000 to 100,000 rows insert five times faster than those of 1,000,
                // larger ones hardly faster.
                rows: 100_000,
                held: ByteSize::mib(16),
                // A part a table every 5 s at least while data comes: the server merges them.
                age: Duration::from_secs(5),
                ..Flush::default()
            },
            buffer: ByteSize::mib(4),
            send_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(60),
            manage_schema: true,
            partition: Partition::Month,
            // More than a day of blocks at an age of 10 s. The ledger covers longer replays.
            dedup_window: 10_000,
            fsync: true,
            retention: Retention::default(),
            cluster: None,
        }
    }
}

/// Of a URL: without TLS, and over it.
const SCHEMES: [&str; 2] = ["http://", "https://"];

impl Clickhouse {
    /// Whether it is spoken to over TLS.
    #[must_use]
    pub fn speaks_tls(&self) -> bool {
        self.url.starts_with(SCHEMES[1])
    }

    pub(super) fn exposure(&self) -> Option<tls::Exposure> {
        let has_password = self.password_file.is_some() || self.password_env.is_some();
        let of = tls::Reached { section: "clickhouse", has_password, tls: &self.tls };
        of.at_url(&self.url, SCHEMES)
    }
}

/// Length of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Partition {
    /// For years of data.
    Month,
    /// Where old rows are to go to the day.
    Day,
}

/// What becomes of old rows; `0s` is never. Counted from when they were received.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Readings older than this are dropped.
    pub drop_after: Duration,
    /// Rollups older than this are dropped, a month at a time.
    pub drop_rollups_after: Duration,
    /// Readings older than this are moved to `move_to`.
    pub move_after: Duration,
    /// A volume of `storage_policy`.
    pub move_to: String,
    /// Storage policy of the readings; the server's default without it.
    pub storage_policy: Option<String>,
}

impl Validate for Clickhouse {
    fn validate(&self, faults: &mut Faults) {
        let host = tls::address(&self.url, SCHEMES);
        let plain =
            |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '?' | '#' | '@');
        let good = host.is_some_and(|host| !host.is_empty() && host.chars().all(plain));
        faults.check(good, "url", "must be http://host:port or https://host:port");
        tls::validate(faults, &self.url, SCHEMES, &self.tls);
        const WORD: &str = "must be 1 to 64 of A-Z a-z 0-9 _ and begin with none of 0-9";
        faults.check(is_word(&self.database), "database", WORD);
        faults.check(self.prefix.is_empty() || is_word(&self.prefix), "prefix", WORD);
        let cluster = self.cluster.as_deref().is_none_or(is_word);
        faults.check(cluster, "cluster", WORD);
        faults.check(is_name(&self.consumer), "consumer", NAME);
        faults.check(self.buffer >= BUFFER_MIN, "buffer", "must be at least 256KiB");
        let one = self.password_file.is_none() || self.password_env.is_none();
        faults.check(one, "password_env", "is set beside password_file: one of them");
        faults.within("flush", |faults| {
            self.flush.validate(faults);
            // A block is one part for each partition only if it is not cut again by the server.
            faults.check(self.flush.rows <= 1 << 20, "rows", "must be at most 1048576");
        });
        for (key, time) in
            [("send_timeout", &self.send_timeout), ("answer_timeout", &self.answer_timeout)]
        {
            faults.check(!time.is_zero(), key, "must be above zero");
        }
        faults.check(self.dedup_window >= 100, "dedup_window", "must be at least 100");
        faults.within("retention", |faults| {
            for (key, after) in [
                ("drop_after", &self.retention.drop_after),
                ("drop_rollups_after", &self.retention.drop_rollups_after),
                ("move_after", &self.retention.move_after),
            ] {
                // The store counts in seconds until 2106; beyond, old rows would seem overdue.
                let bounded = after.as_secs() <= RETENTION_SECONDS_MAX;
                faults.check(bounded, key, "must be at most 438000h, which is 50 years");
            }
            let moves = !self.retention.move_after.is_zero();
            let word = |name: &str| is_word(name);
            let named = word(&self.retention.move_to)
                && self.retention.storage_policy.as_deref().is_some_and(word);
            let needs = "needs a volume in move_to and a storage_policy that has it";
            faults.check(!moves || named, "move_after", needs);
            let policy = self.retention.storage_policy.as_deref().is_none_or(word);
            faults.check(policy, "storage_policy", WORD);
        });
        #[cfg(not(feature = "clickhouse"))]
        faults.check(!self.enabled, "enabled", "this build has no ClickHouse: feature clickhouse");
    }
}

/// A name that needs no quotes in SQL.
fn is_word(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=64).contains(&name.len())
        && name.bytes().all(plain)
        && !name.as_bytes()[0].is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(settings: &Clickhouse) -> Vec<String> {
        let mut faults = Faults::default();
        settings.validate(&mut faults);
        faults.found().iter().map(|fault| fault.path.clone()).collect()
    }

    #[test]
    fn names_that_would_be_syntax_are_refused_and_all_faults_are_told_at_once() {
        assert_eq!(faults(&Clickhouse::default()), Vec::<String>::new());
        let settings = Clickhouse {
            url: "clickhouse:8123".to_owned(),
            database: "a; DROP".to_owned(),
            prefix: "1x".to_owned(),
            password_file: Some("a".into()),
            password_env: Some("b".to_owned()),
            dedup_window: 0,
            retention: Retention { move_after: Duration::from_secs(1), ..Retention::default() },
            ..Clickhouse::default()
        };
        let expected =
            ["url", "database", "prefix", "password_env", "dedup_window", "retention.move_after"];
        assert_eq!(faults(&settings), expected);
    }
}
