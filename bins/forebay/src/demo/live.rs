//! Clients that follow the live feed during a demo, and what they have seen.

use anyhow::Result;
use forebay_fleet::checker::Checker;

/// Clients under way.
#[derive(Debug)]
pub(super) struct LiveClients {}

/// What they have seen.
#[derive(Debug)]
pub(super) struct Seen {}

impl LiveClients {
    pub(super) fn start(_url: &str, _clients: u32) -> Result<Self> {
        Ok(Self {})
    }
    pub(super) fn connected(&self) -> u64 {
        0
    }
    pub(super) fn events(&self) -> u64 {
        0
    }
    pub(super) fn end(self) -> Seen {
        Seen {}
    }
}

impl Seen {
    pub(super) fn events(&self) -> u64 {
        0
    }
    pub(super) fn unstored(&self, _checker: &Checker<'_>) -> u64 {
        0
    }
}
