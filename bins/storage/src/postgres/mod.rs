//! PostgreSQL as a sink: rows and cursor in one transaction, so each row is there exactly once.
//!
//! The table of rows has no unique index, which would cost three quarters of the pace. What makes a
//! replay harmless is a row of `cursors` for each (queue, consumer): it is locked, read, and moved
//! in the transaction that copies the rows. Rows at or below it are there already and are left
//! out. So it does not matter how a replay cuts its ranges, or how many processes send the same:
//! the lock lets them in one after the other, and the later find nothing left to do.
//!
//! | file | holds |
//! | --- | --- |
//! | `schema` | tables, their migrations, and the partitions that rows fall into |
//! | `encode` | rows in the binary form of COPY |
//! | `connection` | a connection, and the transaction |
//! | `dial` | how a server is reached: URL, password, TLS |
//! | `registry` | the device registry from a table, no part of the sink |
//! | `classify` | what an error means to the sink |
//!
//! Documented, with the questions to ask it, in docs/stores.md.

mod classify;
mod connection;
mod dial;
mod encode;
mod registry;
mod schema;

use std::time::Duration;

use crate::{
    config,
    rows::Rows,
    sink::{Durability, EncodeError, Encoded, Idempotency, Outcome, Sending, Sink, Token},
};

pub(crate) use dial::Address;
pub(crate) use registry::{RegistryFollower, registry_once};

use classify::Failure;
use connection::Connection;

pub use encode::COLUMNS;

/// Longest time to get a connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// Writes ranges into the tables of one database.
pub struct PostgresSink {
    settings: config::Postgres,
    connection: Option<Connection>,
}

impl PostgresSink {
    /// A sink that connects when it has something to send.
    #[must_use]
    pub fn new(settings: &config::Postgres) -> Self {
        Self { settings: settings.clone(), connection: None }
    }

    async fn store(&mut self, encoded: &Encoded, token: &Token) -> Result<(), Failure> {
        let limit: Duration = self.settings.timeout.into();
        // A connection that was idle may be dead without our knowing: then once more, on a new one.
        let idle = self.connection.take().filter(|connection| !connection.is_closed());
        if let Some(mut connection) = idle {
            match within(limit, connection.store(encoded, token)).await {
                Err(failure) if failure.is_connection() => connection.close().await,
                Err(failure) => {
                    connection.close().await;
                    return Err(failure);
                }
                Ok(()) => {
                    self.connection = Some(connection);
                    return Ok(());
                }
            }
        }
        let connecting = Connection::open(&self.settings);
        let mut connection = within(CONNECT_TIME_MAX.min(limit), connecting).await?;
        let stored = within(limit, connection.store(encoded, token)).await;
        match stored {
            Ok(()) => self.connection = Some(connection),
            // Nothing of a transaction that failed may linger: its lock would be in the way.
            Err(_) => connection.close().await,
        }
        stored
    }
}

/// A server that hangs is a server that is away.
async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(_) => {
            // Its connection is closed now, not only when there is something to send again.
            tokio::task::yield_now().await;
            Err(Failure::transient(format!("no answer within {limit:?}")))
        }
    }
}

impl Sink for PostgresSink {
    fn encode(&mut self, rows: &Rows) -> Result<Encoded, EncodeError> {
        Ok(encode::encode(rows))
    }

    fn send<'a>(&'a mut self, encoded: &'a Encoded, token: &'a Token) -> Sending<'a> {
        Box::pin(async move {
            match self.store(encoded, token).await {
                Ok(()) => Outcome::Ack,
                Err(failure) => failure.into_outcome(),
            }
        })
    }

    fn durability(&self) -> Durability {
        Durability::OnAck
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::Key
    }
}
