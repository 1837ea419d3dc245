//! Frames of devices in JSON: any bytes are refused or read, and what was read survives being written and read
//! again.
#![no_main]

#[path = "../../tests/any_bytes/checks.rs"]
#[allow(dead_code)]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::device(forebay_wire::device::Format::Json, bytes));
