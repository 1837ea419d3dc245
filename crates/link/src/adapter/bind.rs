//! Binding: loopback and private addresses only, unless told otherwise.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use zeromq::Listener;

use crate::config::{BindConfig, is_private};
use crate::error::Error;
use crate::pump::{Accepting, Pump, PumpConfig, PumpStats, inner_listener};

/// Connections that wait to be accepted: where they are more, the system makes each newcomer wait
/// for a second or longer, the good ones too. The system bounds it again (`somaxconn`).
const BACKLOG: i32 = 4_096;

/// Where a socket listens, and the pump before it.
#[derive(Debug)]
pub(super) struct Door {
    /// With the port that was bound.
    pub(super) endpoint: String,
    /// `None` for a Unix socket.
    pub(super) address: Option<SocketAddr>,
    pump: Option<Pump>,
}

impl Door {
    /// What the pump has done so far; `None` without one.
    pub(super) fn pump(&self) -> Option<Arc<PumpStats>> {
        self.pump.as_ref().map(Pump::stats)
    }

    /// Lets nobody in any more.
    pub(super) fn close(&self, deadline: Duration) -> Result<(), Error> {
        self.pump.as_ref().map_or(Ok(()), |pump| pump.stop(deadline))
    }
}

/// The way from a door to the ZeroMQ socket behind it.
#[derive(Debug)]
pub(super) struct Passage {
    listener: Listener,
    pump: Option<Accepting>,
}

impl Passage {
    /// Lets peers in, to whoever takes over the listener; called within the runtime.
    pub(super) fn enter(self) -> io::Result<Listener> {
        if let Some(pump) = self.pump {
            pump.start()?;
        }
        Ok(self.listener)
    }
}

/// Binds what `config` names, with the pump before it: `limits` bounds what a peer may cost.
pub(super) fn open(
    thread: &str,
    config: &BindConfig,
    limits: PumpConfig,
) -> Result<(Door, Passage), Error> {
    if config.tls.is_some() && !(config.pump && config.endpoint.starts_with("tcp://")) {
        let reason = "TLS needs tcp:// and the pump".to_owned();
        return Err(Error::Endpoint { endpoint: config.endpoint.clone(), reason });
    }
    let Bound { listener, endpoint, address } = bind(config)?;
    let outer = match listener {
        Listener::Tcp(outer) if config.pump => outer,
        listener => {
            let door = Door { endpoint, address, pump: None };
            return Ok((door, Passage { listener, pump: None }));
        }
    };
    let failed = |source| Error::Thread { thread: thread.to_owned(), source };
    let (listener, inner) = inner_listener().map_err(failed)?;
    let name = format!("{thread}-pump");
    let (pump, accepting) = Pump::new(&name, limits, config.tls.clone(), outer, inner)?;
    let passage = Passage { listener: Listener::Ipc(listener), pump: accepting };
    Ok((Door { endpoint, address, pump: Some(pump) }, passage))
}

#[derive(Debug)]
struct Bound {
    listener: Listener,
    endpoint: String,
    address: Option<SocketAddr>,
}

fn bind(config: &BindConfig) -> Result<Bound, Error> {
    let endpoint = config.endpoint.as_str();
    let failed = |reason: String| Error::Bind { endpoint: endpoint.to_owned(), reason };
    if let Some(path) = endpoint.strip_prefix("ipc://") {
        remove_stale(path).map_err(&failed)?;
        let listener = UnixListener::bind(path).map_err(|error| failed(error.to_string()))?;
        let listener = Listener::Ipc(listener);
        return Ok(Bound { listener, endpoint: endpoint.to_owned(), address: None });
    }
    let Some(host) = endpoint.strip_prefix("tcp://") else {
        let reason = "no such transport".to_owned();
        return Err(Error::Endpoint { endpoint: endpoint.to_owned(), reason });
    };
    let addresses: Vec<SocketAddr> = host
        .to_socket_addrs()
        .map_err(|error| Error::Endpoint {
            endpoint: endpoint.to_owned(),
            reason: error.to_string(),
        })?
        .collect();
    if !config.allow_public
        && config.tls.is_none()
        && let Some(&address) = addresses.iter().find(|address| !is_private(address.ip()))
    {
        return Err(Error::PublicAddress { address });
    }
    let listener = listen(&addresses).map_err(|error| failed(error.to_string()))?;
    let address = listener.local_addr().map_err(|error| failed(error.to_string()))?;
    let listener = Listener::Tcp(listener);
    Ok(Bound { listener, endpoint: format!("tcp://{address}"), address: Some(address) })
}

/// Listens on the first of the addresses that can be had.
fn listen(addresses: &[SocketAddr]) -> io::Result<TcpListener> {
    let one = |address: &SocketAddr| {
        let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
        // So that a restarted tier gets its port back while old connections fade away.
        socket.set_reuse_address(true)?;
        socket.bind(&(*address).into())?;
        socket.listen(BACKLOG)?;
        Ok(TcpListener::from(socket))
    };
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match one(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Removes the socket file that a killed process left; refuses if somebody listens on it.
fn remove_stale(path: &str) -> Result<(), String> {
    match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(found) if !found.file_type().is_socket() => Err("not a socket".to_owned()),
        Ok(_) if UnixStream::connect(path).is_ok() => Err("in use".to_owned()),
        Ok(_) => fs::remove_file(path).map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses_need_an_explicit_setting() {
        for endpoint in ["tcp://0.0.0.0:0", "tcp://[::]:0", "tcp://203.0.113.1:7410"] {
            let refused = bind(&BindConfig::new(endpoint));
            assert!(matches!(refused, Err(Error::PublicAddress { .. })), "{endpoint}");
        }
        let allowed = BindConfig { allow_public: true, ..BindConfig::new("tcp://0.0.0.0:0") };
        assert!(bind(&allowed).is_ok());
        for private in ["10.1.2.3", "172.16.0.1", "192.168.1.1", "127.0.0.9", "fd00::1", "::1"] {
            assert!(is_private(private.parse().unwrap()), "{private}");
        }
    }

    #[test]
    fn a_socket_file_left_by_a_killed_process_is_replaced_but_not_one_in_use() {
        let dir = std::env::temp_dir().join(format!("forebay-bind-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("uplink");
        let config = BindConfig::new(format!("ipc://{}", path.display()));
        let first = bind(&config).unwrap();
        assert!(matches!(bind(&config), Err(Error::Bind { .. })));
        drop(first);
        assert!(path.exists());
        assert!(bind(&config).is_ok());
        fs::remove_dir_all(&dir).unwrap();
    }
}
