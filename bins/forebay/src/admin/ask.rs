//! One request to an admin port: HTTP/1.1 over a socket of its own, with a deadline.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    time::Duration,
};

/// An answer is some hundred KiB at most.
const ANSWER_BYTES_MAX: u64 = 8 << 20;

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// The status, such as 200.
    pub(crate) code: u16,
    /// The body as text.
    pub(crate) body: String,
}

/// Asks with GET.
///
/// # Errors
/// As for [`ask`].
pub(crate) fn get(address: &str, path: &str, within: Duration) -> io::Result<Answer> {
    ask(address, "GET", path, None, within)
}

/// Asks `address` (`host:port`), and with `token` if there is one.
///
/// # Errors
/// Nobody answers within the time, or the answer is none.
pub(crate) fn ask(
    address: &str,
    method: &str,
    path: &str,
    token: Option<&str>,
    within: Duration,
) -> io::Result<Answer> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for one in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&one, within) {
            Ok(socket) => return talk(socket, address, method, path, token, within),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn talk(
    mut socket: TcpStream,
    address: &str,
    method: &str,
    path: &str,
    token: Option<&str>,
    within: Duration,
) -> io::Result<Answer> {
    socket.set_read_timeout(Some(within))?;
    socket.set_write_timeout(Some(within))?;
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    write!(
        socket,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Length: 0\r\n{token}\r\n"
    )?;
    let mut answer = String::new();
    socket.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    let bad = || io::Error::other(format!("{address} does not speak HTTP"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(bad)?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(bad)?;
    Ok(Answer { code, body: body.to_owned() })
}
