//! Connections to a server that speaks HTTPS, each with the certificates of its moment.

use std::{
    error::Error,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use clickhouse::Client;
use forebay_ops::tls::StoreTls;
use hyper::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::TcpStream;
use tower_service::Service;

/// As the client has them without TLS: below the 3 s after which a server closes what is idle.
const IDLE_TIME_MAX: Duration = Duration::from_secs(2);
const KEEPALIVE: Duration = Duration::from_secs(60);

type Refused = Box<dyn Error + Send + Sync>;

/// A client that speaks HTTPS.
pub(super) fn client(tls: &StoreTls) -> Client {
    let mut tcp = HttpConnector::new();
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.enforce_http(false);
    let connector = Connector { tcp, tls: tls.clone() };
    let http = legacy::Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE_TIME_MAX)
        .build(connector);
    Client::with_http_client(http)
}

#[derive(Clone)]
struct Connector {
    tcp: HttpConnector,
    tls: StoreTls,
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Refused;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Refused>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Refused>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, address: Uri) -> Self::Future {
        match self.tls.config(&["http/1.1"]) {
            Ok(config) => HttpsConnector::from((self.tcp.clone(), config)).call(address),
            Err(error) => Box::pin(async { Err(error.into()) }),
        }
    }
}
