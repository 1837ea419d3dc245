//! One HTTP request to a server under test, and its whole answer.
//!
//! Enough for loopback: no TLS, no redirects, no reuse of a connection, a deadline on every wait.

use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body of a good answer.
    ///
    /// # Errors
    /// The status is not 2xx; the error shows the body.
    pub fn good(self) -> Result<String> {
        if (200..300).contains(&self.status) {
            return Ok(self.text());
        }
        bail!("HTTP {}: {}", self.status, self.text().trim())
    }
}

/// Asks for `target` (path and query) with GET.
///
/// # Errors
/// No whole answer came within `deadline` for any single step.
pub fn get(server: SocketAddr, target: &str, deadline: Duration) -> Result<Answer> {
    request(server, "GET", target, &[], &[], deadline)
}

/// Sends a request and reads the whole answer; `headers` are added to the necessary ones.
///
/// # Errors
/// As [`get`].
pub fn request(
    server: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    deadline: Duration,
) -> Result<Answer> {
    let stream = TcpStream::connect_timeout(&server, deadline)
        .with_context(|| format!("connect to {server}"))?;
    stream.set_read_timeout(Some(deadline))?;
    stream.set_write_timeout(Some(deadline))?;
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    (&stream).write_all(head.as_bytes())?;
    (&stream).write_all(body)?;
    read_answer(&mut BufReader::new(&stream)).with_context(|| format!("{method} of {server}"))
}

/// Encodes a text for the query part of a target.
pub fn encode_query(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    let encode = |byte: u8| match plain(&byte) {
        true => (byte as char).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

fn read_answer(stream: &mut impl std::io::BufRead) -> Result<Answer> {
    let first = line(stream)?;
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("no status in {first:?}"))?;
    let (mut length, mut chunked) = (None, false);
    loop {
        let header = line(stream)?;
        let Some((name, value)) = header.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse::<usize>()?);
        }
        chunked |= name.eq_ignore_ascii_case("transfer-encoding") && value.contains("chunked");
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            let size = usize::from_str_radix(line(stream)?.trim(), 16)?;
            let start = body.len();
            body.resize(start + size, 0);
            stream.read_exact(&mut body[start..])?;
            line(stream)?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = length {
        body.resize(length, 0);
        stream.read_exact(&mut body)?;
    } else {
        stream.read_to_end(&mut body)?;
    }
    Ok(Answer { status, body })
}

fn line(stream: &mut impl std::io::BufRead) -> Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        bail!("the answer ends early");
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_however_they_are_framed() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\nhello",
        ] {
            let answer = read_answer(&mut text.as_bytes()).unwrap();
            assert_eq!((answer.status, answer.good().unwrap().as_str()), (200, "hello"));
        }
        let cut = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel";
        assert!(read_answer(&mut cut.as_bytes()).is_err());
        let refused = read_answer(&mut "HTTP/1.1 503 No\r\n\r\nlater".as_bytes()).unwrap();
        assert_eq!(refused.good().unwrap_err().to_string(), "HTTP 503: later");
    }

    #[test]
    fn a_query_is_encoded_so_that_nothing_of_it_is_syntax() {
        assert_eq!(encode_query("SELECT 'a&b' +1"), "SELECT%20%27a%26b%27%20%2B1");
    }
}
