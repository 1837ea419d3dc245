//! The live feed: what is durable at the middle, shown to any number of readers as it comes.
//!
//! A follower reads the middle's log without a cursor of its own, takes up last values, and hands
//! each message to the hub; the hub makes one frame of it for each set of readings that some reader
//! wants, encoded once, and puts it into the bounded buffer of each. The middle publishes only what is durable
//! there, and every sink reads the same log, so no event is shown that will not be stored. A
//! reader that is too slow loses the oldest events and is told exactly how many.
//!
//! Not here: the sockets (`http`), and the protocol's bytes (`forebay_wire::live`).

mod buffer;
mod filter;
mod follower;
mod frame;
mod hub;
mod reader;
mod rebuild;
mod resume;

pub use buffer::{Buffer, BufferLimits, Outgoing};
pub use filter::{BadSubscription, EventFilter};
pub use follower::{Follower, FollowerConfig, FollowerStatus};
pub use frame::{Frame, encode};
pub use hub::{Client, Entry, Hub, Registered, Whereabouts};
pub use reader::{LiveFeed, Reader, ReaderEnd};
pub use resume::{Resume, ResumeError};
