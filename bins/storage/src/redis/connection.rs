//! One connection to Redis, and the script that lets only newer values in.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo as _, Pipeline, RedisError, aio::MultiplexedConnection,
};

use forebay_ops::tls::{StoreTls, store_refusal};

use super::encode;
use crate::{
    config,
    dial::{DialError, dial},
    sink::{Encoded, Outcome},
};

/// Sets those fields that are newer than what is there. `order` begins at the eleventh byte of a
/// value and takes 48.
const SCRIPT: &str = "
local fields, newer = {}, {}
for i = 1, #ARGV, 2 do fields[#fields + 1] = ARGV[i] end
local olds = redis.call('HMGET', KEYS[1], unpack(fields))
for i = 1, #fields do
  local old, new = olds[i], ARGV[2 * i]
  if not old or string.sub(old, 11, 58) < string.sub(new, 11, 58) then
    newer[#newer + 1] = fields[i]
    newer[#newer + 1] = new
  end
end
if #newer > 0 then redis.call('HSET', KEYS[1], unpack(newer)) end
return #newer / 2";

/// Devices a round trip, about.
const PIPELINE_DEVICES: usize = 256;

/// Credentials, rights, another kind of key under our name, a cluster, a full memory or disk of the
/// server, a command it does not have.
const FOR_A_HUMAN: [&str; 10] = [
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
    "WRONGTYPE",
    "MOVED",
    "ASK",
    "CROSSSLOT",
    "OOM",
    "MISCONF",
    "ERR",
];

/// A block that was not stored, and why.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection broke; a new one may do.
    Connection(String),
    /// TLS failed, which a human must mend; there is no connection any more.
    Tls(String),
    /// What the sink says.
    Said(Outcome),
}

impl Failure {
    pub(super) fn is_connection(&self) -> bool {
        matches!(self, Self::Connection(_) | Self::Tls(_))
    }

    /// Whether the server answered, and what it refuses is ours to mend.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Said(Outcome::Misconfigured(_)))
    }

    pub(super) fn into_outcome(self) -> Outcome {
        match self {
            Self::Connection(reason) => Outcome::Transient(reason),
            Self::Tls(reason) => Outcome::Misconfigured(reason),
            Self::Said(outcome) => outcome,
        }
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        if let Some(reason) = store_refusal(&error) {
            return Self::Tls(format!("Redis: {reason}"));
        }
        let reason = format!("Redis: {error}");
        if error.is_io_error() || error.is_connection_dropped() {
            return Self::Connection(reason);
        }
        // A pipeline says what each of its commands was answered with.
        let code = error.code().map(str::to_owned);
        let kind = error.kind();
        let of_pipeline = error.into_server_errors();
        let codes: Vec<&str> = match &of_pipeline {
            Some(errors) => errors.iter().map(|(_, error)| error.code()).collect(),
            None => code.as_deref().into_iter().collect(),
        };
        let kinds = [ErrorKind::AuthenticationFailed, ErrorKind::InvalidClientConfig];
        if codes.iter().any(|code| FOR_A_HUMAN.contains(code)) || kinds.contains(&kind) {
            return Self::Said(Outcome::Misconfigured(reason));
        }
        // Loading, a failover, a script of somebody else that runs, our script forgotten.
        Self::Said(Outcome::Transient(reason))
    }
}

/// Connects over TLS and logs in.
async fn over_tls(
    info: &ConnectionInfo,
    tls: &StoreTls,
    config: AsyncConnectionConfig,
) -> Result<MultiplexedConnection, Failure> {
    let ConnectionAddr::Tcp(host, port) = info.addr() else {
        let reason = "Redis: redis.url names no host".to_owned();
        return Err(Failure::Said(Outcome::Misconfigured(reason)));
    };
    let stream = dial(host, *port, Some(tls), &[]).await.map_err(|error| match error {
        DialError::Refused(reason) => Failure::Tls(format!("Redis: {reason}")),
        DialError::Away(reason) => Failure::Connection(format!("Redis: {reason}")),
    })?;
    let settings = info.redis_settings();
    let (connection, driver) =
        MultiplexedConnection::new_with_config(settings, stream, config).await?;
    // It ends when the connection is dropped.
    tokio::spawn(driver);
    Ok(connection)
}

/// A connection on which the script is known.
pub(super) struct Connection {
    connection: MultiplexedConnection,
    script: String,
}

impl Connection {
    pub(super) async fn open(settings: &config::Redis) -> Result<Self, Failure> {
        let misconfigured = |reason| Failure::Said(Outcome::Misconfigured(reason));
        // The client knows no TLS of ours: it is given the stream.
        let info = settings.plain_url().into_connection_info();
        let mut info = info.map_err(|error| {
            misconfigured(format!("redis.url is not understood: {}", error.category()))
        })?;
        if let Some(path) = &settings.password_file {
            let password = std::fs::read_to_string(path).map_err(|error| {
                misconfigured(format!("cannot read {}: {error}", path.display()))
            })?;
            let redis = info.redis_settings().clone();
            info = info.set_redis_settings(redis.set_password(password.trim_end()));
        }
        let timeout: Duration = settings.timeout.into();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout));
        let mut connection = match settings.spoken_tls() {
            Some(tls) => {
                let opened = tokio::time::timeout(timeout, over_tls(&info, tls, config)).await;
                let late = || Failure::Connection(format!("Redis: no answer within {timeout:?}"));
                opened.map_err(|_| late())??
            }
            None => {
                Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await?
            }
        };
        let load = Cmd::new().arg("SCRIPT").arg("LOAD").arg(SCRIPT).to_owned();
        let script = load.query_async(&mut connection).await?;
        Ok(Self { connection, script })
    }

    /// Whether the server is there on this connection.
    pub(super) async fn ping(&mut self) -> Result<(), Failure> {
        Ok(Cmd::new().arg("PING").exec_async(&mut self.connection).await?)
    }

    /// Offers all values of a block.
    pub(super) async fn store(&mut self, block: &Encoded) -> Result<(), Failure> {
        for parts in block.parts.chunks(PIPELINE_DEVICES) {
            let mut pipeline = Pipeline::with_capacity(parts.len());
            for part in parts {
                let call = pipeline.cmd("EVALSHA").arg(&self.script).arg(1);
                for text in encode::texts(&part.bytes) {
                    call.arg(&text[..]);
                }
                call.ignore();
            }
            pipeline.query_async::<()>(&mut self.connection).await?;
        }
        Ok(())
    }
}
