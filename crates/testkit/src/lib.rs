//! How we know: what tests need of the machine around them. A dev-dependency only.
//!
//! | for | use |
//! | --- | --- |
//! | something that this machine lacks | [`skip`], [`or_skip`] |
//! | a real peer from PyPI, npm or Debian | [`python::venv`], [`node::packages`], [`debian::package`] |
//! | a real store | [`clickhouse::ClickHouse`], [`postgres::Postgres`], [`Victoria`], [`Redis`] |
//! | a request to a server | [`http`] |
//! | what the documents say to type | [`documents`] |
//! | a process to kill | [`Child`] |
//! | a condition with a deadline | [`wait_until`] |
//! | a port that nobody has | [`Port`] |
//! | a file system of one's own | [`LoopMount`] |
//! | a network of one's own | [`netns::Lan`] |
//! | a kill after each instruction | [`single_step`] |
//! | certificates, good and bad | [`certificates::Authority`] |
//! | what a process costs | [`rss_anon`] |
//!
//! Nothing here knows a tier, so that every package can use it.

mod cache;
pub mod certificates;
mod child;
pub mod clickhouse;
pub mod debian;
pub mod documents;
pub mod http;
mod loop_mount;
mod memory;
pub mod netns;
pub mod node;
mod port;
pub mod postgres;
pub mod python;
mod redis;
#[cfg(target_arch = "x86_64")]
pub mod single_step;
mod skip;
mod sys;
mod victoria;
mod wait;

pub use self::redis::Redis;
pub use child::Child;
pub use loop_mount::{Filesystem, LoopMount};
pub use memory::rss_anon;
pub use port::Port;
pub use skip::{or_skip, skip};
pub use victoria::Victoria;
pub use wait::wait_until;
