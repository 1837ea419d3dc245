//! A drain run against a tier of the test's own, whose peers and entries go when it says.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration as Time;

use super::*;

const DEADLINE: Time = Time::from_secs(20);

#[derive(Default)]
struct Counting {
    closed: AtomicBool,
    connections: AtomicU64,
    entries: AtomicU64,
}

impl Tier for Counting {
    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
    }

    fn remains(&self) -> Remains {
        let entries = self.entries.load(Ordering::SeqCst);
        Remains { connections: self.connections.load(Ordering::SeqCst), entries, bytes: entries }
    }
}

fn drain(settle: Option<u64>) -> (Drain, Arc<Counting>) {
    let settle = settle.map(Duration::from_millis);
    let settings = ShutdownSettings { settle, ..ShutdownSettings::default() };
    let (drain, tier) =
        (Drain::new("test", &settings, &Shutdown::new()), Arc::new(Counting::default()));
    drain.attach(tier.clone());
    (drain, tier)
}

fn wait_for(drain: &Drain, phase: Phase) {
    let end = Instant::now() + DEADLINE;
    while drain.phase() != phase {
        assert!(Instant::now() < end, "{} instead of {}", drain.phase().as_str(), phase.as_str());
        std::thread::sleep(Time::from_millis(1));
    }
}

#[test]
fn a_drain_is_begun_looked_at_called_off_and_begun_again() {
    let (drain, tier) = drain(None);
    tier.connections.store(1, Ordering::SeqCst);
    drain.begin().unwrap();
    wait_for(&drain, Phase::Closing);
    assert!(tier.closed.load(Ordering::SeqCst));
    assert_eq!(drain.state()["remains"]["connections"], 1);
    drain.cancel().unwrap();
    assert!(!tier.closed.load(Ordering::SeqCst), "it serves again");
    assert_eq!(drain.state()["phase"], "serving");
    drain.begin().unwrap();
    wait_for(&drain, Phase::Closing);
    tier.connections.store(0, Ordering::SeqCst);
    wait_for(&drain, Phase::Drained);
    assert!(drain.end(DEADLINE).is_nothing(), "the end finds nothing to do");
    assert_eq!(drain.cancel(), Err(Ending));
}

#[test]
fn what_is_left_at_the_deadline_is_told() {
    let (drain, tier) = drain(None);
    tier.entries.store(7, Ordering::SeqCst);
    let left = drain.end(Time::from_millis(100));
    assert_eq!(left, Remains { connections: 0, entries: 7, bytes: 7 });
}

#[test]
fn a_tier_settles_only_while_somebody_asks_whether_it_is_ready() {
    let (unwatched, _tier) = drain(None);
    unwatched.begin().unwrap();
    wait_for(&unwatched, Phase::Drained);
    let (watched, tier) = drain(None);
    watched.watched();
    watched.begin().unwrap();
    std::thread::sleep(Time::from_millis(60));
    assert_eq!(watched.phase(), Phase::Settling, "for a tenth of 25 s");
    assert!(!tier.closed.load(Ordering::SeqCst), "it still takes work");
    let (told, _tier) = drain(Some(0));
    told.watched();
    told.begin().unwrap();
    wait_for(&told, Phase::Drained);
}

#[test]
fn a_tier_that_has_not_started_cannot_be_drained_but_can_end() {
    let drain = Drain::new("test", &ShutdownSettings::default(), &Shutdown::new());
    assert!(drain.begin().is_err());
    assert!(drain.end(DEADLINE).is_nothing());
}
