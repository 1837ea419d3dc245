//! What devices say to our front: CBOR frames, built and masked before, of which only the number
//! changes.

use anyhow::{Context as _, Result, bail, ensure};
use forebay_fleet::{script::Script, series::builtin};
use forebay_model::{Body, MessageId, SessionId};
use forebay_wire::device::{ClientFrame, Format, ServerFrame};

use super::Speech;

/// The number of each device's first message: large enough to take nine bytes in CBOR, as all that
/// follow it, so that a frame keeps its length.
const FIRST: u64 = 1 << 32;
/// Different messages; devices share them.
const TEMPLATES: u32 = 64;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// How a message's number begins in its frame.
const SEQ: &[u8] = b"\x63seq\x1b";

/// Devices that say hello and send readings.
pub struct Devices {
    templates: Vec<Template>,
    /// What names the devices of one run.
    prefix: String,
}

struct Template {
    frame: Vec<u8>,
    /// Where the number is in `frame`, and which byte of the mask covers its first.
    seq_at: usize,
    phase: usize,
}

impl Devices {
    /// Devices whose messages take about `bytes` on the wire, two readings each.
    #[must_use]
    pub fn new(prefix: &str, bytes: usize) -> Self {
        let script = Script::new(builtin(), bytes, 1);
        let templates = (0..TEMPLATES).map(|number| {
            let mut readings = Vec::new();
            script.readings(script.voice(number, 1), 1, &mut readings);
            let seq = MessageId::new(FIRST).expect("within the bounds of a seq");
            let mut payload = Vec::new();
            let data = ClientFrame::Data { seq, body: Body::Readings(readings) };
            data.encode(Format::Cbor, &mut payload);
            let at = payload.windows(SEQ.len()).position(|part| part == SEQ).expect("its number");
            let frame = masked(0x82, &payload);
            let phase = at + SEQ.len();
            Template { seq_at: frame.len() - payload.len() + phase, frame, phase }
        });
        Self { templates: templates.collect(), prefix: prefix.to_owned() }
    }

    /// The bytes of a message without the framing, for those who carry them otherwise.
    #[must_use]
    pub fn payload(&self, number: usize) -> Vec<u8> {
        let template = &self.templates[number % self.templates.len()];
        let masked = &template.frame[template.seq_at - template.phase..];
        masked.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()
    }
}

/// A masked frame.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![opcode];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        length => {
            frame.push(0x80 | 126);
            let length = u16::try_from(length).expect("a message of a device is small");
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn request(device: &str, subprotocol: &str) -> String {
    format!(
        "GET /v1/ingest/{device} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n{subprotocol}\r\n"
    )
}

/// How long the answer to the request is; `None` if it has not ended.
fn switched(input: &[u8]) -> Result<Option<usize>> {
    let Some(end) = input.windows(4).position(|part| part == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&input[..end]);
    ensure!(head.starts_with("HTTP/1.1 101 "), "the front refuses: {head}");
    Ok(Some(end + 4))
}

/// A frame of the server at the start of `input`: opcode, payload, bytes in all.
fn frame(input: &[u8]) -> Result<Option<(u8, &[u8], usize)>> {
    let [first, second, ..] = *input else { return Ok(None) };
    ensure!(first & 0x80 != 0 && second & 0x80 == 0, "the front fragments or masks");
    let (from, length) = match second {
        126 => match input.get(2..4) {
            Some(length) => (4, usize::from(u16::from_be_bytes([length[0], length[1]]))),
            None => return Ok(None),
        },
        127 => bail!("the front's frame is too long"),
        short => (2, usize::from(short)),
    };
    Ok(input.get(from..from + length).map(|payload| (first & 0x0f, payload, from + length)))
}

impl Speech for Devices {
    fn greeting(&self, number: usize) -> Vec<u8> {
        let device = format!("{}-{number:06}", self.prefix);
        let subprotocol = format!("Sec-WebSocket-Protocol: {}\r\n", Format::Cbor.subprotocol());
        let mut bytes = request(&device, &subprotocol).into_bytes();
        let hello = ClientFrame::Hello {
            session: SessionId::new(1).expect("small"),
            next_seq: MessageId::new(FIRST).expect("within the bounds of a seq"),
            token: None,
        };
        let mut payload = Vec::new();
        hello.encode(Format::Cbor, &mut payload);
        bytes.extend(masked(0x82, &payload));
        bytes
    }

    fn greeted(&self, input: &[u8]) -> Result<Option<usize>> {
        let Some(head) = switched(input)? else { return Ok(None) };
        let Some((opcode, payload, used)) = frame(&input[head..])? else { return Ok(None) };
        ensure!(opcode == 2, "no welcome but opcode {opcode}");
        match ServerFrame::decode(Format::Cbor, payload).context("a welcome")? {
            ServerFrame::Welcome { .. } => Ok(Some(head + used)),
            other => bail!("no welcome but {other:?}"),
        }
    }

    fn message(&self, number: usize, index: u64, out: &mut Vec<u8>) {
        let template = &self.templates[number % self.templates.len()];
        let start = out.len();
        out.extend_from_slice(&template.frame);
        let place = &mut out[start + template.seq_at..][..8];
        for (at, byte) in (FIRST + index).to_be_bytes().into_iter().enumerate() {
            place[at] = byte ^ MASK[(template.phase + at) % 4];
        }
    }

    fn answers(&self, input: &[u8], mut acked: u64, out: &mut Vec<u8>) -> Result<(usize, u64)> {
        let mut used = 0;
        while let Some((opcode, payload, bytes)) = frame(&input[used..])? {
            used += bytes;
            match opcode {
                2 => match ServerFrame::decode(Format::Cbor, payload).context("an answer")? {
                    ServerFrame::Ack { ack, .. } => acked = ack.get() + 1 - FIRST,
                    other => bail!("no ack but {other:?}"),
                },
                8 => bail!("closed: {}", String::from_utf8_lossy(payload.get(2..).unwrap_or(&[]))),
                9 => out.extend(masked(0x8a, payload)),
                _ => {}
            }
        }
        Ok((used, acked))
    }
}

/// Strangers that ask for a session in raw mode and want nothing more.
pub struct Callers;

impl Speech for Callers {
    fn greeting(&self, number: usize) -> Vec<u8> {
        request(&format!("caller-{number:06}"), "").into_bytes()
    }

    fn greeted(&self, input: &[u8]) -> Result<Option<usize>> {
        switched(input)
    }

    fn message(&self, _: usize, _: u64, _: &mut Vec<u8>) {}

    fn answers(&self, input: &[u8], acked: u64, _: &mut Vec<u8>) -> Result<(usize, u64)> {
        // A close of the front, as another of the name has come: this end is closed in any case.
        Ok((input.len(), acked))
    }
}

#[cfg(test)]
mod tests {
    use forebay_model::Timestamp;

    use super::*;

    #[test]
    fn frames_are_what_a_front_reads_whatever_their_number() {
        let devices = Devices::new("test", 256);
        for (number, index) in [(0, 0), (5, 1), (63, 0x1234_5678), (64, 7)] {
            let mut bytes = Vec::new();
            devices.message(number, index, &mut bytes);
            let unmasked: Vec<u8> = bytes[8..]
                .iter()
                .zip(MASK.iter().cycle())
                .map(|(byte, mask)| byte ^ mask)
                .collect();
            let frame = ClientFrame::decode(Format::Cbor, &unmasked, Timestamp::now());
            let Ok(ClientFrame::Data { seq, body: Body::Readings(readings) }) = frame else {
                panic!("{frame:?}");
            };
            assert_eq!((seq.get(), readings.len()), (FIRST + index, 2));
            assert!(unmasked.len().abs_diff(256) < 16, "{} bytes", unmasked.len());
        }
    }

    #[test]
    fn acks_are_counted_and_pings_answered() {
        let devices = Devices::new("test", 256);
        let mut payload = Vec::new();
        let ack = MessageId::new(FIRST + 2).expect("valid");
        ServerFrame::Ack { ack, credit: None }.encode(Format::Cbor, &mut payload);
        let mut input = vec![0x82, payload.len() as u8];
        input.extend(&payload);
        input.extend([0x89, 0]);
        let whole = input.len();
        input.push(0x82);
        let mut out = Vec::new();
        assert_eq!(devices.answers(&input, 0, &mut out).expect("good"), (whole, 3));
        assert_eq!(out, masked(0x8a, b""));
    }
}
