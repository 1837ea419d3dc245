//! Reading and writing what a front sends. Tolerant: a key that is not known is passed over.

use std::borrow::Cow;

use forebay_model::{MessageId, Timestamp};

use super::encoding::{
    CborReader, CborWriter, Flaw, JsonReader, JsonWriter, Reader, Scalar, Writer, flaw, skip, text,
    uint, under, wrong,
};
use super::{DecodeError, Fault, Format, Level, NackCode, Place, ServerFrame};
use crate::limits::REASON_BYTES_MAX;

impl<'b> ServerFrame<'b> {
    /// Reads one frame; texts borrow from `message`.
    ///
    /// # Errors
    /// [`DecodeError`]: the other side does not speak this protocol. Close and report it.
    pub fn decode(format: Format, message: &'b [u8]) -> Result<Self, DecodeError> {
        match format {
            Format::Cbor => read(CborReader::new(message)),
            Format::Json => read(JsonReader::new(message)),
        }
        .map_err(|flaw| *flaw)
    }

    /// Appends the frame to `out`. Raw connections get the JSON form.
    pub fn encode(&self, format: Format, out: &mut Vec<u8>) {
        match format {
            Format::Cbor => self.write(&mut CborWriter(out)),
            Format::Json => self.write(&mut JsonWriter::new(out)),
        }
    }

    fn write(&self, writer: &mut impl Writer) {
        match self {
            Self::Welcome { acked, credit, max_message, ping_s, time, level } => {
                writer.map(6);
                writer.key("acked");
                match acked {
                    Some(acked) => writer.uint(acked.get()),
                    None => writer.null(),
                }
                writer.key("credit");
                writer.uint(u64::from(*credit));
                writer.key("max_message");
                writer.uint(u64::from(*max_message));
                writer.key("ping_s");
                writer.uint(u64::from(*ping_s));
                writer.key("time");
                writer.int(time.micros());
                writer.key("level");
                writer.text(level.as_str());
            }
            Self::Ack { ack, credit } => {
                writer.map(1 + usize::from(credit.is_some()));
                writer.key("ack");
                writer.uint(ack.get());
                if let Some(credit) = credit {
                    writer.key("credit");
                    writer.uint(u64::from(*credit));
                }
            }
            Self::Nack { nack, code, retry_ms, expect } => {
                writer.map(3 + usize::from(expect.is_some()));
                writer.key("nack");
                writer.uint(nack.get());
                writer.key("code");
                writer.text(code.as_str());
                writer.key("retry_ms");
                writer.uint(u64::from(*retry_ms));
                if let Some(expect) = expect {
                    writer.key("expect");
                    writer.uint(expect.get());
                }
            }
            Self::Reject { seq, code, reason } => {
                writer.map(3);
                writer.key("seq");
                writer.uint(seq.get());
                writer.key("code");
                writer.text(code);
                writer.key("reason");
                writer.text(cut(reason));
            }
        }
        writer.end_map();
    }
}

/// At most [`REASON_BYTES_MAX`] bytes of a reason.
fn cut(reason: &str) -> &str {
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

/// The parts of a frame as far as they have come.
#[derive(Default)]
struct Parts<'b> {
    acked: Option<Option<MessageId>>,
    ack: Option<MessageId>,
    nack: Option<MessageId>,
    seq: Option<MessageId>,
    expect: Option<MessageId>,
    credit: Option<u32>,
    max_message: Option<u32>,
    ping_s: Option<u32>,
    retry_ms: Option<u32>,
    time: Option<Timestamp>,
    level: Option<Level>,
    code: Option<Cow<'b, str>>,
    reason: Option<Cow<'b, str>>,
}

fn read<'b, R: Reader<'b>>(mut reader: R) -> Result<ServerFrame<'b>, Flaw> {
    let reader = &mut reader;
    let mut parts = Parts::default();
    let mut items = reader.map("a map")?;
    while reader.more(&mut items)? {
        let key = reader.key()?;
        match key.text() {
            b"ack" => put(&mut parts.ack, "ack", message_id(reader))?,
            b"credit" => put(&mut parts.credit, "credit", small(reader))?,
            b"nack" => put(&mut parts.nack, "nack", message_id(reader))?,
            b"code" => put(&mut parts.code, "code", text(reader))?,
            b"retry_ms" => put(&mut parts.retry_ms, "retry_ms", small(reader))?,
            b"expect" => put(&mut parts.expect, "expect", message_id(reader))?,
            b"seq" => put(&mut parts.seq, "seq", message_id(reader))?,
            b"reason" => put(&mut parts.reason, "reason", text(reader))?,
            b"acked" => put(&mut parts.acked, "acked", message_id_or_null(reader))?,
            b"max_message" => put(&mut parts.max_message, "max_message", small(reader))?,
            b"ping_s" => put(&mut parts.ping_s, "ping_s", small(reader))?,
            b"time" => put(&mut parts.time, "time", timestamp(reader))?,
            b"level" => put(&mut parts.level, "level", level(reader))?,
            _ => skip(reader, 0)?,
        }
    }
    reader.finish()?;
    parts
        .frame()
        .map_err(|fault| Box::new(DecodeError { seq: None, place: Place::default(), fault }))
}

impl<'b> Parts<'b> {
    /// Tells the kind of frame by the key that only it has.
    fn frame(self) -> Result<ServerFrame<'b>, Fault> {
        fn need<T>(part: Option<T>, key: &'static str) -> Result<T, Fault> {
            part.ok_or(Fault::MissingKey { key })
        }
        match (self.ack, self.nack, self.seq, self.acked) {
            (Some(ack), None, None, None) => Ok(ServerFrame::Ack { ack, credit: self.credit }),
            (None, Some(nack), None, None) => Ok(ServerFrame::Nack {
                nack,
                code: NackCode::parse(&need(self.code, "code")?),
                retry_ms: need(self.retry_ms, "retry_ms")?,
                expect: self.expect,
            }),
            (None, None, Some(seq), None) => Ok(ServerFrame::Reject {
                seq,
                code: need(self.code, "code")?,
                reason: need(self.reason, "reason")?,
            }),
            (None, None, None, Some(acked)) => Ok(ServerFrame::Welcome {
                acked,
                credit: need(self.credit, "credit")?,
                max_message: need(self.max_message, "max_message")?,
                ping_s: need(self.ping_s, "ping_s")?,
                time: need(self.time, "time")?,
                level: need(self.level, "level")?,
            }),
            (None, None, None, None) => Err(Fault::MissingKey { key: "ack, nack, seq or acked" }),
            _ => Err(Fault::BadShape { what: "more than one of ack, nack, seq and acked" }),
        }
    }
}

fn put<T>(slot: &mut Option<T>, key: &'static str, value: Result<T, Flaw>) -> Result<(), Flaw> {
    *slot = Some(value.map_err(under(key))?);
    Ok(())
}

fn message_id<'b>(reader: &mut impl Reader<'b>) -> Result<MessageId, Flaw> {
    let at = reader.at();
    MessageId::new(uint(reader)?).map_err(|invalid| flaw(at, invalid.into()))
}

fn message_id_or_null<'b>(reader: &mut impl Reader<'b>) -> Result<Option<MessageId>, Flaw> {
    const EXPECTED: &str = "an integer from 1, or null";
    let at = reader.at();
    match reader.scalar(EXPECTED)? {
        Scalar::Null => Ok(None),
        Scalar::Int(number) => MessageId::new(u64::try_from(number).unwrap_or(0))
            .map(Some)
            .map_err(|invalid| flaw(at, invalid.into())),
        other => Err(flaw(at, wrong(EXPECTED, other.name()))),
    }
}

fn small<'b>(reader: &mut impl Reader<'b>) -> Result<u32, Flaw> {
    let at = reader.at();
    u32::try_from(uint(reader)?)
        .map_err(|_| flaw(at, wrong("an integer below 2^32", "a larger integer")))
}

fn timestamp<'b>(reader: &mut impl Reader<'b>) -> Result<Timestamp, Flaw> {
    let at = reader.at();
    let micros = i64::try_from(uint(reader)?).unwrap_or(i64::MAX);
    Timestamp::from_micros(micros).map_err(|invalid| flaw(at, invalid.into()))
}

fn level<'b>(reader: &mut impl Reader<'b>) -> Result<Level, Flaw> {
    let at = reader.at();
    let found = text(reader)?;
    Level::parse(&found).ok_or_else(|| flaw(at, wrong("process, disk or middle", "another level")))
}
