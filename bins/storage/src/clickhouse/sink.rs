//! ClickHouse as a sink: makes its tables, announces a range, sends its block under its token.

use std::sync::Arc;

use super::{
    LedgerConsumer,
    client::{Store, outcome},
    encode,
    ledger::{self, Ledger},
    migrate,
};
use crate::{
    config::Clickhouse,
    feed::Consumer,
    rows::Rows,
    sink::{Durability, EncodeError, Encoded, Idempotency, Outcome, Part, Sending, Sink, Token},
};

/// Writes ranges into the tables of one server.
pub struct ClickhouseSink {
    settings: Clickhouse,
    ledger: Arc<Ledger>,
    /// A connection to tables that are as they must be; made anew after every refusal.
    store: Option<Store>,
}

/// A consumer that knows what the store was told already, and the sink that tells it.
#[must_use]
pub fn consumer_and_sink<C: Consumer>(
    consumer: Arc<C>,
    settings: &Clickhouse,
) -> (Arc<LedgerConsumer<C>>, ClickhouseSink) {
    let ledger = Arc::new(Ledger::default());
    let consumer = LedgerConsumer::new(consumer, settings.clone(), ledger.clone());
    (Arc::new(consumer), ClickhouseSink { ledger, ..ClickhouseSink::alone(settings) })
}

impl ClickhouseSink {
    /// A sink without a consumer: it passes over nothing.
    #[must_use]
    pub fn alone(settings: &Clickhouse) -> Self {
        Self { settings: settings.clone(), ledger: Arc::default(), store: None }
    }

    async fn try_send(&mut self, encoded: &Encoded, token: &Token) -> Result<(), Outcome> {
        // A letter is sent again long after its range, and the ledger says nothing of it.
        let letter = token.piece.is_some_and(|piece| piece.letter);
        if let Some((first, _)) = self.ledger.found(token.queue)
            && token.last < first
            && !letter
        {
            return Ok(());
        }
        if self.store.is_none() {
            let store = Store::new(&self.settings)?;
            migrate::ensure(&store).await?;
            self.store = Some(store);
        }
        let Some(store) = &self.store else { return Ok(()) };
        // Pieces lie within a range that was announced whole.
        if token.piece.is_none() {
            ledger::announce(store, token).await?;
        }
        let name = token.to_string();
        #[cfg(feature = "planted-faults")]
        let name = super::planted::token(name);
        for part in &encoded.parts {
            store.insert(&part.bytes, &name).await.map_err(outcome)?;
        }
        Ok(())
    }
}

impl Sink for ClickhouseSink {
    fn encode(&mut self, rows: &Rows) -> Result<Encoded, EncodeError> {
        let part =
            Part { name: "readings".to_owned(), bytes: encode(rows), rows: rows.len() as u64 };
        Ok(Encoded { parts: vec![part], left_out: 0 })
    }

    fn send<'a>(&'a mut self, encoded: &'a Encoded, token: &'a Token) -> Sending<'a> {
        Box::pin(async move {
            match self.try_send(encoded, token).await {
                Ok(()) => Outcome::Ack,
                Err(refusal) => {
                    // A password may have been changed, a table dropped: look again next time.
                    if matches!(refusal, Outcome::Misconfigured(_)) {
                        self.store = None;
                    }
                    refusal
                }
            }
        })
    }

    fn durability(&self) -> Durability {
        Durability::OnAck
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::Token
    }
}
