//! Tells systemd how this process stands: the service's `Type=notify`.
//!
//! One datagram a word to the socket that `NOTIFY_SOCKET` names, as sd_notify(3) does it; nothing
//! where nobody listens. A crate for it would be longer than this.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The tier serves: `systemctl start` returns.
pub fn ready() {
    tell("READY=1\nSTATUS=serving");
}

/// What it is busy with before it serves, as `systemctl status` shows it.
pub fn status(text: &str) {
    // A second line would be a second word.
    tell(&format!("STATUS={}", text.replace('\n', " ")));
}

/// The start, or the end, goes on: do not kill it within this time, whatever the unit's limit says.
pub(crate) fn extend(within: Duration) {
    tell(&format!("EXTEND_TIMEOUT_USEC={}", within.as_micros()));
}

/// The process is on its way out.
pub fn stopping() {
    tell("STOPPING=1\nSTATUS=draining");
}

fn tell(word: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
        return;
    };
    if let Err(error) = send(&socket, word) {
        tracing::debug!(%error, "systemd cannot be told");
    }
}

fn send(socket: &OsStr, word: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    UnixDatagram::unbound()?.send_to_addr(word.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_reaches_a_socket_in_the_file_system_and_an_abstract_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("forebay-notify-{}", std::process::id());
        let in_files = UnixDatagram::bind(&path).unwrap();
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let abstract_one = UnixDatagram::bind_addr(&address).unwrap();
        for (socket, named) in
            [(in_files, path.into_os_string()), (abstract_one, format!("@{name}").into())]
        {
            send(&named, "READY=1").unwrap();
            let mut word = [0; 64];
            let length = socket.recv(&mut word).unwrap();
            assert_eq!(&word[..length], b"READY=1");
        }
        assert!(send(OsStr::new("/nowhere/notify"), "READY=1").is_err());
    }
}
