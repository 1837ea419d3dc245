//! A front in a directory of its own, devices that speak to it over real sockets, and what its ring
//! holds afterwards.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod credentials;
pub mod middle;
pub mod plain;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use forebay_front::{Config, Running};
use forebay_model::{Body, MessageId, Reading, SessionId, Value};
use forebay_ops::{ByteSize, Shutdown};
use forebay_queue::{Options, Queue};
use forebay_wire::{
    device::{ClientFrame, Format, Level, ServerFrame},
    entry,
};
use futures_util::{SinkExt as _, StreamExt as _};
use prometheus::Registry;
use tempfile::TempDir;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message, client::IntoClientRequest as _},
};

/// Longest wait for anything: far above what is needed on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running front and its directory.
pub struct Front {
    pub dir: TempDir,
    pub config: Config,
    pub registry: Registry,
    pub shutdown: Shutdown,
    pub running: Running,
}

/// One entry of the ring, decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    pub tenant: String,
    pub device: String,
    pub session: u64,
    pub seq: u64,
    pub rejected_before: u32,
    pub body: Body<'static>,
}

impl Front {
    /// A front with small limits and no middle.
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// As [`Self::start`], with changes.
    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self::in_dir(dir, change)
    }

    /// As [`Self::with`], on what another front has left.
    pub fn in_dir(dir: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.listen.address = "127.0.0.1:0".parse().expect("an address");
        config.listen.cores = Some(2);
        config.admin.address = "127.0.0.1:0".parse().expect("an address");
        config.queue.dir = dir.path().join("front");
        config.queue.capacity = ByteSize::mib(4);
        config.queue.any_filesystem = true;
        // Nobody is there; a test that needs a middle names it.
        config.uplink.middle = format!("ipc://{}", dir.path().join("nobody").display());
        change(&mut config);
        let (registry, shutdown) = (Registry::new(), Shutdown::new());
        let running = forebay_front::start(config.clone(), &registry, &shutdown).expect("a front");
        Self { dir, config, registry, shutdown, running }
    }

    /// A connection that has said hello for session 1, from message 1 on.
    pub async fn device(&self, name: &str, format: Format) -> Device {
        let mut device = self.connect(name, Some(format)).await;
        device.hello(1, 1).await;
        device
    }

    /// A connection of which only the handshake is done.
    pub async fn connect(&self, name: &str, format: Option<Format>) -> Device {
        self.try_connect(name, format).await.expect("a handshake")
    }

    /// Tries a handshake.
    pub async fn try_connect(
        &self,
        name: &str,
        format: Option<Format>,
    ) -> Result<Device, tungstenite::Error> {
        Device::connect(self.running.addresses().ingest, name, format).await
    }

    /// The state of the only ring.
    pub fn stat(&self) -> forebay_queue::Stat {
        self.running.queues().remove(0).1
    }

    /// The value of a metric, summed over its children that have all of `labels`.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families = self.registry.gather();
        let Some(family) = families.iter().find(|family| family.name() == name) else {
            return 0.0;
        };
        let matches = |metric: &&prometheus::proto::Metric| {
            labels.iter().all(|(key, value)| {
                let pairs = metric.get_label();
                pairs.iter().any(|pair| pair.name() == *key && pair.value() == *value)
            })
        };
        let value = |metric: &prometheus::proto::Metric| {
            metric.get_counter().get_value()
                + metric.get_gauge().get_value()
                + metric.get_histogram().get_sample_count() as f64
        };
        family.get_metric().iter().filter(matches).map(value).sum()
    }

    /// Ends the front at once and returns what its ring holds.
    pub fn end(self) -> Vec<Stored> {
        self.running.stop();
        stored(&self.config)
    }
}

/// What the ring of a front that has ended holds, in order.
pub fn stored(config: &Config) -> Vec<Stored> {
    let options = Options { any_filesystem: true, ..Options::default() };
    let queue = Queue::open(config.queue.dir.join("uplink-0"), &options).expect("the ring");
    let mut reader = queue.reader("test").expect("a reader");
    let mut all = Vec::new();
    loop {
        let batch = reader.peek(1000, 1 << 20).expect("a batch");
        if batch.is_empty() {
            return all;
        }
        all.extend(batch.iter().map(|entry| {
            let message = entry::decode(entry.payload).expect("an entry");
            Stored {
                tenant: message.tenant.into_owned(),
                device: message.device.into_owned(),
                session: message.session.get(),
                seq: message.seq.get(),
                rejected_before: message.rejected_before,
                body: owned(message.body),
            }
        }));
        batch.advance();
    }
}

/// The same body, owning its text.
pub fn owned(body: Body<'_>) -> Body<'static> {
    match body {
        Body::Readings(readings) => {
            Body::Readings(readings.into_iter().map(Reading::into_owned).collect())
        }
        Body::Opaque { content_type, payload } => Body::Opaque {
            content_type: content_type.into_owned().into(),
            payload: payload.into_owned().into(),
        },
    }
}

/// The seqs of a device in the order of the ring.
pub fn seqs(stored: &[Stored], device: &str) -> Vec<u64> {
    stored.iter().filter(|entry| entry.device == device).map(|entry| entry.seq).collect()
}

/// The body of message `seq` in most tests.
pub fn body(seq: u64) -> Body<'static> {
    let value = Value::Int(i64::try_from(seq).expect("small"));
    Body::Readings(vec![Reading { key: "n".into(), value, unit: None, time: None }])
}

/// A body of about `bytes`.
pub fn large(bytes: usize) -> Body<'static> {
    Body::Opaque { content_type: "application/x-test".into(), payload: vec![7; bytes].into() }
}

/// What comes from the front.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Frame(ServerFrame<'static>),
    Close(u16, String),
    End,
}

/// One connection of a device.
pub struct Device {
    pub socket: WebSocketStream<TcpStream>,
    pub format: Option<Format>,
}

impl Device {
    /// Tries a handshake with the front at `address`.
    pub async fn connect(
        address: SocketAddr,
        name: &str,
        format: Option<Format>,
    ) -> Result<Self, tungstenite::Error> {
        let url = format!("ws://{address}/v1/ingest/{name}");
        let mut request = url.into_client_request()?;
        if let Some(format) = format {
            let name = format.subprotocol().parse().expect("a header value");
            request.headers_mut().insert("sec-websocket-protocol", name);
        }
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (socket, _) =
            timeout(PATIENCE, client_async(request, stream)).await.expect("in time")?;
        Ok(Self { socket, format })
    }

    /// Says hello and returns the welcome's acked number and level.
    pub async fn hello(&mut self, session: u64, next_seq: u64) -> (Option<u64>, Level) {
        let session = SessionId::new(session).expect("valid");
        let next_seq = MessageId::new(next_seq).expect("valid");
        self.send(&ClientFrame::Hello { session, next_seq, token: None }).await;
        match self.next().await {
            Event::Frame(ServerFrame::Welcome { acked, level, credit, .. }) => {
                assert!(credit > 0);
                (acked.map(MessageId::get), level)
            }
            other => panic!("no welcome but {other:?}"),
        }
    }

    /// Puts a frame into the write buffer.
    pub async fn feed(&mut self, frame: &ClientFrame<'_>) {
        let format = self.format.expect("a framed connection");
        let mut bytes = Vec::new();
        frame.encode(format, &mut bytes);
        let message = match format {
            Format::Cbor => Message::binary(bytes),
            Format::Json => Message::text(String::from_utf8(bytes).expect("JSON")),
        };
        timeout(PATIENCE, self.socket.feed(message)).await.expect("in time").expect("sent");
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: &ClientFrame<'_>) {
        self.feed(frame).await;
        self.flush().await;
    }

    /// Sends what was fed.
    pub async fn flush(&mut self) {
        timeout(PATIENCE, self.socket.flush()).await.expect("in time").expect("sent");
    }

    /// Sends a message as it is.
    pub async fn raw(&mut self, message: Message) {
        timeout(PATIENCE, self.socket.send(message)).await.expect("in time").expect("sent");
    }

    /// Sends messages `seqs` with the usual body, in one write.
    pub async fn data(&mut self, seqs: impl IntoIterator<Item = u64>) {
        for seq in seqs {
            self.feed(&data(seq, body(seq))).await;
        }
        self.flush().await;
    }

    /// What the front says next; pings and pongs are passed over.
    pub async fn next(&mut self) -> Event {
        loop {
            let next = timeout(PATIENCE, self.socket.next()).await.expect("an answer in time");
            match next {
                Some(Ok(Message::Binary(bytes))) => {
                    assert_eq!(self.format, Some(Format::Cbor));
                    return frame(Format::Cbor, &bytes);
                }
                Some(Ok(Message::Text(text))) => {
                    assert_ne!(self.format, Some(Format::Cbor));
                    return frame(Format::Json, text.as_bytes());
                }
                Some(Ok(Message::Close(Some(close)))) => {
                    return Event::Close(close.code.into(), close.reason.to_string());
                }
                Some(Ok(Message::Close(None))) | None | Some(Err(_)) => return Event::End,
                Some(Ok(_)) => {}
            }
        }
    }

    /// The next text message as it is.
    pub async fn socket_text(&mut self) -> String {
        match timeout(PATIENCE, self.socket.next()).await.expect("an answer in time") {
            Some(Ok(Message::Text(text))) => text.to_string(),
            other => panic!("no text but {other:?}"),
        }
    }

    /// Whether the front says nothing for a moment. Only for what would be wrong if it came.
    pub async fn is_quiet(&mut self) -> bool {
        timeout(Duration::from_millis(150), self.socket.next()).await.is_err()
    }

    /// Reads acks until `upto` is acked; every ack is above the one before.
    pub async fn acked(&mut self, upto: u64) {
        let mut last = 0;
        while last < upto {
            match self.next().await {
                Event::Frame(ServerFrame::Ack { ack, .. }) => {
                    assert!(ack.get() > last, "ack {ack} after {last}");
                    assert!(ack.get() <= upto, "ack {ack} beyond {upto}");
                    last = ack.get();
                }
                other => panic!("no ack of {upto} but {other:?}"),
            }
        }
    }

    /// Reads acks, repeated ones too, until `upto` is acked; rejects are passed over.
    pub async fn acked_at_last(&mut self, upto: u64) {
        loop {
            match self.next().await {
                Event::Frame(ServerFrame::Ack { ack, .. }) if ack.get() == upto => return,
                Event::Frame(ServerFrame::Ack { ack, .. }) => assert!(ack.get() < upto),
                Event::Frame(ServerFrame::Reject { .. }) => {}
                other => panic!("no ack of {upto} but {other:?}"),
            }
        }
    }

    /// Reads until the front closes; returns the code.
    pub async fn closed(&mut self) -> u16 {
        loop {
            match self.next().await {
                Event::Close(code, _) => return code,
                Event::End => panic!("ended without a close frame"),
                Event::Frame(_) => {}
            }
        }
    }
}

fn frame(format: Format, bytes: &[u8]) -> Event {
    Event::Frame(ServerFrame::decode(format, bytes).expect("a server frame").into_owned())
}

/// A data frame.
pub fn data(seq: u64, body: Body<'static>) -> ClientFrame<'static> {
    ClientFrame::Data { seq: MessageId::new(seq).expect("valid"), body }
}

/// A good device beside a bad one: whatever happens there, it is acked.
pub struct Neighbour {
    device: Device,
    next: u64,
}

impl Neighbour {
    pub async fn new(front: &Front) -> Self {
        Self { device: front.device("neighbour", Format::Cbor).await, next: 1 }
    }

    /// Sends a few messages and sees them acked.
    pub async fn is_well(&mut self) {
        let upto = self.next + 9;
        self.device.data(self.next..=upto).await;
        self.device.acked(upto).await;
        self.next = upto + 1;
    }
}

/// Waits until `holds` does.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what} did not happen in time"));
}

/// Counts of equal things.
pub fn counts<T: Ord>(things: impl IntoIterator<Item = T>) -> BTreeMap<T, usize> {
    things.into_iter().fold(BTreeMap::new(), |mut counts, thing| {
        *counts.entry(thing).or_default() += 1;
        counts
    })
}
