//! Some neighbouring rows of a batch as a batch of their own.

use std::ops::Range;

use super::{MessageColumns, ReadingColumns, Rows};

impl Rows {
    /// The rows `range` with their messages, in the same order, each as it is here.
    ///
    /// It covers the entries of those messages. For rare use: dictionaries and texts are copied
    /// whole.
    ///
    /// # Panics
    /// If there are no such rows.
    #[must_use]
    pub fn piece(&self, range: Range<usize>) -> Self {
        let of = &self.reading;
        // Rows lie in the order of their messages.
        let (first, last) = match of.message[range.clone()] {
            [] => (0, 0),
            [first, ..] => (first as usize, of.message[range.end - 1] as usize + 1),
        };
        let numbers = of.message[range.clone()].iter().map(|number| number - first as u32);
        let message = MessageColumns {
            tenant: self.message.tenant[first..last].to_vec(),
            device: self.message.device[first..last].to_vec(),
            session: self.message.session[first..last].to_vec(),
            seq: self.message.seq[first..last].to_vec(),
            received_us: self.message.received_us[first..last].to_vec(),
            entry: self.message.entry[first..last].to_vec(),
            profile: self.message.profile[first..last].to_vec(),
        };
        let reading = ReadingColumns {
            message: numbers.collect(),
            index: of.index[range.clone()].to_vec(),
            key: of.key[range.clone()].to_vec(),
            kind: of.kind[range.clone()].to_vec(),
            value: of.value[range.clone()].to_vec(),
            label: of.label[range.clone()].to_vec(),
            time_us: of.time_us[range.clone()].to_vec(),
            suspect: of.suspect[range].to_vec(),
        };
        let mut piece = Self {
            tenants: self.tenants.clone(),
            devices: self.devices.clone(),
            keys: self.keys.clone(),
            labels: self.labels.clone(),
            sent_labels: self.sent_labels.clone(),
            sent_label_bytes: self.sent_label_bytes,
            profiles: self.profiles.clone(),
            entries: message.entry.len() as u64,
            message,
            reading,
            text: self.text.clone(),
            ..Self::new(self.queue)
        };
        if piece.entries > 0 {
            piece.first = piece.entry(0);
            piece.last = piece.entry(piece.messages() - 1);
        }
        piece
    }

    /// Lets the places of the rows of a batch of one message begin at `index`.
    pub(crate) fn number_from(&mut self, index: u16) {
        for (row, place) in self.reading.index.iter_mut().enumerate() {
            *place = index + row as u16;
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_model::{Body, Message, MessageId, Reading, SessionId, Timestamp, Value};
    use forebay_wire::{QueueId, Seq};

    use super::*;

    #[test]
    fn a_piece_has_the_same_rows_as_the_batch() {
        let mut rows = Rows::new(QueueId::new(3));
        for number in 1..=20_u64 {
            let reading = |place: u64| Reading {
                key: format!("key-{}", place % 3).into(),
                value: Value::Text(format!("{number}.{place}").into()),
                unit: (place == 1).then(|| "Cel".into()),
                time: None,
            };
            let message = Message {
                tenant: "default".into(),
                device: format!("device-{}", number % 5).into(),
                session: SessionId::new(1).expect("small"),
                seq: MessageId::new(number).expect("small"),
                rejected_before: 0,
                received: Timestamp::from_micros(number as i64).expect("in bounds"),
                body: Body::Readings((0..number % 4 + 1).map(reading).collect()),
            };
            rows.append(Seq::from_parts(1, number), &message);
        }
        let shown = |rows: &Rows| rows.iter().map(|row| format!("{row:?}")).collect::<Vec<_>>();
        let all = shown(&rows);
        for start in 0..rows.len() {
            for end in start + 1..=rows.len() {
                let piece = rows.piece(start..end);
                assert_eq!(shown(&piece), all[start..end]);
                let covers = (piece.row(0).entry, piece.row(piece.len() - 1).entry);
                assert_eq!(piece.span(), Some(covers));
            }
        }
    }
}
