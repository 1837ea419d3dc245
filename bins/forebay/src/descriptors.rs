//! How many sockets this process may have.

use anyhow::{Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files, logs and the sockets between tiers.
const BESIDE_DEVICES: u64 = 300;

/// Makes room for so many sockets, or says what to do.
pub(crate) fn make_room(sockets: u64) -> Result<()> {
    let needed = sockets + BESIDE_DEVICES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if limit.maximum.is_none_or(|maximum| maximum >= needed) {
        let raised = Rlimit { current: Some(needed), maximum: limit.maximum };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            return Ok(());
        }
    }
    bail!(
        "{needed} open files are needed, this process may have {}: use fewer devices, \
         or raise `ulimit -n`",
        limit.maximum.or(limit.current).unwrap_or(0)
    )
}
