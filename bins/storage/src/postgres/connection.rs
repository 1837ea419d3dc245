//! One connection to PostgreSQL, and the transaction that stores a block exactly once.

use bytes::Bytes;
use futures_util::SinkExt as _;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Transaction};

use super::{
    classify::Failure,
    dial::{DialError, dial, parse, set_password},
    encode::{self, COLUMNS, Place},
    schema::Schema,
};
use crate::{
    config,
    sink::{Encoded, Part, Token},
};

/// Of one message to the server.
const CHUNK_BYTES: usize = 256 * 1024;

/// Said at each connect.
///
/// A host of ours that vanishes must not keep its lock for the two hours after which a kernel
/// notices; an ack must mean that the commit is on disk, whatever the database's default is.
const SESSION: &str = "SET lock_timeout = '10s';
    SET idle_in_transaction_session_timeout = '60s';
    SET tcp_keepalives_idle = 10;
    SET tcp_keepalives_interval = 5;
    SET tcp_keepalives_count = 3;
    SELECT set_config('synchronous_commit', 'on', false)
        WHERE current_setting('synchronous_commit') = 'off'";

/// The task that moves a connection's bytes. Without it the connection is closed: whoever gives up
/// in the middle leaves nothing behind.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection with what is known of the tables behind it.
pub(super) struct Connection {
    client: Client,
    driver: Driver,
    schema: Schema,
    consumer: String,
    copy: String,
}

impl Connection {
    /// Connects and makes or migrates the tables.
    pub(super) async fn open(settings: &config::Postgres) -> Result<Self, Failure> {
        let config = parse(&settings.url);
        let mut config =
            config.map_err(|reason| Failure::misconfigured(format!("postgres.url {reason}")))?;
        let password = set_password(&mut config, settings.password_file.as_deref());
        password.map_err(Failure::misconfigured)?;
        if config.get_application_name().is_none() {
            config.application_name("forebay");
        }
        config.keepalives_idle(std::time::Duration::from_secs(10));
        let dialed = dial(&mut config, &settings.tls).await;
        let (mut client, connection) = dialed.map_err(|error| match error {
            DialError::File(reason) => Failure::misconfigured(format!("postgres.{reason}")),
            DialError::Server(error) => error.into(),
        })?;
        let driver = Driver(tokio::spawn(async move {
            // What ends it is said to whoever uses the client.
            let _ = connection.await;
        }));
        let schema = prepare(&mut client, settings).await?;
        let consumer = settings.consumer.clone();
        Ok(Self { client, driver, schema, consumer, copy: COLUMNS.join(", ") })
    }

    /// Whether it is known to be broken.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed() || self.driver.0.is_finished()
    }

    /// Ends it at once; what was not committed is undone by the server.
    pub(super) async fn close(mut self) {
        self.driver.0.abort();
        let _ = (&mut self.driver.0).await;
    }

    /// Stores those rows of a block that are not there yet; on return they are on disk.
    pub(super) async fn store(&mut self, block: &Encoded, token: &Token) -> Result<(), Failure> {
        for part in &block.parts {
            let (day, _) = place_of(part)?;
            self.schema.ensure_day(&mut self.client, day).await?;
        }
        let work = self.client.transaction().await?;
        let cursors = self.schema.cursors();
        let queue = token.queue.to_string();
        let cursor = lock(&work, &cursors, &queue, &self.consumer).await?;
        if token.piece.is_some_and(|piece| piece.letter) {
            store_letter(&work, &self.schema.readings(), &self.copy, block).await?;
            return Ok(work.commit().await?);
        }
        let mut last = cursor;
        for part in &block.parts {
            let (day, end) = place_of(part)?;
            last = last.max(end);
            if end <= cursor {
                continue;
            }
            // Only a range that was cut otherwise before has rows on both sides.
            let is_new = encode::first(&part.bytes).is_some_and(|first| first > cursor);
            let bytes = if is_new {
                part.bytes.clone()
            } else {
                encode::after(&part.bytes, cursor).ok_or_else(|| foreign(part))?
            };
            copy(&work, &self.schema.table(day), &self.copy, &bytes).await?;
        }
        if last > cursor {
            let sql = format!(
                "UPDATE {cursors} SET entry = $1, index = $2, moved = now() \
                 WHERE queue = $3::text::uuid AND consumer = $4"
            );
            let Place { entry, index } = last;
            let moved = work.execute(&sql, &[&entry, &index, &queue, &self.consumer]).await?;
            if moved != 1 {
                return Err(Failure::transient("the cursor row went away".to_owned()));
            }
        }
        work.commit().await?;
        // The block is stored, whatever becomes of this; it is tried again with the next.
        if let Err(failure) = self.schema.sweep(&mut self.client).await {
            tracing::warn!(reason = ?failure, "cannot drop days that are no longer kept");
        }
        Ok(())
    }
}

async fn prepare(client: &mut Client, settings: &config::Postgres) -> Result<Schema, Failure> {
    // What we have given up the server must give up too, whatever it waits for.
    let timeout_ms = settings.timeout.as_millis();
    client.batch_execute(&format!("SET statement_timeout = {timeout_ms}; {SESSION}")).await?;
    Schema::open(client, settings).await
}

async fn copy(
    work: &Transaction<'_>,
    table: &str,
    columns: &str,
    bytes: &Bytes,
) -> Result<(), Failure> {
    let sql = format!("COPY {table} ({columns}) FROM STDIN (FORMAT binary)");
    let sink = work.copy_in(&sql).await?;
    let mut sink = std::pin::pin!(sink);
    for start in (0..bytes.len()).step_by(CHUNK_BYTES) {
        let end = bytes.len().min(start + CHUNK_BYTES);
        sink.send(bytes.slice(start..end)).await?;
    }
    sink.finish().await?;
    Ok(())
}

/// Stores rows that were set aside once, unless they are there: the cursor is beyond them, so the
/// table itself is asked. The lock on the cursor keeps others from doing the same meanwhile.
async fn store_letter(
    work: &Transaction<'_>,
    readings: &str,
    columns: &str,
    block: &Encoded,
) -> Result<(), Failure> {
    let make = format!("CREATE TEMP TABLE letter (LIKE {readings}) ON COMMIT DROP");
    work.batch_execute(&make).await?;
    for part in &block.parts {
        copy(work, "letter", columns, &part.bytes).await?;
    }
    let sql = format!(
        "INSERT INTO {readings} ({columns}) SELECT {columns} FROM letter
         WHERE NOT EXISTS (
            SELECT FROM {readings} AS kept
            WHERE kept.received = letter.received AND kept.device = letter.device
            AND kept.tenant = letter.tenant AND kept.session = letter.session
            AND kept.seq = letter.seq AND kept.index = letter.index
         )"
    );
    work.batch_execute(&sql).await?;
    Ok(())
}

/// Reads a cursor under a lock that lets nobody else store rows of that queue until the end of the
/// transaction.
async fn lock(
    work: &Transaction<'_>,
    cursors: &str,
    queue: &str,
    consumer: &str,
) -> Result<Place, Failure> {
    let read = format!(
        "SELECT entry, index FROM {cursors} \
         WHERE queue = $1::text::uuid AND consumer = $2 FOR UPDATE"
    );
    let make = format!(
        "INSERT INTO {cursors} (queue, consumer, entry, index, moved) \
         VALUES ($1::text::uuid, $2, 0, 0, now()) ON CONFLICT DO NOTHING"
    );
    for _ in 0..2 {
        if let Some(row) = work.query_opt(&read, &[&queue, &consumer]).await? {
            return Ok(Place { entry: row.get(0), index: row.get(1) });
        }
        work.execute(&make, &[&queue, &consumer]).await?;
    }
    Err(Failure::transient("the cursor row does not stay".to_owned()))
}

/// Day and last row of a part.
fn place_of(part: &Part) -> Result<(&str, Place), Failure> {
    encode::split(&part.name).ok_or_else(|| foreign(part))
}

fn foreign(part: &Part) -> Failure {
    Failure::misconfigured(format!("{} is no part of ours", part.name))
}
