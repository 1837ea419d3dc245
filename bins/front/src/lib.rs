//! The front tier: devices in over WebSockets, acknowledgements out.
//!
//! ```text
//!  acceptor ──▶ core 0..n: handshake ──▶ session ──▶ ring of the partition ──▶ forwarder ──▶ middle
//!                                           ▲                │
//!                                           └── ack queue ◀──┘ durable, or acked by the middle
//! ```
//!
//! [`start`] runs it in this process, beside other tiers if need be; the binary `forebay-front` is
//! a main around it. One thread accepts, each core is a thread with a runtime of its own, each
//! partition has a ring and a thread that forwards it, and the admin server has a thread.
//!
//! What it promises: a message is acked only when it and all before it in its session have reached
//! the configured level; a message is never dropped in silence; an entry leaves the ring only after
//! the middle's durable ack. See docs/durability.md for each fault and the test that proves it.
//!
//! Not here: what the bytes are (`forebay-wire`), how the ring keeps them (`forebay-queue`), how
//! the uplink mends itself (`forebay-link`).
#![forbid(unsafe_code)]

mod acceptor;
mod acks;
mod addresses;
pub mod config;
mod control;
mod core;
mod devices;
mod forwarder;
mod front;
mod handshake;
mod metrics;
mod orphan;
mod place;
mod registry;
mod rings;
mod running;
mod session;
mod socket;
mod tenancy;
mod tenants;
mod uplink_tls;
mod watermark;

pub use config::Config;
pub use forwarder::ForwarderError;
pub use orphan::{HandedOver, Orphan, OrphanError};
pub use running::{Addresses, Drained, Running, StartError, run, start};
