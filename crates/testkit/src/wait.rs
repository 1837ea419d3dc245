//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

/// Between two looks; short against any deadline, long against any look.
const PAUSE: Duration = Duration::from_millis(5);

/// Returns once `condition` holds.
///
/// # Panics
/// If it does not hold within `deadline`; `what` says what was waited for.
#[track_caller]
pub fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !condition() {
        assert!(Instant::now() < end, "waited {deadline:?} in vain until {what}");
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_as_soon_as_the_condition_holds() {
        let mut looks = 0;
        wait_until("the third look", Duration::from_secs(20), || {
            looks += 1;
            looks == 3
        });
        assert_eq!(looks, 3);
    }

    #[test]
    #[should_panic(expected = "in vain until pigs fly")]
    fn waiting_in_vain_says_for_what() {
        wait_until("pigs fly", Duration::from_millis(1), || false);
    }
}
