//! Ports for servers that cannot take port 0.

use std::fs::File;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Result, bail};

use crate::cache;

/// The ephemeral range of Linux starts at 32768: a port from there could be somebody's connection.
const FIRST: u16 = 20_000;
const COUNT: u16 = 32_768 - FIRST;

/// A TCP port below 32768 that was free, and that no other test is given while this is kept.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// A free port.
    ///
    /// # Errors
    /// There is no folder for locks, or no port is free.
    pub fn free() -> Result<Port> {
        static TRIES: AtomicU16 = AtomicU16::new(0);
        let folder = cache::root()?.join("ports");
        std::fs::create_dir_all(&folder)?;
        // Far apart by process, so that concurrent ones seldom meet.
        let start = (std::process::id() as u16).wrapping_mul(7_919);
        for _ in 0..COUNT {
            let step = TRIES.fetch_add(1, Ordering::Relaxed);
            let number = FIRST + start.wrapping_add(step) % COUNT;
            let Some(lock) = cache::try_lock(&folder.join(number.to_string()))? else { continue };
            // On all addresses: a server on any of them is in the way.
            if TcpListener::bind(("0.0.0.0", number)).is_ok() {
                return Ok(Port { number, _lock: lock });
            }
        }
        bail!("no port from {FIRST} to {} is free", FIRST + COUNT - 1)
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_distinct_and_below_the_ephemeral_range() {
        let ports: Vec<Port> = (0..20).map(|_| Port::free().unwrap()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        assert!(numbers.iter().all(|number| (FIRST..32_768).contains(number)), "{numbers:?}");
        let _listeners: Vec<_> =
            numbers.iter().map(|n| TcpListener::bind(("127.0.0.1", *n)).unwrap()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 20);
    }
}
