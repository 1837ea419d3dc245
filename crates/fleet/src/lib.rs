//! Many simulated devices, the journal of what they sent, and the checker of what was stored.
//!
//! The proof of the pipeline's promise, used by the demo, the simulator, tests and benchmarks: the
//! devices replay real series in messages that can be recomputed, the journal notes what left and
//! what was acknowledged, and the checker rereads the store and compares the sets.
//!
//! Not here: how tiers are started and killed (`forebay demo`, `forebay-testkit`).
#![forbid(unsafe_code)]

pub mod checker;
pub mod fleet;
pub mod journal;
pub mod latency;
pub mod script;
pub mod series;
