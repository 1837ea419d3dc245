//! Tiers' admin ports: where they are, and asking them.

mod ask;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use anyhow::Result;
use clap::{Args, ValueEnum};
use forebay_ops::config::{self, ConfigError};
use serde::Serialize;

use crate::node;
pub(crate) use ask::{ask, get};

/// Which tiers are meant.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Which {
    /// Admin address of a tier, such as 127.0.0.1:7401; several may be given [default: those of the
    /// configuration].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) admin: Vec<String>,
    /// The configuration that names the admin addresses [default: the defaults and the
    /// environment].
    #[arg(long, value_name = "FILE", conflicts_with = "admin")]
    pub(crate) config: Option<PathBuf>,
    /// Whose configuration it is; `node` has a section for each tier.
    #[arg(long, default_value = "node", value_name = "TIER", conflicts_with = "admin")]
    pub(crate) tier: Tier,
}

/// Whose configuration it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tier {
    /// All tiers: sections `[front]`, `[middle]` and `[storage]`.
    #[default]
    Node,
    /// A front alone.
    Front,
    /// A middle alone.
    Middle,
    /// A storage tier alone.
    Storage,
}

/// A tier's admin port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    /// What it is called: the tier, or the address where that is all there is.
    pub(crate) name: String,
    /// `host:port`.
    pub(crate) address: String,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name == self.address {
            f.write_str(&self.address)
        } else {
            write!(f, "{} at {}", self.name, self.address)
        }
    }
}

impl Which {
    /// The admin ports meant.
    ///
    /// # Errors
    /// The configuration is at fault.
    pub(crate) fn ports(&self) -> Result<Vec<Port>, ConfigError> {
        if !self.admin.is_empty() {
            let named = |address: &String| Port { name: address.clone(), address: address.clone() };
            return Ok(self.admin.iter().map(named).collect());
        }
        let file = self.config.as_deref();
        let port = |name: &str, address: SocketAddr| Port {
            name: name.to_owned(),
            address: reachable(address).to_string(),
        };
        Ok(match self.tier {
            Tier::Node => {
                let node: node::Config = config::load(file)?;
                vec![
                    port("front", node.front.admin.address),
                    port("middle", node.middle.admin.address),
                    port("storage", node.storage.admin.address),
                ]
            }
            Tier::Front => {
                let config: forebay_front::Config = config::load(file)?;
                vec![port("front", config.admin.address)]
            }
            Tier::Middle => {
                let config: forebay_middle::Config = config::load(file)?;
                vec![port("middle", config.admin.address)]
            }
            Tier::Storage => {
                let config: forebay_storage::Config = config::load(file)?;
                vec![port("storage", config.admin.address)]
            }
        })
    }
}

/// Where a server that listens on any address is reached from the same machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_any_address_is_asked_on_loopback() {
        for (listens, asked) in [
            ("0.0.0.0:7401", "127.0.0.1:7401"),
            ("[::]:7401", "[::1]:7401"),
            ("10.0.0.7:7401", "10.0.0.7:7401"),
        ] {
            assert_eq!(reachable(listens.parse().unwrap()).to_string(), asked);
        }
    }
}
