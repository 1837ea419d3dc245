//! The messages of one read, encoded one behind another and appended at once.

use forebay_model::Message;
use forebay_wire::entry;

use super::sequence::Mark;

/// Canonical entries that wait for their append.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    /// Where each entry ends.
    ends: Vec<usize>,
    /// Where the session stood before the first.
    from: Option<Mark>,
    /// Bytes of the messages as they were received.
    received_bytes: usize,
}

impl Batch {
    /// Encodes `message` behind the others and returns the length of its entry.
    pub(crate) fn push(&mut self, message: &Message<'_>, received_bytes: usize, at: Mark) -> usize {
        let start = self.bytes.len();
        entry::encode(message, &mut self.bytes);
        self.ends.push(self.bytes.len());
        self.from.get_or_insert(at);
        self.received_bytes += received_bytes;
        self.bytes.len() - start
    }

    /// Takes the last entry out again, which was received as `received_bytes`.
    pub(crate) fn pop(&mut self, received_bytes: usize) {
        self.ends.pop();
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
        self.received_bytes -= received_bytes;
        if self.ends.is_empty() {
            self.from = None;
        }
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of all entries.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of the messages as they were received.
    pub(crate) fn received_bytes(&self) -> usize {
        self.received_bytes
    }

    /// Where the session stood before the first entry; `None` if there is none.
    pub(crate) fn from(&self) -> Option<Mark> {
        self.from
    }

    /// The entries in order.
    pub(crate) fn entries(&self) -> Vec<&[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end]).collect()
    }

    /// Forgets the entries and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.from = None;
        self.received_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use forebay_model::{Body, MessageId, SessionId, Timestamp};

    use super::{super::sequence::Sequence, *};

    fn message(seq: u64) -> Message<'static> {
        Message {
            tenant: "default".into(),
            device: "pump".into(),
            session: SessionId::new(1).expect("valid"),
            seq: MessageId::new(seq).expect("valid"),
            rejected_before: 0,
            received: Timestamp::now(),
            body: Body::Opaque {
                content_type: "text/plain".into(),
                payload: vec![7; usize::try_from(seq).expect("small")].into(),
            },
        }
    }

    #[test]
    fn entries_come_out_as_they_went_in_and_the_last_can_be_taken_back() {
        let (mut batch, mut sequence) = (Batch::default(), Sequence::new(1));
        let first = sequence.mark();
        for seq in 1..=3 {
            let length = batch.push(&message(seq), 10, sequence.mark());
            assert_eq!(length, batch.entries().last().expect("pushed").len());
            sequence.accept();
        }
        batch.pop(10);
        let seqs: Vec<u64> = batch
            .entries()
            .iter()
            .map(|entry| entry::decode(entry).expect("an entry").seq.get())
            .collect();
        assert_eq!((seqs, batch.received_bytes(), batch.from()), (vec![1, 2], 20, Some(first)));
        batch.pop(10);
        batch.pop(10);
        assert_eq!((batch.len(), batch.bytes(), batch.from()), (0, 0, None));
    }
}
