//! What holds for any bytes: they are refused or read, and what was read, written and read again,
//! says the same. Used by the property tests and by the fuzz targets.

use forebay_model::Timestamp;
use forebay_wire::device::{ClientFrame, Format, ServerFrame};
use forebay_wire::feed::{ConsumerState, Feed, Stored};
use forebay_wire::frame::{BODY_BYTES_MAX, Frame, Header, Kind};
use forebay_wire::records::RecordBatch;
use forebay_wire::uplink::Uplink;
use forebay_wire::{QueueId, Seq, entry, live};

const KINDS: [Kind; 17] = [
    Kind::Hello,
    Kind::Welcome,
    Kind::Batch,
    Kind::Ack,
    Kind::Nack,
    Kind::Ping,
    Kind::Pong,
    Kind::Refuse,
    Kind::Data,
    Kind::Head,
    Kind::Fetch,
    Kind::Records,
    Kind::End,
    Kind::Open,
    Kind::Prepare,
    Kind::Commit,
    Kind::Answer,
];

/// The bytes as they are, and as the fields and body of a frame whose checksums are right: nobody
/// guesses these.
fn frames(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = vec![bytes.to_vec()];
    if let Some((fields, body)) = bytes.split_at_checked(55)
        && body.len() <= BODY_BYTES_MAX
    {
        let u64_at =
            |at: usize| u64::from_le_bytes(fields[at..at + 8].try_into().unwrap_or([0; 8]));
        let header = Header {
            kind: KINDS[usize::from(fields[0]) % KINDS.len()],
            round: u16::from_le_bytes([fields[1], fields[2]]),
            queue: QueueId::new(u128::from(u64_at(3)) << 64 | u128::from(u64_at(11))),
            session: u64_at(19),
            prev: Seq::new(u64_at(27)),
            base: Seq::new(u64_at(35)),
            count: u64_at(43) as u32,
        };
        frames.push(header.encode(body).to_vec());
    }
    frames
}

/// Frames between front and middle.
pub(crate) fn uplink(bytes: &[u8]) {
    for frame in frames(bytes) {
        let Ok(read) = Uplink::decode(&frame) else { continue };
        let again = match &read {
            Uplink::Hello(hello) => hello.encode(),
            Uplink::Welcome(welcome) => welcome.encode(),
            Uplink::Ack(standing) => standing.encode_ack(),
            Uplink::Pong(standing) => standing.encode_pong(),
            Uplink::Nack(nack) => nack.encode(),
            Uplink::Ping(ping) => ping.encode(),
            // The code and the versions of a later release are told in words of this one.
            Uplink::Refuse(_) => continue,
            Uplink::Batch(batch) => {
                let bytes: usize = batch.records.iter().map(|record| record.payload.len()).sum();
                assert!(bytes <= frame.len(), "records lie within their frame");
                assert_eq!(
                    batch.records.iter().last().map(|last| last.seq),
                    Some(batch.records.last())
                );
                let _kept = RecordBatch::from_frame(&frame.clone().into());
                continue;
            }
        };
        assert_eq!(Uplink::decode(&again), Ok(read));
    }
}

/// Frames between middle and storage: the feed, fetches, consumers, and what a middle notes.
pub(crate) fn feed(bytes: &[u8]) {
    let _stored = Stored::decode(bytes);
    if let Some(state) = ConsumerState::from_note(bytes) {
        assert_eq!(ConsumerState::from_note(&state.to_note()), Some(state));
    }
    for frame in frames(bytes) {
        let Ok(read) = Feed::decode(&frame) else { continue };
        let again = match &read {
            Feed::Head(head) => head.encode(),
            Feed::Fetch(fetch) => fetch.encode(),
            Feed::End(end) => end.encode(),
            Feed::Open(open) => open.encode(),
            Feed::Prepare(prepare) => prepare.encode(),
            Feed::Commit(commit) => commit.encode(),
            Feed::Answer(answer) => answer.encode(),
            Feed::Ping(ping) => ping.encode(),
            Feed::Pong(standing) => standing.encode_pong(),
            Feed::Refuse(_) => continue,
            Feed::Data(data) | Feed::Records(data) => {
                let bytes: usize = data.records.iter().map(|record| record.payload.len()).sum();
                assert!(bytes <= frame.len(), "records lie within their frame");
                let _whole = Frame::decode(&frame)
                    .map(|frame| RecordBatch::from_frame(&frame.body.to_vec().into()));
                continue;
            }
        };
        assert_eq!(Feed::decode(&again), Ok(read));
    }
}

/// Frames of devices, and the front's own as a client reads them.
pub(crate) fn device(format: Format, bytes: &[u8]) {
    let received = Timestamp::from_micros(1_700_000_000_000_000).unwrap_or(Timestamp::now());
    if let Ok(read) = ClientFrame::decode(format, bytes, received) {
        let mut once = Vec::new();
        read.encode(format, &mut once);
        let again = ClientFrame::decode(format, &once, received);
        let mut twice = Vec::new();
        again
            .unwrap_or_else(|error| panic!("own words are refused: {error:?}"))
            .encode(format, &mut twice);
        assert_eq!(once, twice);
    }
    if let Ok(read) = ServerFrame::decode(format, bytes) {
        let mut once = Vec::new();
        read.encode(format, &mut once);
        let _read_again = ServerFrame::decode(format, &once);
    }
}

/// Entries, as they rest in queues.
pub(crate) fn canonical_entry(bytes: &[u8]) {
    let head = entry::head(bytes);
    if let Ok(message) = entry::decode(bytes) {
        assert_eq!(head.map(|head| head.seq).ok(), Some(message.seq));
        let mut once = Vec::new();
        entry::encode(&message, &mut once);
        let again = entry::decode(&once);
        let mut twice = Vec::new();
        entry::encode(
            &again.unwrap_or_else(|error| panic!("own entry is refused: {error}")),
            &mut twice,
        );
        assert_eq!(once, twice);
    }
}

/// Texts of live readers, and the server's own as a client reads them.
pub(crate) fn live(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(read) = live::ClientFrame::decode(text) {
        let once = read.encode();
        let again = live::ClientFrame::decode(&once);
        assert_eq!(again.map(|again| again.encode()), Ok(once));
    }
    if let Ok(read) = live::ServerFrame::decode(text) {
        let mut once = Vec::new();
        read.encode(&mut once);
        let text = std::str::from_utf8(&once).unwrap_or_else(|error| panic!("not a text: {error}"));
        let mut twice = Vec::new();
        let again = live::ServerFrame::decode(text);
        again.unwrap_or_else(|error| panic!("own words are refused: {error}")).encode(&mut twice);
        assert_eq!(once, twice);
    }
}
