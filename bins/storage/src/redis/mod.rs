//! Redis or Valkey as a sink for last values: one hash a device, one field a key.
//!
//! A value replaces another only if it is newer by (time, seq, index, session), as everywhere in
//! this tier. A script compares and sets within the server, so that no order of arrival, no replay
//! and no second process makes a value go back. Rows without a key, opaque payloads, have no last
//! value and are counted as not applicable. Keys and values are documented in docs/stores.md.

mod connection;
mod encode;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    config,
    rows::Rows,
    sink::{Durability, EncodeError, Encoded, Idempotency, Looking, Outcome, Sending, Sink, Token},
};

use connection::Connection;

/// A server that takes longer to say that it is there is taken to have died: values that it is sent
/// once more change nothing.
const PING_TIME_MAX: Duration = Duration::from_secs(1);

/// Keeps the last values of ranges at one server.
pub struct RedisSink {
    settings: config::Redis,
    connection: Option<Connection>,
    /// Connections made so far.
    made: u64,
    not_applicable: Arc<AtomicU64>,
}

impl RedisSink {
    /// A sink that connects when it has something to send.
    #[must_use]
    pub fn new(settings: &config::Redis) -> Self {
        let settings = settings.clone();
        Self { settings, connection: None, made: 0, not_applicable: Arc::default() }
    }

    /// Rows that have no key, so far.
    #[must_use]
    pub fn not_applicable(&self) -> Arc<AtomicU64> {
        self.not_applicable.clone()
    }

    async fn store(&mut self, encoded: &Encoded) -> Outcome {
        // A connection that was idle may be dead without our knowing: then once more, on a new one.
        if let Some(mut connection) = self.connection.take() {
            match connection.store(encoded).await {
                Ok(()) => {
                    self.connection = Some(connection);
                    return Outcome::Ack;
                }
                Err(error) if error.is_connection() => {}
                Err(error) => return error.into_outcome(),
            }
        }
        let mut connection = match Connection::open(&self.settings).await {
            Ok(connection) => connection,
            Err(failure) => return failure.into_outcome(),
        };
        self.made += 1;
        match connection.store(encoded).await {
            Ok(()) => {
                self.connection = Some(connection);
                Outcome::Ack
            }
            Err(failure) => failure.into_outcome(),
        }
    }
}

impl Sink for RedisSink {
    fn encode(&mut self, rows: &Rows) -> Result<Encoded, EncodeError> {
        let (encoded, not_applicable) = encode::encode(rows, &self.settings.prefix)
            .map_err(|error| EncodeError(error.to_string()))?;
        self.not_applicable.fetch_add(not_applicable, Ordering::Relaxed);
        Ok(encoded)
    }

    fn send<'a>(&'a mut self, encoded: &'a Encoded, _: &'a Token) -> Sending<'a> {
        Box::pin(self.store(encoded))
    }

    fn durability(&self) -> Durability {
        let hold: Duration = self.settings.hold_back.into();
        if hold.is_zero() { Durability::OnAck } else { Durability::After(hold) }
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::LastWriteWins
    }

    fn life(&mut self) -> Looking<'_> {
        Box::pin(async {
            if let Some(connection) = &mut self.connection {
                let answer = tokio::time::timeout(PING_TIME_MAX, connection.ping()).await;
                match answer {
                    Ok(Ok(())) => {}
                    // Whoever may not ask is told so by a server that is there.
                    Ok(Err(failure)) if failure.is_refusal() => {}
                    _ => self.connection = None,
                }
            }
            // One for each connection that broke.
            self.made - u64::from(self.connection.is_some())
        })
    }
}
