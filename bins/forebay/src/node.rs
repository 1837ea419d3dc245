//! The configuration of all tiers in one process: `[front]`, `[middle]` and `[storage]`, each as
//! its tier alone has it.

use forebay_ops::{Faults, Validate};
use serde::{Deserialize, Serialize};

/// A node with all tiers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Devices in, acknowledgements out.
    pub(crate) front: forebay_front::Config,
    /// Fan-in, fan-out.
    pub(crate) middle: forebay_middle::Config,
    /// The lake, the last values and the live feed.
    pub(crate) storage: forebay_storage::Config,
}

impl Validate for Config {
    fn validate(&self, faults: &mut Faults) {
        faults.within("front", |faults| self.front.validate(faults));
        faults.within("middle", |faults| self.middle.validate(faults));
        faults.within("storage", |faults| self.storage.validate(faults));
        // With a rate, the tier checks that stores hold back no more than half of this ring: one
        // that is larger than the real would let settings pass that push back on devices.
        let (feed, capacity) = (&self.storage.feed, self.middle.queue.capacity);
        faults.check(
            feed.peak_rate.get() == 0 || feed.ring <= capacity,
            "storage.feed.ring",
            format!("is more than middle.queue.capacity, {capacity}: set it to that"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_ops::config::load_from;

    #[test]
    fn each_tier_has_its_section_and_faults_name_it() {
        let text = "[front.listen]\naddress = \"127.0.0.1:1\"\n";
        let config: Config = load_from(Some(("node.toml", text)), []).unwrap();
        assert_eq!(config.front.listen.address.port(), 1);
        let text = "[midle]\n[front.ack]\ncredit = 0\n";
        let error = load_from::<Config>(Some(("node.toml", text)), []).unwrap_err().to_string();
        assert!(error.contains("midle") && error.contains("middle"), "{error}");
        assert!(error.contains("front.ack.credit"), "{error}");
    }

    #[test]
    fn what_stores_may_hold_back_is_not_measured_by_a_ring_that_is_larger_than_the_middles() {
        let of = |capacity: &str, feed: &str| {
            let text = format!(
                "[middle.queue]\ncapacity = \"{capacity}\"\n[storage.feed]\n{feed}\n\
                 [storage.lake.flush]\nage = \"1s\"\n"
            );
            load_from::<Config>(Some(("node.toml", &text)), []).map_err(|error| error.to_string())
        };
        let error = of("64MiB", "peak_rate = \"1MiB\"").unwrap_err();
        assert!(error.contains("storage.feed.ring") && error.contains("64MiB"), "{error}");
        assert!(of("64MiB", "peak_rate = \"1MiB\"\nring = \"64MiB\"").is_ok());
        assert!(of("512MiB", "peak_rate = \"1MiB\"").is_ok());
        assert!(of("64MiB", "").is_ok(), "without a rate nothing is measured by it");
    }

    #[test]
    fn the_environment_overrides_a_section() {
        let variables = [("FOREBAY__FRONT__ACK__CREDIT".to_owned(), "7".to_owned())];
        let config: Config = load_from(None, variables).unwrap();
        assert_eq!(config.front.ack.credit, 7);
    }
}
