//! Free loopback ports for tiers that are restarted on the same port.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use anyhow::{Result, bail};
use rand::RngExt as _;

/// Below the range from which the kernel takes the ports of outgoing connections: one of those
/// could take the port of a tier while that is away. Source: ip(7), `ip_local_port_range`.
/// And apart from the ports that tests give to servers of theirs.
const RANGE: std::ops::Range<u16> = 10_000..20_000;
/// Ports tried before giving up.
const TRIES: usize = 1_000;

/// Hands out ports, each once.
#[derive(Debug, Default)]
pub(super) struct Ports {
    given: HashSet<u16>,
}

impl Ports {
    /// A loopback address that nobody listens on.
    pub(super) fn free(&mut self) -> Result<SocketAddr> {
        for _ in 0..TRIES {
            let port = rand::rng().random_range(RANGE);
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            if !self.given.contains(&port) && TcpListener::bind(address).is_ok() {
                self.given.insert(port);
                return Ok(address);
            }
        }
        bail!("no free port on 127.0.0.1 between {} and {}", RANGE.start, RANGE.end)
    }
}
