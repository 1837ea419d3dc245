//! Whether the messages of each session arrived in the order of their numbers.
//!
//! A file of the store may be sorted by anything; the entry numbers tell how its rows arrived.

/// Arrivals of the part being read, and how far each session has come before it.
#[derive(Debug)]
pub(super) struct Order {
    latest: Vec<u64>,
    part: Vec<(u32, u64, u64)>,
}

impl Order {
    /// No arrivals yet, of this many sessions.
    pub(super) fn new(sessions: usize) -> Self {
        Self { latest: vec![0; sessions], part: Vec::new() }
    }

    /// A message of a session came with an entry.
    pub(super) fn arrived(&mut self, at: usize, entry: u64, seq: u64) {
        let at = u32::try_from(at).expect("sessions are numbered in 32 bits");
        self.part.push((at, entry, seq));
    }

    /// Sorts the part by arrival and tells every message that came after a later one.
    pub(super) fn end_part(&mut self, mut inversion: impl FnMut(usize, u64, u64)) {
        // Stable: it finds the runs that a file sorted by series consists of.
        self.part.sort();
        for (at, _, seq) in self.part.drain(..) {
            let latest = &mut self.latest[at as usize];
            if seq < *latest {
                inversion(at as usize, seq, *latest);
            } else {
                *latest = seq;
            }
        }
    }
}
