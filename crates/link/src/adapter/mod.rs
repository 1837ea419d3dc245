//! The machines over the `zeromq` crate: each on a named thread with a current-thread runtime.
//!
//! What the crate does not do is done here: a DEALER never reconnects, so a new socket is built
//! after each disconnect or silence; sends are never cancelled, so a task of its own owns each
//! sending half; identities are random (its default), since a fixed one breaks the new connection
//! when the old one resets; addresses are resolved anew at each attempt.

mod bind;
mod dealer;
mod feed_publisher;
mod held;
mod inbox;
mod replay_server;
mod reply;
mod router;
mod server;
mod stats;
mod sub;
mod subscriber;
mod thread;
mod uplink_receiver;
mod uplink_sender;

pub use feed_publisher::FeedPublisher;
pub use replay_server::ReplayServer;
pub use server::Server;
pub use stats::{
    Count, Flag, PublisherStats, ReceiverStats, ReplayStats, SenderStats, SubscriberStats,
};
pub use subscriber::Subscriber;
pub(crate) use thread::{Thread, block_on};
pub use uplink_receiver::UplinkReceiver;
pub use uplink_sender::UplinkSender;
