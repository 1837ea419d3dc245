//! A client without a library: for bytes that no library would send.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{Front, PATIENCE};

/// Opcodes of RFC 6455.
pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// A TCP connection to a front.
pub struct Plain {
    pub stream: TcpStream,
}

impl Plain {
    /// Connects, without a handshake.
    pub async fn connect(front: &Front) -> Self {
        Self::to(front.running.addresses().ingest).await
    }

    /// Connects to `address`.
    pub async fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        Self { stream }
    }

    /// Connects and does the handshake, with `protocol` if it is not empty.
    pub async fn open(front: &Front, device: &str, protocol: &str) -> Self {
        let mut plain = Self::connect(front).await;
        plain.write(request(device, protocol).as_bytes()).await;
        let answer = plain.read_head().await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        plain
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("in time").expect("written");
    }

    /// Reads an HTTP header to its end.
    pub async fn read_head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.read(1).await[0]);
        }
        String::from_utf8(head).expect("text")
    }

    /// Reads `count` bytes.
    pub async fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let read = timeout(PATIENCE, self.stream.read_exact(&mut bytes)).await.expect("in time");
        read.expect("more bytes");
        bytes
    }

    /// Reads a frame of the front: opcode and payload.
    pub async fn read_frame(&mut self) -> (u8, Vec<u8>) {
        let head = self.read(2).await;
        assert_eq!(head[0] & 0x80, 0x80, "the front does not fragment");
        assert_eq!(head[1] & 0x80, 0, "the front does not mask");
        let length = match head[1] {
            126 => {
                let bytes = self.read(2).await;
                usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))
            }
            short => usize::from(short),
        };
        (head[0] & 0x0f, self.read(length).await)
    }

    /// Reads frames until the close frame; its code.
    pub async fn close_code(&mut self) -> u16 {
        loop {
            let (opcode, payload) = self.read_frame().await;
            if opcode == CLOSE {
                return u16::from_be_bytes([payload[0], payload[1]]);
            }
        }
    }

    /// Reads to the end of the stream.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let read = timeout(PATIENCE, self.stream.read_to_end(&mut bytes)).await.expect("in time");
        read.expect("an end, not a reset");
        bytes
    }

    /// Waits for the end of the stream, however it comes.
    pub async fn ended(&mut self, within: Duration) -> bool {
        let mut waste = [0; 1024];
        timeout(within, async {
            while matches!(self.stream.read(&mut waste).await, Ok(count) if count > 0) {}
        })
        .await
        .is_ok()
    }
}

/// A request that opens a WebSocket.
pub fn request(device: &str, protocol: &str) -> String {
    let protocol = match protocol {
        "" => String::new(),
        name => format!("Sec-WebSocket-Protocol: {name}\r\n"),
    };
    format!(
        "GET /v1/ingest/{device} HTTP/1.1\r\nHost: front\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}\r\n"
    )
}

/// A masked frame of a client.
pub fn frame(end: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x11, 0x22, 0x33, 0x44];
    let mut bytes = vec![if end { 0x80 } else { 0 } | opcode];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | u8::try_from(length).expect("short")),
        length @ 126..=65_535 => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(length).expect("medium").to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}
