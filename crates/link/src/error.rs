//! What can go wrong, sorted by what the caller does about it.

use std::net::SocketAddr;

use forebay_wire::QueueId;

/// Whatever a tier's queue reports when it can no longer be trusted.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Why a store does not take records.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No room; nothing was taken. The source keeps its entries and waits for credit.
    #[error("no room in the store")]
    Full,
    /// The store refuses all further work: the thread ends, and the process must.
    #[error(transparent)]
    Fatal(#[from] Fault),
}

/// Why a link could not be started, or why it ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Push back: the deadline passed; the request may or may not have been done. Repeat it.
    #[error("no answer within {seconds} s")]
    Deadline {
        /// Seconds waited.
        seconds: f64,
    },
    /// Stop: another process holds a newer session of this consumer.
    #[error("consumer {consumer:?}: a newer session has taken over")]
    Fenced {
        /// The consumer's name.
        consumer: String,
    },
    /// Stop: the middle does not know this consumer, or refuses the range.
    #[error("consumer {consumer:?} is refused: {reason}")]
    Refused {
        /// The consumer's name.
        consumer: String,
        /// Why.
        reason: String,
    },
    /// Go on without it: the middle has another queue now, in which these numbers mean nothing. The
    /// opening of that one follows.
    #[error("consumer {consumer:?}: the middle has another queue now, {queue}")]
    OtherQueue {
        /// The consumer's name.
        consumer: String,
        /// The queue that the middle has.
        queue: QueueId,
    },
    /// Configuration: the address is neither loopback nor private and was not explicitly allowed.
    #[error("{address} is a public address: set allow_public to bind it")]
    PublicAddress {
        /// The address configured.
        address: SocketAddr,
    },
    /// Configuration: not `tcp://host:port` or `ipc://path`.
    #[error("endpoint {endpoint:?} is not tcp://host:port or ipc://path: {reason}")]
    Endpoint {
        /// As configured.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The port could not be bound.
    #[error("cannot bind {endpoint}: {reason}")]
    Bind {
        /// As configured.
        endpoint: String,
        /// What the system or the socket library said.
        reason: String,
    },
    /// The thread or its runtime could not be started.
    #[error("cannot start thread {thread:?}: {source}")]
    Thread {
        /// The thread's name.
        thread: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Stop: the tier's queue failed.
    #[error("the queue behind {thread:?} failed: {source}")]
    Queue {
        /// The thread's name.
        thread: String,
        /// What the queue said.
        source: Fault,
    },
    /// The link was stopped.
    #[error("the link was stopped")]
    Stopped,
}
