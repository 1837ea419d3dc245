//! Reading and writing what a device sends. Strict: what is accepted here is stored.

use std::borrow::Cow;

use forebay_model::{Body, Invalid, MessageId, Reading, SessionId, Timestamp, Value, limits};

use super::encoding::{
    CborReader, CborWriter, Flaw, JsonReader, JsonWriter, Reader, Scalar, Writer, flaw, skip, text,
    text_or_null, uint, under, wrong,
};
use super::{ClientFrame, DecodeError, Fault, Format, Token, senml};
use crate::limits::TOKEN_BYTES_MAX;

/// Bytes of the shortest reading in CBOR: `{"key":"k","value":1}`.
const READING_BYTES_MIN: usize = 14;

impl<'b> ClientFrame<'b> {
    /// Reads one frame; texts borrow from `message`, and a body is within the bounds of the model.
    ///
    /// `received` is the front's clock: SenML times may be relative to it.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong and where. With a `seq` in it, reject that message; else
    /// close the connection with [`super::CloseCode::BadMessage`].
    pub fn decode(
        format: Format,
        message: &'b [u8],
        received: Timestamp,
    ) -> Result<Self, DecodeError> {
        match format {
            Format::Cbor => read(CborReader::new(message), received)
                .map_err(|flaw| with_seq(*flaw, CborReader::new(message))),
            Format::Json => read(JsonReader::new(message), received)
                .map_err(|flaw| with_seq(*flaw, JsonReader::new(message))),
        }
    }

    /// Appends the frame to `out`; readings are written as `readings`, never as SenML.
    ///
    /// The body must be within the bounds of the model, or the front rejects it.
    pub fn encode(&self, format: Format, out: &mut Vec<u8>) {
        match format {
            Format::Cbor => self.write(&mut CborWriter(out)),
            Format::Json => self.write(&mut JsonWriter::new(out)),
        }
    }

    fn write(&self, writer: &mut impl Writer) {
        match self {
            Self::Hello { session, next_seq, token } => {
                writer.map(2 + usize::from(token.is_some()));
                writer.key("session");
                writer.uint(session.get());
                writer.key("next_seq");
                writer.uint(next_seq.get());
                if let Some(token) = token {
                    writer.key("token");
                    writer.text(token.expose());
                }
            }
            Self::Data { seq, body } => write_data(*seq, body, writer),
        }
        writer.end_map();
    }
}

fn write_data(seq: MessageId, body: &Body<'_>, writer: &mut impl Writer) {
    match body {
        Body::Readings(readings) => {
            writer.map(2);
            writer.key("seq");
            writer.uint(seq.get());
            writer.key("readings");
            writer.array(readings.len());
            readings.iter().for_each(|reading| write_reading(reading, writer));
            writer.end_array();
        }
        Body::Opaque { content_type, payload } => {
            writer.map(3);
            writer.key("seq");
            writer.uint(seq.get());
            writer.key("content_type");
            writer.text(content_type);
            writer.key("payload");
            writer.bytes(payload);
        }
    }
}

fn write_reading(reading: &Reading<'_>, writer: &mut impl Writer) {
    writer.map(2 + usize::from(reading.unit.is_some()) + usize::from(reading.time.is_some()));
    writer.key("key");
    writer.text(&reading.key);
    writer.key("value");
    match &reading.value {
        Value::Float(number) => writer.float(*number),
        Value::Int(number) => writer.int(*number),
        Value::Bool(on) => writer.bool(*on),
        Value::Text(text) => writer.text(text),
    }
    if let Some(unit) = &reading.unit {
        writer.key("unit");
        writer.text(unit);
    }
    if let Some(time) = reading.time {
        writer.key("time");
        writer.int(time.micros());
    }
    writer.end_map();
}

/// The parts of a frame as far as they have come; which kind it is shows at the end.
#[derive(Default)]
struct Parts<'b> {
    session: Option<SessionId>,
    next_seq: Option<MessageId>,
    token: Option<Option<Token<'b>>>,
    seq: Option<MessageId>,
    readings: Option<Vec<Reading<'b>>>,
    senml: Option<Vec<Reading<'b>>>,
    content_type: Option<Cow<'b, str>>,
    payload: Option<Cow<'b, [u8]>>,
}

fn read<'b, R: Reader<'b>>(mut reader: R, received: Timestamp) -> Result<ClientFrame<'b>, Flaw> {
    let reader = &mut reader;
    let mut parts = Parts::default();
    let mut items = reader.map("a map")?;
    while reader.more(&mut items)? {
        let at = reader.at();
        let key = reader.key()?;
        match key.text() {
            b"seq" => once(&mut parts.seq, "seq", at, message_id(reader))?,
            b"readings" => once(&mut parts.readings, "readings", at, readings(reader))?,
            b"senml" => once(&mut parts.senml, "senml", at, senml::read(reader, received))?,
            b"content_type" => once(&mut parts.content_type, "content_type", at, text(reader))?,
            b"payload" => once(&mut parts.payload, "payload", at, reader.bytes())?,
            b"session" => once(&mut parts.session, "session", at, session_id(reader))?,
            b"next_seq" => once(&mut parts.next_seq, "next_seq", at, message_id(reader))?,
            b"token" => once(&mut parts.token, "token", at, token(reader))?,
            _ => return Err(flaw(at, key.unknown())),
        }
    }
    reader.finish()?;
    parts.frame().map_err(|fault| {
        let place = super::Place::default();
        Box::new(DecodeError { seq: None, place, fault })
    })
}

impl<'b> Parts<'b> {
    /// Tells the kind of frame by the keys it had.
    fn frame(self) -> Result<ClientFrame<'b>, Fault> {
        match self {
            Self {
                seq: Some(seq),
                session: None,
                next_seq: None,
                token: None,
                readings,
                senml,
                content_type,
                payload,
            } => {
                let body = match (readings, senml, content_type, payload) {
                    (Some(readings), None, None, None) | (None, Some(readings), None, None) => {
                        Body::Readings(readings)
                    }
                    (None, None, Some(content_type), Some(payload)) => {
                        Body::Opaque { content_type, payload }
                    }
                    (None, None, Some(_), None) => {
                        return Err(Fault::MissingKey { key: "payload" });
                    }
                    (None, None, None, Some(_)) => {
                        return Err(Fault::MissingKey { key: "content_type" });
                    }
                    (None, None, None, None) => {
                        return Err(Fault::MissingKey { key: "readings, senml or payload" });
                    }
                    _ => {
                        return Err(Fault::BadShape {
                            what: "more than one of readings, senml and payload",
                        });
                    }
                };
                // Readings were checked one by one, where their place is known.
                if let Body::Opaque { .. } = body {
                    body.validate()?;
                }
                Ok(ClientFrame::Data { seq, body })
            }
            Self {
                seq: None,
                readings: None,
                senml: None,
                content_type: None,
                payload: None,
                session,
                next_seq,
                token,
            } => {
                let session = session.ok_or(Fault::MissingKey { key: "session" })?;
                let next_seq = next_seq.ok_or(Fault::MissingKey { key: "next_seq" })?;
                Ok(ClientFrame::Hello { session, next_seq, token: token.flatten() })
            }
            Self { seq: None, .. } => Err(Fault::MissingKey { key: "seq" }),
            _ => Err(Fault::BadShape { what: "keys of hello and of data in one frame" }),
        }
    }
}

/// Fills a slot that must be empty.
#[inline]
fn once<T>(
    slot: &mut Option<T>,
    key: &'static str,
    at: usize,
    value: Result<T, Flaw>,
) -> Result<(), Flaw> {
    match (value, &slot) {
        (Ok(value), None) => {
            *slot = Some(value);
            Ok(())
        }
        (Ok(_), Some(_)) => Err(under(key)(flaw(at, Fault::DuplicateKey))),
        (Err(flaw), _) => Err(under(key)(flaw)),
    }
}

fn message_id<'b>(reader: &mut impl Reader<'b>) -> Result<MessageId, Flaw> {
    let at = reader.at();
    MessageId::new(uint(reader)?).map_err(|invalid| flaw(at, invalid.into()))
}

fn session_id<'b>(reader: &mut impl Reader<'b>) -> Result<SessionId, Flaw> {
    let at = reader.at();
    SessionId::new(uint(reader)?).map_err(|invalid| flaw(at, invalid.into()))
}

fn token<'b>(reader: &mut impl Reader<'b>) -> Result<Option<Token<'b>>, Flaw> {
    let at = reader.at();
    let token = text_or_null(reader)?;
    if let Some(bytes) = token.as_ref().map(|token| token.len()).filter(|n| *n > TOKEN_BYTES_MAX) {
        let invalid = Invalid::TooLong { what: "token", bytes, bytes_max: TOKEN_BYTES_MAX };
        return Err(flaw(at, invalid.into()));
    }
    Ok(token.map(Token::new))
}

fn readings<'b, R: Reader<'b>>(reader: &mut R) -> Result<Vec<Reading<'b>>, Flaw> {
    let at = reader.at();
    let mut items = reader.array("an array of readings")?;
    let room = items.room(reader.left(), READING_BYTES_MIN).min(limits::READINGS_MAX);
    let mut readings = Vec::with_capacity(room);
    while reader.more(&mut items)? {
        let index = readings.len();
        if index == limits::READINGS_MAX {
            return Err(flaw(at, Invalid::TooManyReadings { count: index + 1 }.into()));
        }
        match reading(reader) {
            Ok(reading) => readings.push(reading),
            Err(mut flaw) => {
                flaw.place.index = Some(index);
                return Err(flaw);
            }
        }
    }
    if readings.is_empty() {
        return Err(flaw(at, Invalid::NoReadings.into()));
    }
    Ok(readings)
}

fn reading<'b, R: Reader<'b>>(reader: &mut R) -> Result<Reading<'b>, Flaw> {
    let begin = reader.at();
    let (mut name, mut measured, mut unit, mut time) = (None, None, None, None);
    let mut items = reader.map("a map for a reading")?;
    while reader.more(&mut items)? {
        let at = reader.at();
        let key = reader.key()?;
        match key.text() {
            b"key" => once(&mut name, "key", at, text(reader))?,
            b"value" => once(&mut measured, "value", at, value(reader))?,
            b"unit" => once(&mut unit, "unit", at, text_or_null(reader))?,
            b"time" => once(&mut time, "time", at, timestamp(reader))?,
            _ => return Err(flaw(at, key.unknown())),
        }
    }
    let missing = |key| flaw(begin, Fault::MissingKey { key });
    let reading = Reading {
        key: name.ok_or_else(|| missing("key"))?,
        value: measured.ok_or_else(|| missing("value"))?,
        unit: unit.flatten(),
        time: time.flatten(),
    };
    reading.validate().map_err(|invalid| flaw(begin, invalid.into()))?;
    Ok(reading)
}

fn value<'b>(reader: &mut impl Reader<'b>) -> Result<Value<'b>, Flaw> {
    const EXPECTED: &str = "a number, a text or a boolean";
    let at = reader.at();
    match reader.scalar(EXPECTED)? {
        Scalar::Float(number) => Ok(Value::Float(number)),
        Scalar::Int(number) => Ok(Value::Int(number)),
        Scalar::Bool(on) => Ok(Value::Bool(on)),
        Scalar::Text(text) => Ok(Value::Text(text)),
        other => Err(flaw(at, wrong(EXPECTED, other.name()))),
    }
}

fn timestamp<'b>(reader: &mut impl Reader<'b>) -> Result<Option<Timestamp>, Flaw> {
    const EXPECTED: &str = "an integer of microseconds since 1970";
    let at = reader.at();
    match reader.scalar(EXPECTED)? {
        Scalar::Int(time_us) => {
            Timestamp::from_micros(time_us).map(Some).map_err(|invalid| flaw(at, invalid.into()))
        }
        Scalar::Null => Ok(None),
        other => Err(flaw(at, wrong(EXPECTED, other.name()))),
    }
}

/// Looks for the number of a message that is refused, so that it can be rejected by name.
///
/// Reads the outer map again and passes over everything else; what comes before the number must be
/// well-formed. A frame with two numbers has none.
#[cold]
fn with_seq<'b, R: Reader<'b>>(mut error: DecodeError, mut reader: R) -> DecodeError {
    let twice = error.fault == Fault::DuplicateKey && error.place.key == Some("seq");
    if !twice {
        error.seq = find_seq(&mut reader).ok().flatten();
    }
    error
}

fn find_seq<'b, R: Reader<'b>>(reader: &mut R) -> Result<Option<MessageId>, Flaw> {
    let mut items = reader.map("a map")?;
    while reader.more(&mut items)? {
        if reader.key()?.text() == b"seq" {
            return message_id(reader).map(Some);
        }
        skip(reader, 0)?;
    }
    Ok(None)
}
