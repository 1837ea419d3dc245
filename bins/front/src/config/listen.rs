//! Where devices connect, and what stands before that.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use forebay_ops::{Faults, Validate};
use serde::{Deserialize, Serialize};

use super::Network;

/// Where devices connect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// Address of the WebSocket port.
    pub address: SocketAddr,
    /// Let in devices without a credential, as the device their path names. Always so on loopback
    /// while neither `[auth]` nor `tls.client_certificate` is set.
    pub allow_anonymous: bool,
    /// Web pages that may connect, as browsers name them: `https://example.org`, or `*` for all.
    /// A request without `Origin` is not from a page.
    pub origins: Vec<String>,
    /// Connections the kernel keeps while they wait to be accepted.
    pub backlog: u32,
    /// Threads that serve connections; none: one for each CPU this process may use.
    pub cores: Option<u16>,
    /// Share the port with other fronts on this machine, each with rings of its own: the kernel
    /// spreads connections over them.
    pub reuse_port: bool,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            // Loopback: what is reachable from outside is somebody's decision, never a default.
            address: (Ipv4Addr::LOCALHOST, 7400).into(),
            allow_anonymous: false,
            // A page that happens to be open in a browser must not write to a front beside it.
            origins: Vec::new(),
            // A reconnect storm arrives faster than it can be accepted; the kernel caps this at
            // net.core.somaxconn, 4,096 on current kernels.
            backlog: 4096,
            cores: None,
            // Two fronts that share a port by mistake would each see half of the devices.
            reuse_port: false,
        }
    }
}

/// The load balancer in front of this front, if devices' addresses matter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Proxy {
    /// How it says where a connection comes from: `none`, `proxy` (PROXY protocol v1 or v2, before
    /// TLS) or `x_forwarded_for`.
    pub protocol: ProxyProtocol,
    /// Networks whose word is taken, such as `10.0.0.0/8`. Whoever else says where he comes from
    /// is not believed: with `proxy` he is closed, with `x_forwarded_for` the header is passed over.
    pub trusted: Vec<Network>,
}

/// How a load balancer says where a connection comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// It does not.
    #[default]
    None,
    /// By the PROXY protocol, version 1 or 2.
    Proxy,
    /// By the header `X-Forwarded-For`.
    XForwardedFor,
}

impl Proxy {
    /// Whether `address` is a load balancer of ours.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }
}

impl Validate for Proxy {
    fn validate(&self, faults: &mut Faults) {
        let used = self.protocol != ProxyProtocol::None;
        faults.check(
            used != self.trusted.is_empty(),
            "trusted",
            if used { "must name the proxies" } else { "has no effect while protocol is none" },
        );
    }
}
