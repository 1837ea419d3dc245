//! Any text as a configuration file, any text as a variable: taken or refused with all its faults;
//! what was taken is printed and taken again, the same.
#![no_main]

use forebay_middle::Config;
use forebay_ops::config::{load_from, to_toml};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(config) = load_from::<Config>(Some(("fuzz.toml", text)), []) {
        let printed = to_toml(&config).expect("a configuration can be printed");
        let again = load_from::<Config>(Some(("printed.toml", &printed)), []);
        assert_eq!(again.expect("what was printed is taken"), config);
    }
    let (name, value) = text.split_once('=').unwrap_or(("QUEUE__CAPACITY", text));
    let variable = (format!("FOREBAY__{name}"), value.to_owned());
    let _taken = load_from::<Config>(None, [variable]);
});
