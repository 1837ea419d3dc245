//! How no entry gets lost between tiers.
//!
//! ZeroMQ carries bytes; that nothing is lost comes only from the sender's queue, from (queue id,
//! seq) and from cumulative acks of what is durable. The machines in [`machine`] hold those rules,
//! without I/O, clock or randomness; the adapters run them over the `zeromq` crate, each on a
//! named thread of its own with a current-thread runtime. The tiers plug their queues in by the
//! traits [`EntrySource`], [`EntryStore`], [`FeedSource`] and [`ReplayStore`].
//!
//! | tier | runs | over |
//! | --- | --- | --- |
//! | front | [`UplinkSender`] | an [`EntrySource`] for each partition |
//! | middle | [`UplinkReceiver`] | an [`EntryStore`] |
//! | middle | [`FeedPublisher`] | a [`FeedSource`] |
//! | middle | [`ReplayServer`] | a [`ReplayStore`] |
//! | storage | [`Subscriber`], one for each durable consumer | the consumer itself |
//!
//! **Architecture invariant**: this package knows no disk and no device protocol.
#![forbid(unsafe_code)]

mod adapter;
mod config;
mod error;
pub mod machine;
pub mod pump;
mod seam;

pub use adapter::{
    Count, FeedPublisher, Flag, PublisherStats, ReceiverStats, ReplayServer, ReplayStats,
    SenderStats, Server, Subscriber, SubscriberStats, UplinkReceiver, UplinkSender,
};
pub use config::{
    BindConfig, ConnectConfig, PublisherConfig, ReceiverConfig, ReplayConfig, SenderConfig, Start,
    SubscriberConfig, is_endpoint, is_public,
};
pub use error::{Error, Fault, StoreError};
pub use forebay_wire::feed::{ConsumerState, Pending, Tally};
pub use forebay_wire::records::{BatchBuilder, Pushed, Record, RecordBatch, Records};
pub use forebay_wire::uplink::Level;
pub use forebay_wire::{QueueId, Seq};
pub use pump::{AcceptTls, ConnectTls, PumpStats};
pub use seam::{
    Bounds, EntrySource, EntryStore, FeedEvent, FeedSource, Joined, OnFailure, Opened, ReplayStore,
};
