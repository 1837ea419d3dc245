//! How no entry gets lost between tiers.
#![forbid(unsafe_code)]
