//! What must hold: I10, I11, I12, I13 of the design, and that all drains once faults stop.

use std::collections::HashSet;
use std::time::Duration;

use forebay_link::Seq;
use forebay_wire::feed::Stored;

use crate::disk::message_of;
use crate::world::World;

/// How long everything may take to drain after the last fault, in simulated time.
const DRAINED_WITHIN: Duration = Duration::from_secs(60);

impl World {
    /// I10 at the middle: a consumer's cursor covers only what its store has.
    pub(crate) fn check_cursors(&mut self, index: usize) {
        let disk = &self.middles[index].store.disk;
        let mut early = None;
        for (name, state) in &disk.consumers {
            let Some(sink) = self.sinks.get(&(index, name.clone())) else { continue };
            for (seq, payload) in &disk.log.entries {
                if *seq > state.committed {
                    break;
                }
                if let Some(message) = message_of(&payload[24..])
                    && !sink.rows.contains_key(&message)
                {
                    early = Some(format!("I10: {name} has committed {seq} but not stored it"));
                }
            }
        }
        if let Some(early) = early {
            self.fail(early);
        }
    }

    /// Whether nothing is on its way any more.
    pub(crate) fn is_drained(&self) -> bool {
        let rings = self.rings.iter().all(|ring| ring.log.above(ring.cursor).is_empty());
        self.awaited == 0
            && rings
            && self.middles.iter().all(|middle| {
                let log = &middle.store.disk.log;
                (0..self.shape.names).all(|name| {
                    let consumer = middle.store.disk.consumers.get(&format!("sink-{name}"));
                    let committed = consumer.map_or(Seq::ZERO, |state| state.committed);
                    log.above(committed).is_empty()
                })
            })
    }

    /// Stops all faults, waits until everything has drained, and checks what came of it.
    pub(crate) fn finish(&mut self) {
        self.heal();
        let deadline = self.now + DRAINED_WITHIN;
        while !self.is_drained() {
            if self.now >= deadline || self.steps > 3_000_000 {
                let rings: Vec<_> =
                    self.rings.iter().map(|ring| (ring.cursor, ring.log.last())).collect();
                let consumers: Vec<_> = self
                    .middles
                    .iter()
                    .map(|middle| (middle.store.disk.log.last(), &middle.store.disk.consumers))
                    .collect();
                self.violations.push(format!(
                    "I9: not drained in {DRAINED_WITHIN:?}: rings {rings:?}, middles {consumers:?}"
                ));
                return;
            }
            if self.violations.is_empty() {
                let next = (self.now + Duration::from_millis(50)).min(deadline);
                while self.step(next) {}
            } else {
                return;
            }
            // A process that was fenced is started again by whoever runs it, once nobody else is
            // left to do the work.
            self.heal_processes();
        }
        self.check_logs();
        self.check_sinks();
    }

    /// I13, and order: no message twice in one log, each source's numbers ascending.
    fn check_logs(&mut self) {
        let mut wrong = Vec::new();
        for (index, middle) in self.middles.iter().enumerate() {
            let mut seen = HashSet::new();
            let mut last = std::collections::HashMap::new();
            for (seq, payload) in &middle.store.disk.log.entries {
                let stored = Stored::decode(payload).expect("every entry has its prefix");
                if let Some(message) = message_of(stored.entry)
                    && !seen.insert(message)
                {
                    wrong.push(format!("I13: middle {index} stored {message} twice, at {seq}"));
                }
                let before = last.insert(stored.source, stored.seq);
                if before.is_some_and(|before| before >= stored.seq) {
                    wrong.push(format!("middle {index}: {} after {before:?}", stored.seq));
                }
            }
        }
        for wrong in wrong {
            self.fail(wrong);
        }
    }

    /// I11 and I12: in every store exactly what was acked, once.
    fn check_sinks(&mut self) {
        let mut wrong = Vec::new();
        for ((middle, name), sink) in &self.sinks {
            for (message, home) in &self.truth.sent {
                let must = self.truth.acked.contains(message)
                    && !self.truth.excused.contains(message)
                    && home == middle;
                if must && !sink.rows.contains_key(message) {
                    wrong.push(format!("I11: {name} of {middle} never got {message}"));
                }
            }
            for (message, queues) in &sink.rows {
                if self.truth.sent.get(message) != Some(middle) {
                    wrong.push(format!("I12: {name} of {middle} has {message}, never sent"));
                }
                let lives: HashSet<_> = queues.iter().collect();
                let allowed = if self.truth.forgetful.contains(middle) { queues.len() } else { 1 };
                if queues.len() > allowed || (lives.len() < queues.len() && allowed == 1) {
                    wrong.push(format!("I11: {name} of {middle} has {message} {queues:?}"));
                }
            }
        }
        for wrong in wrong {
            self.fail(wrong);
        }
    }
}
