//! A reader of the live feed that comes back: after a lost connection it goes on behind the last
//! event it has handed out, and what nobody can give it any more is told as missed.
//!
//! A task holds the connection and hands frames over through a bounded channel. A slow caller fills
//! it; the task then stops reading, the server's buffer for this reader fills, and the server says
//! by `missed` what it left out. Memory is bounded on both sides, and nothing is lost in silence.

use std::{collections::BTreeMap, sync::Arc, task::Poll, time::Duration};

use forebay_wire::{
    QueueId, Seq,
    device::{CloseCode, Token},
    live::{ClientFrame, Event, Missed, Mode, Position, ServerFrame, Snapshot, Subscription},
};
use futures_util::{SinkExt as _, Stream, StreamExt as _};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Message, client::IntoClientRequest as _, protocol::WebSocketConfig},
};

use crate::{
    Backoff, ConnectionError, Error,
    connection::{Address, Approach, address, incoming},
    tls::{Stream as Transport, Tls},
};

/// Frames read ahead of the caller.
const AHEAD: usize = 256;
/// A feed has larger frames than a device's answers, and many of them in one read.
const READ_BUFFER_BYTES: usize = 4096;
/// A part of a snapshot has at most 512 values; texts in them may be long.
const FRAME_BYTES_MAX: usize = 64 << 20;
/// Silence after which a ping is sent; twice as much is the end of the connection.
const SILENCE: Duration = forebay_wire::limits::PING_INTERVAL;
/// Errors that another try does not mend.
const FINAL_ERRORS: [&str; 2] = ["bad_subscription", "forbidden"];

/// What a reader gets.
#[derive(Debug, Clone, PartialEq)]
pub enum LiveItem {
    /// A part of the last values. Comes after a reconnect, too, in the mode that conflates.
    Snapshot(Snapshot<'static>),
    /// A message.
    Event(Box<Event<'static>>),
    /// Events that this reader does not get, in the place where they would have been.
    Missed(Missed),
}

/// How a reader connects.
#[derive(Debug, Clone)]
pub struct LiveOptions {
    /// A credential, sent as `Authorization: Bearer`.
    pub token: Option<Token<'static>>,
    /// TLS for `wss://`; none trusts whom the system trusts.
    pub tls: Option<Tls>,
    /// How long [`Live::connect`] tries before it gives up.
    pub connect_time_max: Duration,
    /// From the first packet of a connection to `subscribed`.
    pub handshake_time_max: Duration,
    /// Waits between connections.
    pub backoff: Backoff,
}

impl Default for LiveOptions {
    fn default() -> Self {
        Self {
            token: None,
            tls: None,
            connect_time_max: Duration::from_secs(10),
            handshake_time_max: Duration::from_secs(5),
            backoff: Backoff::default(),
        }
    }
}

/// A subscription that lasts over connections; also a [`Stream`].
///
/// ```no_run
/// # async fn example() -> Result<(), forebay_client::Error> {
/// use forebay_client::{Live, LiveItem, LiveOptions};
/// use forebay_wire::live::Subscription;
///
/// let subscription = Subscription { prefix: Some("pump-".into()), ..Subscription::default() };
/// let mut live = Live::connect("ws://127.0.0.1:7420", subscription, LiveOptions::default()).await?;
/// while let Some(item) = live.next().await {
///     match item? {
///         LiveItem::Event(event) => println!("{} {:?}", event.device, event.readings),
///         LiveItem::Missed(missed) => println!("missed {:?} events", missed.count),
///         LiveItem::Snapshot(_) => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Live {
    items: mpsc::Receiver<Result<LiveItem, Error>>,
    task: JoinHandle<()>,
}

impl Live {
    /// Connects to a storage tier (`ws://host:port`, `wss://host:port`) and returns once the subscription is taken.
    ///
    /// # Errors
    /// [`Error::Subscription`]: mend it. [`Error::Unreachable`]: not in the time given.
    /// [`Error::Refused`]: trying again would not help.
    pub async fn connect(
        storage: &str,
        subscription: Subscription,
        options: LiveOptions,
    ) -> Result<Self, Error> {
        let Some(address) = address(storage) else {
            let url = storage.to_owned();
            return Err(Error::Refused(Arc::new(ConnectionError::Url { url })));
        };
        let (out, items) = mpsc::channel(AHEAD);
        let waited = options.connect_time_max;
        let positions = positions(&subscription);
        let mut feed = Feed { address, subscription, positions, options, out, seen: false };
        let mut last = "none yet".to_owned();
        let first = async {
            let mut failures = 0;
            loop {
                match feed.subscribe().await {
                    Ok(socket) => return Ok(socket),
                    Err(Left::Final(error)) => return Err(error),
                    Err(Left::Broken(error)) => {
                        last = error.to_string();
                        let wait = feed.options.backoff.wait(failures, error.retry_after());
                        failures += 1;
                        tokio::time::sleep(wait).await;
                    }
                }
            }
        };
        let socket = match timeout(waited, first).await {
            Ok(socket) => socket?,
            Err(_) => return Err(Error::Unreachable { waited, last }),
        };
        Ok(Self { items, task: tokio::spawn(feed.run(socket)) })
    }

    /// The next item; `None` after an error. May be dropped and called again without losing any.
    pub async fn next(&mut self) -> Option<Result<LiveItem, Error>> {
        self.items.recv().await
    }
}

impl Stream for Live {
    type Item = Result<LiveItem, Error>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        self.items.poll_recv(context)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Socket = WebSocketStream<Transport>;

/// Why a connection was left.
enum Left {
    Broken(ConnectionError),
    Final(Error),
}

impl From<ConnectionError> for Left {
    fn from(error: ConnectionError) -> Self {
        if error.is_temporary() {
            Self::Broken(error)
        } else {
            Self::Final(Error::Refused(Arc::new(error)))
        }
    }
}

fn positions(subscription: &Subscription) -> BTreeMap<QueueId, Seq> {
    subscription.from.iter().map(|position| (position.queue, position.seq)).collect()
}

struct Feed {
    address: Address,
    subscription: Subscription,
    /// The last event of each queue that was handed out.
    positions: BTreeMap<QueueId, Seq>,
    options: LiveOptions,
    out: mpsc::Sender<Result<LiveItem, Error>>,
    /// Whether anything was handed out or a snapshot completed: then a new connection resumes.
    seen: bool,
}

impl Feed {
    async fn run(mut self, socket: Socket) {
        let mut socket = Some(socket);
        let mut failures = 0;
        loop {
            let left = match socket.take() {
                Some(socket) => {
                    failures = 0;
                    self.follow(socket).await
                }
                None => match self.subscribe().await {
                    Ok(opened) => {
                        socket = Some(opened);
                        continue;
                    }
                    Err(left) => Some(left),
                },
            };
            match left {
                // Nobody listens any more.
                None => return,
                Some(Left::Final(error)) => {
                    // The caller may have gone; then nobody needs to know.
                    let _ = self.out.send(Err(error)).await;
                    return;
                }
                Some(Left::Broken(error)) => {
                    tracing::debug!(server = %self.address.authority, %error, "live connection ended");
                    let wait = self.options.backoff.wait(failures, error.retry_after());
                    failures += 1;
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// What to ask for now: at first what the caller asked for, later what continues it.
    fn request(&self) -> Subscription {
        let mut subscription = self.subscription.clone();
        if self.seen {
            // Conflated events do not come in the order of the feed: no position stands for all
            // before it, but the last values do.
            let latest = subscription.mode == Mode::Latest;
            subscription.snapshot = latest;
            let last =
                self.positions.iter().map(|(queue, seq)| Position { queue: *queue, seq: *seq });
            subscription.from = if latest { Vec::new() } else { last.collect() };
        }
        subscription
    }

    /// Connects and subscribes.
    async fn subscribe(&mut self) -> Result<Socket, Left> {
        let limit = self.options.handshake_time_max;
        match timeout(limit, self.open()).await {
            Ok(opened) => opened,
            Err(_) => Err(Left::Broken(ConnectionError::Timeout)),
        }
    }

    async fn open(&mut self) -> Result<Socket, Left> {
        let by = Approach {
            token: self.options.token.clone(),
            local_address: None,
            tls: self.options.tls.clone(),
        };
        let url = self.address.url(forebay_wire::live::PATH);
        let mut request = url
            .as_str()
            .into_client_request()
            .map_err(|_| ConnectionError::Url { url: url.clone() })?;
        by.authorize(&mut request)?;
        let stream = by.connect(&self.address).await?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(READ_BUFFER_BYTES)
            .max_write_buffer_size(1 << 20)
            .max_message_size(Some(FRAME_BYTES_MAX))
            .max_frame_size(Some(FRAME_BYTES_MAX));
        let opened = client_async_with_config(request, stream, Some(config)).await;
        let (mut socket, _) = opened.map_err(ConnectionError::from)?;
        let frame = ClientFrame::Subscribe(self.request()).encode();
        socket.send(Message::text(frame)).await.map_err(ConnectionError::from)?;
        loop {
            match decode(&incoming(socket.next().await)?)? {
                None => {}
                Some(ServerFrame::Subscribed(subscribed)) => {
                    if !self.seen {
                        self.moved(&subscribed.from);
                        // Without a snapshot to come, what is later than this is all there is.
                        self.seen = !self.subscription.snapshot;
                    }
                    return Ok(socket);
                }
                Some(ServerFrame::Error { code, reason }) => {
                    return Err(refused(&code, &reason));
                }
                Some(other) => {
                    let words = format!("expected subscribed, found {other:?}");
                    return Err(ConnectionError::Protocol(words).into());
                }
            }
        }
    }

    fn moved(&mut self, positions: &[Position]) {
        for position in positions {
            let last = self.positions.entry(position.queue).or_default();
            *last = (*last).max(position.seq);
        }
    }

    /// Hands out what comes until the connection ends; `None` once nobody listens.
    async fn follow(&mut self, mut socket: Socket) -> Option<Left> {
        let mut pinged = false;
        loop {
            let next = tokio::select! {
                biased;
                () = self.out.closed() => None,
                next = timeout(SILENCE, socket.next()) => Some(next),
            };
            let Some(next) = next else {
                let _ = timeout(Duration::from_secs(1), socket.close(None)).await;
                return None;
            };
            let message = match next {
                Ok(next) => match incoming(next) {
                    Ok(message) => message,
                    Err(error) => return Some(error.into()),
                },
                Err(_) if pinged => return Some(Left::Broken(ConnectionError::Timeout)),
                Err(_) => {
                    let ping = socket.send(Message::Ping(Vec::new().into()));
                    match timeout(SILENCE, ping).await {
                        Ok(Ok(())) => pinged = true,
                        Ok(Err(error)) => return Some(ConnectionError::from(error).into()),
                        Err(_) => return Some(Left::Broken(ConnectionError::Timeout)),
                    }
                    continue;
                }
            };
            pinged = false;
            let frame = match decode(&message) {
                Ok(Some(frame)) => frame,
                Ok(None) => continue,
                Err(error) => return Some(error.into()),
            };
            if let Err(left) = self.hand_out(frame).await {
                return left;
            }
        }
    }

    /// Hands one frame out, then notes how far the caller has come.
    async fn hand_out(&mut self, frame: ServerFrame<'static>) -> Result<(), Option<Left>> {
        let (item, at) = match frame {
            ServerFrame::Subscribed(_) => return Ok(()),
            ServerFrame::Error { code, reason } => return Err(Some(refused(&code, &reason))),
            ServerFrame::Event(event) => {
                let at = vec![event.at];
                (LiveItem::Event(Box::new(event)), at)
            }
            ServerFrame::Missed(missed) => (LiveItem::Missed(missed), Vec::from_iter(missed.to)),
            ServerFrame::Snapshot(snapshot) => {
                let at = if snapshot.done { snapshot.at.clone() } else { Vec::new() };
                self.seen |= snapshot.done;
                (LiveItem::Snapshot(snapshot), at)
            }
        };
        self.out.send(Ok(item)).await.map_err(|_| None)?;
        self.moved(&at);
        Ok(())
    }
}

fn refused(code: &str, reason: &str) -> Left {
    if FINAL_ERRORS.contains(&code) {
        let (code, reason) = (code.to_owned(), reason.to_owned());
        return Left::Final(Error::Subscription { code, reason });
    }
    let code_number = CloseCode::TryAgainLater.number();
    Left::Broken(ConnectionError::Closed { code: code_number, reason: format!("{code}: {reason}") })
}

/// The frame in a message; pings and pongs hold none.
fn decode(message: &Message) -> Result<Option<ServerFrame<'static>>, ConnectionError> {
    match message {
        Message::Text(text) => {
            ServerFrame::decode(text).map(Some).map_err(ConnectionError::Protocol)
        }
        _ => Ok(None),
    }
}
