//! How fast may be sent.

use serde::{Deserialize, Serialize};

/// How fast one device, and one tenant, may send. Off by default: what is too fast depends on the
/// installation, and a full queue pushes back in any case.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rate {
    /// Messages a second of one connection on average; 0 is without limit.
    pub messages_per_second: u32,
    /// Messages a connection may send at once after a pause; 0 is one second's worth.
    pub burst: u32,
    /// Messages a second of all devices of one tenant on this front; 0 is without limit.
    pub tenant_messages_per_second: u32,
    /// Messages a tenant may send at once after a pause; 0 is one second's worth.
    pub tenant_burst: u32,
}
