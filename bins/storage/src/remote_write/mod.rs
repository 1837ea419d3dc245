//! VictoriaMetrics, or any other endpoint of Prometheus remote write 1.0, as a sink for numbers.
//!
//! A sample has no number of its own: the same sample again replaces itself, if the store is told
//! to remove duplicates (`-dedup.minScrapeInterval=1ms`). And VictoriaMetrics answers before it has
//! written: so the cursor is held back until the samples are taken to be on disk, and a range is
//! sent again after a death of either side. Text and opaque payloads are no samples and are counted
//! as not applicable. Documented in docs/stores.md.

mod encode;
mod http;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    config,
    rows::Rows,
    sink::{Durability, EncodeError, Encoded, Idempotency, Looking, Outcome, Sending, Sink, Token},
};

use http::{Answer, Endpoint};

/// Longest wait that a server's `Retry-After` is followed for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// What is left out of samples; counters that only grow.
#[derive(Debug, Default)]
pub struct LeftOut {
    /// Rows that hold no number.
    pub not_applicable: AtomicU64,
    /// Samples of one series in the same millisecond as a later one of the same range.
    pub merged: AtomicU64,
}

/// Sends ranges to one endpoint.
pub struct RemoteWriteSink {
    settings: config::RemoteWrite,
    endpoint: Endpoint,
    encoder: encode::Encoder,
    left_out: Arc<LeftOut>,
    /// The server asked to be left alone until then.
    not_before: Option<Instant>,
}

impl RemoteWriteSink {
    /// A sink that connects when it has something to send.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn new(settings: &config::RemoteWrite) -> Result<Self, String> {
        Ok(Self {
            endpoint: Endpoint::new(settings)?,
            encoder: encode::Encoder::new(&settings.prefix, settings.samples),
            settings: settings.clone(),
            left_out: Arc::default(),
            not_before: None,
        })
    }

    /// What was left out so far.
    #[must_use]
    pub fn left_out(&self) -> Arc<LeftOut> {
        self.left_out.clone()
    }

    fn token(&self) -> Result<Option<String>, String> {
        let Some(path) = &self.settings.token_file else { return Ok(None) };
        let token = std::fs::read_to_string(path);
        let token = token.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Ok(Some(token.trim().to_owned()))
    }

    async fn send_parts(&mut self, encoded: &Encoded) -> Outcome {
        if let Some(wait) = self.not_before.and_then(|at| at.checked_duration_since(Instant::now()))
        {
            return Outcome::Transient(format!("remote write: asked to wait {wait:.0?} more"));
        }
        let token = match self.token() {
            Ok(token) => token,
            Err(reason) => return Outcome::Misconfigured(reason),
        };
        for part in &encoded.parts {
            match self.endpoint.post(&part.bytes, token.as_deref()).await {
                Ok(answer) if answer.is_success() => {}
                Ok(answer) => {
                    let wait = answer.retry_after.map(|wait| wait.min(RETRY_AFTER_MAX));
                    self.not_before = wait.map(|wait| Instant::now() + wait);
                    return classify(&answer);
                }
                Err(silence) => return silence.into_outcome(),
            }
        }
        Outcome::Ack
    }
}

/// What an answer other than success means.
fn classify(answer: &Answer) -> Outcome {
    let reason = format!("remote write: {answer}");
    match answer.status {
        408 | 425 | 429 | 500..=599 => Outcome::Transient(reason),
        // VictoriaMetrics says so of a path it does not know, whatever is sent to it.
        400 if answer.body.contains("unsupported path") => Outcome::Misconfigured(reason),
        // What the specification calls invalid samples: malformed, too old, out of order.
        400 | 409 | 422 => Outcome::Poison(reason),
        // Credentials, path, a limit of body size, a redirect: the same for all samples.
        _ => Outcome::Misconfigured(reason),
    }
}

impl Sink for RemoteWriteSink {
    fn encode(&mut self, rows: &Rows) -> Result<Encoded, EncodeError> {
        let (encoded, counts) =
            self.encoder.encode(rows).map_err(|error| EncodeError(error.to_string()))?;
        self.left_out.not_applicable.fetch_add(counts.not_applicable, Ordering::Relaxed);
        self.left_out.merged.fetch_add(counts.merged, Ordering::Relaxed);
        Ok(encoded)
    }

    fn send<'a>(&'a mut self, encoded: &'a Encoded, _: &'a Token) -> Sending<'a> {
        Box::pin(self.send_parts(encoded))
    }

    fn durability(&self) -> Durability {
        let hold: Duration = self.settings.hold_back.into();
        if hold.is_zero() { Durability::OnAck } else { Durability::After(hold) }
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::Key
    }

    fn life(&mut self) -> Looking<'_> {
        Box::pin(async {
            // Without it the endpoint refuses, and is asked again.
            let token = self.token().ok().flatten();
            let may_ask = self.not_before.is_none_or(|at| at <= Instant::now());
            self.endpoint.life(token.as_deref(), may_ask).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_classified_by_who_can_mend_it() {
        let outcome = |status| {
            let answer = Answer { status, retry_after: None, body: "why".to_owned() };
            classify(&answer)
        };
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(matches!(outcome(status), Outcome::Transient(_)), "{status}");
        }
        for status in [301, 401, 403, 404, 405, 413, 415] {
            assert!(matches!(outcome(status), Outcome::Misconfigured(_)), "{status}");
        }
        let elsewhere = "unsupported path requested: \"/nope\"".to_owned();
        let elsewhere = Answer { status: 400, retry_after: None, body: elsewhere };
        assert!(matches!(classify(&elsewhere), Outcome::Misconfigured(_)));
        assert_eq!(outcome(400), Outcome::Poison("remote write: 400: why".to_owned()));
    }
}
