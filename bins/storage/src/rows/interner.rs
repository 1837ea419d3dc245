//! Strings that repeat in a batch, each kept once and named by a small number.
//!
//! Codes are given in the order of first appearance, so the same entries give the same codes on
//! every replay. Not here: what a code means to a column.

use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

/// A dictionary of one batch: code to text and back.
#[derive(Debug, Clone, Default)]
pub struct Interner {
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Where each text ends in the arena; the code is the index.
    ends: Vec<u32>,
    arena: String,
    /// The code found last: neighbours in a batch are often of one device.
    recent: u32,
}

impl Interner {
    /// The code of a text, a new one if it was not seen before.
    pub fn intern(&mut self, text: &str) -> u32 {
        if (self.recent as usize) < self.ends.len() && self.get(self.recent) == text {
            return self.recent;
        }
        let hash = self.hasher.hash_one(text);
        let (arena, ends) = (&self.arena, &self.ends);
        let found = self.table.find(hash, |&code| slice(arena, ends, code) == text);
        if let Some(&code) = found {
            self.recent = code;
            return code;
        }
        let code = u32::try_from(self.ends.len()).expect("a batch holds fewer rows than 2^32");
        self.arena.push_str(text);
        self.ends.push(u32::try_from(self.arena.len()).expect("a batch is smaller than 4 GiB"));
        let (arena, ends, hasher) = (&self.arena, &self.ends, &self.hasher);
        self.table.insert_unique(hash, code, |&code| hasher.hash_one(slice(arena, ends, code)));
        self.recent = code;
        code
    }

    /// The code of a text, if it was seen.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(text);
        self.table.find(hash, |&code| self.get(code) == text).copied()
    }

    /// The text of a code this interner gave out.
    #[must_use]
    pub fn get(&self, code: u32) -> &str {
        slice(&self.arena, &self.ends, code)
    }

    /// How many texts it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All texts, by code.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.ends.len()).map(|code| self.get(code as u32))
    }

    /// For each code its place in the byte order of all texts.
    #[must_use]
    pub fn ranks(&self) -> Vec<u32> {
        let mut codes: Vec<u32> = (0..self.ends.len() as u32).collect();
        codes.sort_unstable_by(|&left, &right| self.get(left).cmp(self.get(right)));
        let mut ranks = vec![0; codes.len()];
        for (rank, &code) in codes.iter().enumerate() {
            ranks[code as usize] = rank as u32;
        }
        ranks
    }

    /// Forgets all texts and keeps the memory.
    pub fn clear(&mut self) {
        self.table.clear();
        self.ends.clear();
        self.arena.clear();
        self.recent = 0;
    }

    /// Bytes it holds on the heap, about.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.table.capacity() * 5 + self.ends.capacity() * 4 + self.arena.capacity()
    }
}

fn slice<'a>(arena: &'a str, ends: &[u32], code: u32) -> &'a str {
    let start = if code == 0 { 0 } else { ends[code as usize - 1] as usize };
    &arena[start..ends[code as usize] as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_follow_first_appearance_and_ranks_the_byte_order() {
        let mut interner = Interner::default();
        let codes: Vec<u32> = ["pump", "", "fan", "pump", "fan", ""]
            .iter()
            .map(|text| interner.intern(text))
            .collect();
        assert_eq!(codes, [0, 1, 2, 0, 2, 1]);
        assert_eq!(interner.iter().collect::<Vec<_>>(), ["pump", "", "fan"]);
        assert_eq!(interner.ranks(), [2, 0, 1]);
        assert_eq!((interner.find("fan"), interner.find("x")), (Some(2), None));
        interner.clear();
        assert_eq!((interner.len(), interner.intern("fan")), (0, 0));
    }

    #[test]
    fn many_texts_survive_the_growth_of_the_table() {
        let mut interner = Interner::default();
        for number in 0..10_000_u32 {
            assert_eq!(interner.intern(&format!("device-{number}")), number);
        }
        for number in 0..10_000_u32 {
            assert_eq!(interner.intern(&format!("device-{number}")), number);
        }
    }
}
