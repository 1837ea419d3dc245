//! The way to the server: statements, blocks and answers, each with a deadline.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use clickhouse::{Client, error::Error};

use super::{Schema, connector, outcome};
use crate::{config::Clickhouse, sink::Outcome};

/// A block goes out in pieces of this size, each with a deadline of its own.
const PIECE_BYTES: usize = 1 << 20;

/// How a block is cut and remembered must be the same at every try, whatever the server's own
/// settings: these go with each insert.
const INSERT_SETTINGS: [(&str, &str); 10] = [
    ("async_insert", "0"),
    ("insert_deduplicate", "1"),
    ("deduplicate_blocks_in_dependent_materialized_views", "1"),
    // One block, however many rows, and each view sees it whole.
    ("max_insert_block_size", "4194304"),
    ("min_insert_block_size_rows", "4194304"),
    ("min_insert_block_size_bytes", "0"),
    ("max_insert_threads", "1"),
    // Partitions follow the receive time; a backlog of years is still one block.
    ("max_partitions_per_insert_block", "0"),
    ("materialized_views_ignore_errors", "0"),
    // An error must come as the status, not within an answer that began well.
    ("wait_end_of_query", "1"),
];

/// On a cluster: acked means in the shares, on a majority of each one's replicas.
const CLUSTER_SETTINGS: [(&str, &str); 2] =
    [("distributed_foreground_insert", "1"), ("insert_quorum", "auto")];

/// One server.
pub(super) struct Store {
    pub(super) settings: Clickhouse,
    pub(super) schema: Schema,
    client: Client,
}

impl Store {
    /// Reads the password; connects when there is something to say.
    ///
    /// # Errors
    /// [`Outcome::Misconfigured`]: there is no password where one should be.
    pub(super) fn new(settings: &Clickhouse) -> Result<Self, Outcome> {
        let client = if settings.speaks_tls() {
            connector::client(&settings.tls)
        } else {
            Client::default()
        };
        let mut client = client
            .with_url(&settings.url)
            .with_user(&settings.user)
            .with_product_info("forebay", env!("CARGO_PKG_VERSION"));
        if let Some(password) = password(settings)? {
            client = client.with_password(password);
        }
        let schema = Schema::new(settings);
        Ok(Self { settings: settings.clone(), schema, client })
    }

    /// Runs a statement that answers nothing.
    pub(super) async fn run(&self, sql: &str) -> Result<(), Error> {
        self.in_time(self.client.query_raw(sql).execute()).await
    }

    /// Runs a query; lines of columns with tabs between them.
    pub(super) async fn lines(&self, sql: &str) -> Result<Vec<String>, Error> {
        let answer = async {
            let mut cursor = self.client.query_raw(sql).fetch_bytes("TabSeparated")?;
            cursor.collect().await
        };
        let bytes = self.in_time(answer).await?;
        Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
    }

    /// Inserts one block under its token.
    pub(super) async fn insert(&self, block: &Bytes, token: &str) -> Result<(), Error> {
        let mut insert = self
            .client
            .insert_formatted_with(self.schema.insert())
            .with_timeouts(
                Some(self.settings.send_timeout.get()),
                Some(self.settings.answer_timeout.get()),
            )
            .with_setting("insert_deduplication_token", token);
        let cluster = self.settings.cluster.as_ref().map_or(&[][..], |_| &CLUSTER_SETTINGS[..]);
        for (name, value) in INSERT_SETTINGS.iter().chain(cluster) {
            insert = insert.with_setting(*name, *value);
        }
        let mut rest = block.clone();
        while !rest.is_empty() {
            insert.send(rest.split_to(rest.len().min(PIECE_BYTES))).await?;
        }
        insert.end().await
    }

    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let limit: Duration = self.settings.answer_timeout.into();
        tokio::time::timeout(limit, answer).await.unwrap_or(Err(Error::TimedOut))
    }
}

/// What an error means, for use with `map_err`.
pub(super) fn outcome(error: Error) -> Outcome {
    outcome::of(&error)
}

fn password(settings: &Clickhouse) -> Result<Option<String>, Outcome> {
    if let Some(path) = &settings.password_file {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Outcome::Misconfigured(format!("password file {}: {error}", path.display()))
        })?;
        return Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()));
    }
    let Some(name) = &settings.password_env else { return Ok(None) };
    let missing = |_| Outcome::Misconfigured(format!("environment variable {name} is not set"));
    std::env::var(name).map(Some).map_err(missing)
}
