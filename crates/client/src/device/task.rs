//! The life of a device's connections: connect, open the session, run it, wait, connect again.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use forebay_model::{DeviceId, MessageId, SessionId};
use tokio::time::timeout;

use super::{
    session::{End, Session},
    shared::Shared,
    spool::SpoolReader,
};
use crate::{
    Connection, ConnectionError, Error,
    connection::{Approach, Welcome},
    observe::add,
};

pub(super) struct Task {
    pub(super) shared: Arc<Shared>,
    pub(super) front: String,
    pub(super) device: DeviceId,
    pub(super) session: SessionId,
    pub(super) spool: Option<SpoolReader>,
    /// The number after the last one given, with a spool.
    pub(super) spool_next: Option<Arc<super::spool::Spool>>,
}

impl Task {
    /// Runs until the device is closed or cannot go on.
    pub(super) async fn run(mut self) {
        let mut failures = 0;
        while !self.shared.is_closing() {
            let wait = match self.connect_and_serve(&mut failures).await {
                End::Closing => break,
                End::Again => Duration::ZERO,
                End::Failed(error) => return self.shared.end(error),
                End::Broken(error) if !error.is_temporary() => {
                    self.tell(&error);
                    return self.shared.end(Error::Refused(Arc::new(error)));
                }
                End::Broken(error) => {
                    self.tell(&error);
                    let wait = self.shared.options.backoff.wait(failures, error.retry_after());
                    failures += 1;
                    wait
                }
            };
            self.rest(wait).await;
        }
        self.shared.end(Error::Closed);
    }

    fn tell(&self, error: &ConnectionError) {
        tracing::debug!(device = %self.device, front = %self.front, %error, "connection ended");
        if let Some(observer) = &self.shared.options.observer {
            observer.disconnected(error);
        }
        self.shared.state().last_failure = Some(error.to_string());
    }

    /// Waits, unless the device is closed meanwhile.
    async fn rest(&self, wait: Duration) {
        let closed = poll_fn(|context| {
            self.shared.task.register(context.waker());
            if self.shared.is_closing() { Poll::Ready(()) } else { Poll::Pending }
        });
        // Either end of the wait is fine.
        let _ = timeout(wait, closed).await;
    }

    async fn connect_and_serve(&mut self, failures: &mut u32) -> End {
        let options = &self.shared.options;
        let by = Approach {
            token: options.token.clone(),
            local_address: options.local_address,
            tls: options.tls.clone(),
        };
        let next = self.shared.state().window.first();
        let next = match MessageId::new(next) {
            Ok(next) => next,
            Err(invalid) => return End::Failed(invalid.into()),
        };
        let opened =
            Connection::open_by(&by, &self.front, &self.device, options.format, self.session, next);
        let connection = match timeout(options.handshake_time_max, opened).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return End::Broken(error),
            Err(_) => return End::Broken(ConnectionError::Timeout),
        };
        *failures = 0;
        if let Err(error) = self.welcomed(connection.welcome()) {
            return End::Failed(error);
        }
        add(&self.shared.counters.connections, 1);
        if let Some(observer) = &self.shared.options.observer {
            observer.connected();
        }
        Session::new(connection, &self.shared, self.spool.as_mut()).run().await
    }

    /// Takes over what the front knows of the session.
    fn welcomed(&mut self, welcome: Welcome) -> Result<(), Error> {
        let mut state = self.shared.state();
        let given = self.spool_next.as_ref().map_or(state.window.next(), |spool| spool.next());
        let acked = welcome.acked.map_or(0, MessageId::get);
        if acked >= given {
            return Err(Error::SessionReused { acked, next_seq: given });
        }
        state.level = Some(welcome.level);
        state.message_bytes_max = welcome.max_message as usize;
        let bytes = state.window.frame_bytes_max();
        if bytes > state.message_bytes_max {
            return Err(Error::TooLarge { bytes, bytes_max: state.message_bytes_max });
        }
        let first = state.window.first();
        let released = state.window.welcome(welcome.acked, welcome.credit);
        let mut none = None;
        let mark = self.spool.as_mut().map_or(&mut none, SpoolReader::mark);
        let now = std::time::Instant::now();
        let (count, done) = self.shared.released(first, released, mark, now);
        if acked >= state.window.next() {
            // Entries of the spool that another run of this device sent: passed over when read.
            state.window.skip_to(acked + 1);
        }
        drop(state);
        self.shared.freed(count, done, self.spool.as_mut())?;
        self.shared.progress.notify_waiters();
        Ok(())
    }
}
