//! A front in a test: says what the test tells it to say, with a deadline on everything it waits for.

#![allow(dead_code, reason = "each test uses its part of the script")]

use std::{future::Future, time::Duration};

use forebay_model::{Body, MessageId, SessionId, Timestamp};
use forebay_wire::device::{ClientFrame, Format, Level, NackCode, ServerFrame};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        http::HeaderValue,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

/// Longer than anything should take, shorter than anybody waits.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}

pub(crate) fn id(number: u64) -> MessageId {
    MessageId::new(number).expect("in bounds")
}

pub(crate) struct Server {
    listener: TcpListener,
    pub(crate) url: String,
}

impl Server {
    pub(crate) async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("ws://{}", listener.local_addr().expect("bound"));
        Self { listener, url }
    }

    pub(crate) async fn stream(&self) -> TcpStream {
        within("a connection", self.listener.accept()).await.expect("accepted").0
    }

    /// Takes a connection, and its hello.
    #[expect(clippy::result_large_err, reason = "the library's own type")]
    pub(crate) async fn accept(&self) -> Peer {
        let stream = self.stream().await;
        let (mut path, mut bearer, mut format) = (String::new(), None, None);
        let answer = |request: &Request,
                      mut response: Response|
         -> Result<Response, ErrorResponse> {
            path = request.uri().path().to_owned();
            let text = |name| {
                request.headers().get(name).map(|value| value.to_str().expect("text").to_owned())
            };
            bearer = text("authorization");
            if let Some(offered) = text("sec-websocket-protocol") {
                format = Format::from_subprotocol(&offered);
                let value = HeaderValue::from_str(&offered).expect("a header");
                response.headers_mut().insert("sec-websocket-protocol", value);
            }
            Ok(response)
        };
        let socket = within("a handshake", accept_hdr_async(stream, answer)).await.expect("done");
        let format = format.unwrap_or(Format::Json);
        Peer { socket, path, bearer, format }
    }

    /// Takes a connection, checks its hello, and welcomes it.
    pub(crate) async fn welcome(&self, next_seq: u64, acked: Option<u64>, credit: u32) -> Peer {
        let mut peer = self.accept().await;
        let (_, next) = peer.hello().await;
        assert_eq!(next, next_seq, "next_seq of the hello");
        peer.welcome(acked, credit, 30).await;
        peer
    }
}

/// One connection as the front sees it.
pub(crate) struct Peer {
    pub(crate) socket: WebSocketStream<TcpStream>,
    pub(crate) path: String,
    pub(crate) bearer: Option<String>,
    pub(crate) format: Format,
}

impl Peer {
    pub(crate) async fn message(&mut self) -> Message {
        within("a message", self.socket.next()).await.expect("open").expect("a message")
    }

    pub(crate) async fn hello(&mut self) -> (SessionId, u64) {
        let message = self.message().await.into_data();
        match ClientFrame::decode(self.format, &message, Timestamp::now()).expect("a frame") {
            ClientFrame::Hello { session, next_seq, .. } => (session, next_seq.get()),
            other => panic!("expected a hello: {other:?}"),
        }
    }

    /// The next message's number and the text of its first reading; `None` at the end.
    pub(crate) async fn next_data(&mut self) -> Option<(u64, String)> {
        let message = match within("a message", self.socket.next()).await {
            Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
            Some(Ok(message)) => message,
        };
        assert_eq!(message.is_text(), self.format.is_text(), "{message:?}");
        let message = message.into_data();
        match ClientFrame::decode(self.format, &message, Timestamp::now()).expect("a frame") {
            ClientFrame::Data { seq, body: Body::Readings(readings) } => {
                Some((seq.get(), format!("{:?}", readings[0].value)))
            }
            other => panic!("expected data: {other:?}"),
        }
    }

    /// The next message's number and the text of its first reading.
    pub(crate) async fn data(&mut self) -> (u64, String) {
        self.next_data().await.expect("the connection is open")
    }

    /// Numbers of the next messages.
    pub(crate) async fn numbers(&mut self, count: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        for _ in 0..count {
            numbers.push(self.data().await.0);
        }
        numbers
    }

    /// Nothing more comes for a moment: long enough for what is under way on loopback.
    pub(crate) async fn silence(&mut self) {
        let next = tokio::time::timeout(Duration::from_millis(100), self.socket.next()).await;
        assert!(next.is_err(), "expected nothing: {next:?}");
    }

    pub(crate) async fn say(&mut self, frame: ServerFrame<'_>) {
        let mut bytes = Vec::new();
        frame.encode(self.format, &mut bytes);
        let message = if self.format.is_text() {
            Message::text(String::from_utf8(bytes).expect("JSON is UTF-8"))
        } else {
            Message::binary(bytes)
        };
        // A device that has left meanwhile does not hear it; what was to follow fails by itself.
        let _ = within("room to say something", self.socket.send(message)).await;
    }

    pub(crate) async fn welcome(&mut self, acked: Option<u64>, credit: u32, ping_s: u32) {
        let time = Timestamp::now();
        let (acked, level) = (acked.map(id), Level::Disk);
        self.say(ServerFrame::Welcome { acked, credit, max_message: 1000, ping_s, time, level })
            .await;
    }

    pub(crate) async fn ack(&mut self, ack: u64) {
        self.say(ServerFrame::Ack { ack: id(ack), credit: None }).await;
    }

    pub(crate) async fn nack(&mut self, nack: u64, code: NackCode, ms: u32, expect: Option<u64>) {
        let expect = expect.map(id);
        self.say(ServerFrame::Nack { nack: id(nack), code, retry_ms: ms, expect }).await;
    }

    pub(crate) async fn close(mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.to_owned().into() };
        within("a close", self.socket.close(Some(frame))).await.expect("open");
        // Read on, so that the close is not overtaken by a reset.
        while let Some(Ok(_)) = within("the end", self.socket.next()).await {}
    }
}
