//! Any text as a configuration file, any text as a variable: taken or refused with all its faults;
//! what was taken is printed and taken again, the same.
#![no_main]

#[path = "../../../../bins/middle/tests/any_config/checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        checks::config(text);
    }
});
