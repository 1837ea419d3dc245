//! One HTTP/1.1 connection to the endpoint, made anew when it broke.
//!
//! It is also how a death of the endpoint is seen: a connection that ends without having been
//! announced, no answer in time, an answer that only somebody in front of it gives.

use std::{
    fmt,
    time::{Duration, Instant},
};

use bytes::Bytes;
use forebay_ops::tls::{StoreTls, store_refusal};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    HeaderMap, Request, Uri, Version,
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;

use crate::{
    config,
    dial::{DialError, dial},
    sink::Outcome,
};

/// Of an answer's body, which says what is wrong.
const BODY_BYTES_MAX: usize = 16 * 1024;
const BODY_CHARACTERS_MAX: usize = 300;

/// What the endpoint said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// How long to leave it alone, if it said so in seconds.
    pub(super) retry_after: Option<Duration>,
    /// The beginning of the body.
    pub(super) body: String,
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Answer {
    /// Whether the store itself may have given it, alive: others are a server's that is broken or
    /// ends, or a proxy's that does not reach it.
    fn is_of_store(&self) -> bool {
        self.is_success() || matches!(self.status, 400 | 409 | 422 | 429)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.body)
    }
}

/// Where samples are posted to.
#[derive(Debug)]
pub(super) struct Endpoint {
    address: (String, u16),
    host: String,
    path: String,
    tls: Option<StoreTls>,
    timeout: Duration,
    open: Option<(SendRequest<Full<Bytes>>, JoinHandle<()>)>,
    /// How often the endpoint may have died so far.
    deaths: u64,
    /// When it last gave an answer.
    heard: Option<Instant>,
}

/// No answer, and why.
#[derive(Debug)]
pub(super) enum Silence {
    /// There was none in time.
    Late(String),
    /// There was no connection, or it broke.
    Broken(String),
    /// TLS is refused by one end, or a file of it cannot be used.
    Refused(String),
}

impl Silence {
    pub(super) fn into_outcome(self) -> Outcome {
        match self {
            Self::Late(reason) | Self::Broken(reason) => {
                Outcome::Transient(format!("remote write: {reason}"))
            }
            Self::Refused(reason) => Outcome::Misconfigured(format!("remote write: {reason}")),
        }
    }
}

impl From<hyper::Error> for Silence {
    fn from(error: hyper::Error) -> Self {
        // TLS 1.3 tells who shows a certificate only with the first answer that it is refused.
        store_refusal(&error).map_or_else(|| Self::Broken(error.to_string()), Self::Refused)
    }
}

impl From<DialError> for Silence {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Refused(reason) => Self::Refused(reason),
            DialError::Away(reason) => Self::Broken(reason),
        }
    }
}

/// For a connection whose other end is gone to hear of it.
const NEWS_TIME: Duration = Duration::from_millis(1);
/// How long the endpoint may be silent while its life matters; servers close connections that are
/// idle for longer, the shortest that are known (Node.js) after 5 s.
const SILENCE_MAX: Duration = Duration::from_secs(1);
/// A `WriteRequest` without a series, as snappy compresses no bytes.
const NOTHING: &[u8] = &[0];

impl Endpoint {
    pub(super) fn new(settings: &config::RemoteWrite) -> Result<Self, String> {
        let url = &settings.url;
        let tls = settings.spoken_tls();
        let uri: Uri = url.parse().map_err(|error| format!("{url:?} is no URL: {error}"))?;
        let host = uri.host().ok_or_else(|| format!("{url:?} names no host"))?.to_owned();
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            return Err("remote write takes credentials from token_file, not the URL".to_owned());
        }
        Ok(Self {
            // Brackets belong to the URL, not to the address.
            address: (
                host.trim_matches(['[', ']']).to_owned(),
                uri.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 }),
            ),
            host: authority.to_owned(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            tls: tls.cloned(),
            timeout: settings.timeout.into(),
            open: None,
            deaths: 0,
            heard: None,
        })
    }

    /// How often the endpoint may have died so far.
    ///
    /// After a silence it is sent a write of nothing, if it `may_ask`, which keeps the connection
    /// open and is answered through a proxy too.
    pub(super) async fn life(&mut self, token: Option<&str>, may_ask: bool) -> u64 {
        tokio::time::sleep(NEWS_TIME).await;
        if self.open.as_ref().is_some_and(|(sender, _)| sender.is_closed()) {
            self.died();
        }
        if may_ask && self.heard.is_none_or(|heard| heard.elapsed() >= SILENCE_MAX) {
            // What is wrong was counted; the next range is told the reason.
            let _ = self.post(&Bytes::from_static(NOTHING), token).await;
        }
        if self.open.is_none() {
            // It announced the end of the last one: only on another can its death be seen.
            let connected = tokio::time::timeout(self.timeout, self.connected()).await;
            if !connected.is_ok_and(|connected| connected.is_ok()) {
                self.died();
            }
        }
        self.deaths
    }

    fn died(&mut self) {
        self.close();
        self.deaths += 1;
    }

    /// Posts one compressed request and reads the answer.
    ///
    /// # Errors
    /// There was none in time; whether the endpoint has the samples is unknown.
    pub(super) async fn post(
        &mut self,
        body: &Bytes,
        token: Option<&str>,
    ) -> Result<Answer, Silence> {
        // A connection that was idle may have been closed: then once more, on a new one.
        let idle = self.open.as_ref().is_some_and(|(sender, _)| !sender.is_closed());
        match self.exchange_in_time(body, token).await {
            Err(Silence::Broken(_)) if idle => {}
            said => return said,
        }
        self.exchange_in_time(body, token).await
    }

    /// One exchange; notes a death that it shows.
    async fn exchange_in_time(
        &mut self,
        body: &Bytes,
        token: Option<&str>,
    ) -> Result<Answer, Silence> {
        let timeout = self.timeout;
        let tried = tokio::time::timeout(timeout, self.exchange(body, token)).await;
        let late = |_| Err(Silence::Late(format!("no answer within {timeout:?}")));
        let said = tried.unwrap_or_else(late);
        match &said {
            Ok(answer) if answer.is_of_store() => self.heard = Some(Instant::now()),
            Ok(_) => self.deaths += 1,
            Err(_) => self.died(),
        }
        said
    }

    async fn exchange(&mut self, body: &Bytes, token: Option<&str>) -> Result<Answer, Silence> {
        let mut request = Request::post(&self.path)
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .header(header::CONTENT_ENCODING, "snappy")
            .header(header::USER_AGENT, concat!("forebay/", env!("CARGO_PKG_VERSION")))
            .header("X-Prometheus-Remote-Write-Version", "0.1.0");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body.clone()));
        let request = request.map_err(|error| Silence::Broken(format!("request: {error}")))?;
        let sender = self.connected().await?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let is_last = is_last(head.version, &head.headers);
        let retry_after = head.headers.get(header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|seconds| seconds.to_str().ok()?.parse().ok());
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let body = String::from_utf8_lossy(&body);
        if is_last {
            self.close();
        }
        Ok(Answer {
            status: head.status.as_u16(),
            retry_after: retry_after.map(Duration::from_secs),
            body: body.trim().chars().take(BODY_CHARACTERS_MAX).collect(),
        })
    }

    async fn connected(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, Silence> {
        if self.open.as_ref().is_some_and(|(sender, _)| sender.is_closed()) {
            self.died();
        }
        if self.open.is_none() {
            let (host, port) = &self.address;
            let stream = dial(host, *port, self.tls.as_ref(), &["http/1.1"]).await?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            let driver = tokio::spawn(async move {
                // What ends it is said to whoever sends.
                let _ = connection.await;
            });
            self.open = Some((sender, driver));
        }
        let open = self.open.as_mut().map(|(sender, _)| sender);
        open.ok_or_else(|| Silence::Broken("the connection went away".to_owned()))
    }

    fn close(&mut self) {
        if let Some((_, driver)) = self.open.take() {
            driver.abort();
        }
    }
}

/// Whether the server said that it closes the connection after this answer.
fn is_last(version: Version, headers: &HeaderMap) -> bool {
    let said = headers.get_all(header::CONNECTION).iter();
    let mut options =
        said.filter_map(|said| said.to_str().ok()).flat_map(|said| said.split(',')).map(str::trim);
    if version == Version::HTTP_10 {
        return !options.any(|option| option.eq_ignore_ascii_case("keep-alive"));
    }
    options.any(|option| option.eq_ignore_ascii_case("close"))
}
