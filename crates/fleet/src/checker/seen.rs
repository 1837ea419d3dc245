//! Which rows of one session have been met: a bit for each (seq, index).

/// A set of (seq, index), seq from 1.
#[derive(Debug, Default)]
pub(super) struct Seen {
    rows: u64,
    words: Vec<u64>,
}

impl Seen {
    /// An empty set for messages of this many rows.
    pub(super) fn new(rows: u16) -> Self {
        Self { rows: u64::from(rows.max(1)), words: Vec::new() }
    }

    /// Adds a row; false if it was there already.
    pub(super) fn insert(&mut self, seq: u64, index: u16) -> bool {
        let (word, bit) = self.place(seq, index);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let fresh = self.words[word] & bit == 0;
        self.words[word] |= bit;
        fresh
    }

    /// How many rows of a message are there.
    pub(super) fn rows_of(&self, seq: u64) -> u64 {
        (0..self.rows)
            .filter(|&index| {
                let (word, bit) = self.place(seq, index as u16);
                self.words.get(word).is_some_and(|bits| bits & bit != 0)
            })
            .count() as u64
    }

    /// Whether all rows of a message are there.
    pub(super) fn is_whole(&self, seq: u64) -> bool {
        self.rows_of(seq) == self.rows
    }

    fn place(&self, seq: u64, index: u16) -> (usize, u64) {
        let place = (seq - 1) * self.rows + u64::from(index);
        ((place / 64) as usize, 1 << (place % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_whole_when_each_of_its_rows_was_met() {
        let mut seen = Seen::new(3);
        assert!(seen.insert(22, 0));
        assert!(!seen.insert(22, 0));
        assert!(seen.insert(22, 2));
        assert_eq!((seen.rows_of(22), seen.is_whole(22)), (2, false));
        assert!(seen.insert(22, 1));
        assert!(seen.is_whole(22));
        assert_eq!((seen.rows_of(21), seen.rows_of(1_000_000)), (0, 0));
    }
}
