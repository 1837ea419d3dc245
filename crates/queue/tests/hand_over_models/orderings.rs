//! The models are of the code as it is: a change of an access there must come to them.

/// The atomic accesses of a source file, in its order, tests left out.
fn accesses(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]").next().expect("a first part");
    let lines = code.lines().map(str::trim).filter(|line| line.contains("Ordering::"));
    lines.filter(|line| !line.starts_with("use ")).map(str::to_owned).collect()
}

#[test]
fn the_models_have_the_orderings_of_the_code() {
    let line = accesses(include_str!("../../src/line.rs"));
    let expected = [
        "let mut start = self.reserved.load(Ordering::Relaxed);",
        "Ordering::Relaxed,",
        "Ordering::Relaxed,",
        "self.published.turn.load(Ordering::Relaxed) != self.reserved.load(Ordering::Relaxed)",
        "self.published.turn.load(Ordering::Acquire) == start",
        "if self.published.turn.load(Ordering::Acquire) != start {",
        "while self.published.turn.load(Ordering::Acquire) != start {",
        "Seq::from_u64(self.published.seq.load(Ordering::Relaxed))",
        "let before = published.payload_bytes.load(Ordering::Relaxed);",
        "published.payload_bytes.store(before + payload_bytes, Ordering::Relaxed);",
        "published.tail.store(end, Ordering::Release);",
        "published.seq.store(seq.get(), Ordering::Release);",
        "published.turn.store(end, Ordering::Release);",
        "self.published.turn.load(Ordering::Acquire)",
        "Seq::from_u64(self.published.seq.load(Ordering::Acquire))",
        "self.published.payload_bytes.load(Ordering::Relaxed)",
        "let turn = self.published.turn.load(Ordering::Acquire);",
        "let seq = self.published.seq.load(Ordering::Acquire);",
        "let tail = self.published.tail.load(Ordering::Acquire);",
    ];
    assert_eq!(line, expected, "line.rs changed: change its model too");
    let watch = accesses(include_str!("../../src/watch.rs"));
    let expected = [
        "self.generation.fetch_add(1, Ordering::SeqCst);",
        "if self.sleepers.load(Ordering::SeqCst) > 0 {",
        "self.sleepers.fetch_add(1, Ordering::SeqCst);",
        "self.sleepers.fetch_sub(1, Ordering::SeqCst);",
        "let generation = self.generation.load(Ordering::SeqCst);",
        "compiler_fence(Ordering::SeqCst);",
        "fence(Ordering::SeqCst);",
        "fence(Ordering::SeqCst);",
    ];
    assert_eq!(watch, expected, "watch.rs changed: change its model too");
    let door = accesses(include_str!("../../src/door.rs"));
    let expected = [
        "while !moves() && !self.limits.is_ended.load(Ordering::Acquire) {",
        "self.attention.fetch_or(ATTENTION_DOOR, Ordering::SeqCst);",
    ];
    assert_eq!(door, expected, "door.rs changed: change its model too");
    let pace = accesses(include_str!("../../src/pace.rs"));
    let expected = [
        "self.gathering.store(true, Ordering::Relaxed);",
        "while !self.closing.load(Ordering::SeqCst) && self.waiters.load(Ordering::Acquire) == 0 {",
        "self.gathering.store(false, Ordering::Relaxed);",
        "fence(Ordering::SeqCst);",
        "self.demand.fetch_max(seq.get(), Ordering::AcqRel);",
        "fence(Ordering::SeqCst);",
        "if !self.gathering.load(Ordering::Relaxed) {",
    ];
    let gather = pace.iter().skip_while(|line| !line.contains("gathering")).take(expected.len());
    assert!(gather.eq(expected), "pace.rs changed: change its model too");
    let groups = accesses(include_str!("../../src/groups.rs"));
    let expected = [
        "self.round.fetch_add(1, Ordering::SeqCst);",
        "let round = self.round.load(Ordering::SeqCst);",
        "let round = self.round.load(Ordering::SeqCst);",
    ];
    assert_eq!(groups, expected, "groups.rs changed: change its model too");
}
