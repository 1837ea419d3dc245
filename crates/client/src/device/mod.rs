//! A device: numbers messages, keeps them until they are acked, and sees that they arrive.

mod session;
mod shared;
mod spool;
mod task;
mod window;

use std::{
    future::poll_fn,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use forebay_model::{Body, DeviceId, MessageId, SAFE_INTEGER_MAX, SessionId};
use forebay_wire::device::{ClientFrame, Level};
use tokio::task::JoinHandle;

use crate::{ConnectionError, Error, Options, Rejection, Statistics, connection::address};

use shared::Shared;
use spool::Spool;
use task::Task;

/// How long `close` waits for the connection task to say goodbye.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(3);

/// One device and its session with a front.
///
/// A task of its own holds the connection: it connects, opens the session, sends, takes acks, and
/// after a failure connects again and sends what was not acked. `send` only hands over. Dropping
/// the device ends the connection; what is unacked is then lost unless there is a spool.
///
/// ```no_run
/// # async fn example() -> Result<(), forebay_client::Error> {
/// use forebay_client::{Device, Options};
/// use forebay_model::{Body, Reading, Value};
///
/// let device = Device::connect("ws://127.0.0.1:7400", "pump-7", Options::default()).await?;
/// let reading = Reading { key: "temperature".into(), value: Value::Float(21.5), unit: None, time: None };
/// device.send(Body::Readings(vec![reading])).await?;
/// device.flush().await?; // on the front's disk now
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Device {
    shared: Arc<Shared>,
    session: SessionId,
    spool: Option<Arc<Spool>>,
    task: JoinHandle<()>,
}

impl Device {
    /// Connects to a front (`ws://host:port`, `wss://host:port`) and returns once the session is open.
    ///
    /// Tries again until [`Options::connect_time_max`] has passed.
    ///
    /// # Errors
    /// [`Error::Unreachable`]: not in time. [`Error::Refused`], [`Error::SessionReused`],
    /// [`Error::Spool`]: trying again would not help. Also as [`Self::start`].
    pub async fn connect(front: &str, device: &str, options: Options) -> Result<Self, Error> {
        let waited = options.connect_time_max;
        let device = Self::start(front, device, options).await?;
        let welcomed = device.shared.wait(|state| match &state.ended {
            Some(error) => Some(Err(error.clone())),
            None => state.level.map(|_| Ok(())),
        });
        match tokio::time::timeout(waited, welcomed).await {
            Ok(result) => result.map(|()| device),
            Err(_) => {
                let last = device.shared.state().last_failure.take();
                let last = last.unwrap_or_else(|| "none yet".to_owned());
                Err(Error::Unreachable { waited, last })
            }
        }
    }

    /// Starts a device that connects in the background: messages are taken at once.
    ///
    /// # Errors
    /// [`Error::Invalid`]: not a device id. [`Error::Refused`]: not an address.
    /// [`Error::Spool`]: the spool cannot be opened.
    pub async fn start(front: &str, device: &str, mut options: Options) -> Result<Self, Error> {
        let device = DeviceId::new(device)?;
        if address(front).is_none() {
            let url = front.to_owned();
            return Err(Error::Refused(Arc::new(ConnectionError::Url { url })));
        }
        let drawn = SessionId::new(rand::random_range(0..=SAFE_INTEGER_MAX))?;
        let mut session = options.session.unwrap_or(drawn);
        let mut first = options.next_seq;
        let (mut spool, mut reader) = (None, None);
        if let Some(place) = options.spool.take() {
            let format = options.format;
            let opening = move || spool::open(&place, format, session, first);
            let opened = match tokio::task::spawn_blocking(opening).await {
                Ok(opened) => opened?,
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            };
            (session, first) = (opened.session, opened.first);
            spool = Some(Arc::new(opened.spool));
            reader = Some(opened.reader);
        }
        let shared = Arc::new(Shared::new(options, first));
        let task = Task {
            shared: Arc::clone(&shared),
            front: front.to_owned(),
            device,
            session,
            spool: reader,
            spool_next: spool.clone(),
        };
        Ok(Self { shared, session, spool, task: tokio::spawn(task.run()) })
    }

    /// Takes a message and returns its number; waits while the window, or the spool, is full.
    ///
    /// On return it is kept until it is acked: in memory, or with a spool on the device's disk. It
    /// is safe at the front's [`Self::level`] once [`Self::acked`] has reached its number.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::TooLarge`]: the message got no number. Any other: the device
    /// has ended.
    pub async fn send(&self, body: Body<'_>) -> Result<MessageId, Error> {
        body.validate()?;
        match &self.spool {
            Some(spool) => self.send_by_spool(spool, &body).await,
            None => self.send_by_memory(body).await,
        }
    }

    async fn send_by_memory(&self, body: Body<'_>) -> Result<MessageId, Error> {
        let place = match self.shared.room.try_acquire() {
            Ok(place) => place,
            Err(_) => match self.shared.room.acquire().await {
                Ok(place) => place,
                Err(_) => return Err(self.ended()),
            },
        };
        let mut state = self.shared.state();
        if let Some(error) = &state.ended {
            return Err(error.clone());
        }
        let seq = MessageId::new(state.window.next())?;
        let mut frame = Vec::with_capacity(512);
        ClientFrame::Data { seq, body }.encode(self.shared.options.format, &mut frame);
        if frame.len() > state.message_bytes_max {
            let bytes_max = state.message_bytes_max;
            return Err(Error::TooLarge { bytes: frame.len(), bytes_max });
        }
        state.window.push(Bytes::copy_from_slice(&frame), Instant::now(), None);
        drop(state);
        // Given back when the message is acked.
        place.forget();
        self.shared.task.wake();
        Ok(seq)
    }

    async fn send_by_spool(&self, spool: &Spool, body: &Body<'_>) -> Result<MessageId, Error> {
        let (seq, entry) = self
            .shared
            .wait(|state| {
                if let Some(error) = &state.ended {
                    return Some(Err(error.clone()));
                }
                spool.append(body, state.message_bytes_max).transpose()
            })
            .await?;
        poll_fn(|context| match spool.queue.poll_durable(entry, context.waker()) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(Err(Error::from(error))),
        })
        .await?;
        Ok(seq)
    }

    /// Waits until every message taken so far is acked, or rejected.
    ///
    /// # Errors
    /// The device has ended before.
    pub async fn flush(&self) -> Result<(), Error> {
        let next = self.next_seq();
        self.shared
            .wait(|state| match &state.ended {
                _ if state.window.first() >= next => Some(Ok(())),
                Some(error) => Some(Err(error.clone())),
                None => None,
            })
            .await
    }

    /// Ends the connection and returns how many messages were not acked.
    ///
    /// Without a spool they are gone: [`Self::flush`] first.
    pub async fn close(mut self) -> u64 {
        self.shared.close();
        if tokio::time::timeout(CLOSE_TIME_MAX, &mut self.task).await.is_err() {
            self.task.abort();
        }
        self.next_seq() - self.shared.state().window.first()
    }

    /// The number of the session; keep it, with [`Self::next_seq`], to go on after a restart.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The number the next message gets.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        match &self.spool {
            Some(spool) => spool.next(),
            None => self.shared.state().window.next(),
        }
    }

    /// The highest number up to which all messages are acked; 0 before the first.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.shared.state().window.first() - 1
    }

    /// What an ack promises, once a session was open.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        self.shared.state().level
    }

    /// Takes the messages that were refused for good since the last call, at most 1,024.
    #[must_use]
    pub fn rejections(&self) -> Vec<Rejection> {
        self.shared.state().rejections.drain(..).collect()
    }

    /// Counts of what was sent, sent again, acked and refused.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.shared.counters.read()
    }

    fn ended(&self) -> Error {
        self.shared.state().ended.clone().unwrap_or(Error::Closed)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.shared.close();
    }
}
