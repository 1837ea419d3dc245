//! The rules, as state machines without I/O, clock or randomness.
//!
//! Time is an input: the [`Duration`](std::time::Duration) since any fixed moment of a monotonic
//! clock. Randomness is a seed. A machine takes inputs by its methods and gives outputs by
//! `next_action`; it never waits, `deadline` says when it wants to be polled again. The simulator
//! in this package's tests drives whole topologies of them.

pub mod connection;
mod durable;
mod following;
pub mod publisher;
mod random;
pub mod receiver;
pub mod replay;
pub mod sender;
mod stash;
pub mod subscriber;

pub use random::Random;
