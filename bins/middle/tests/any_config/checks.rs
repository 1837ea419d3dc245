//! What must hold for any text as a configuration: shared with the fuzz target `config`.

use forebay_middle::Config;
use forebay_ops::config::{load_from, to_toml};

/// Any text as a file and as a variable: taken, or refused with all its faults; what was taken is
/// printed and taken again, the same.
///
/// # Panics
/// It is not so.
pub(crate) fn config(text: &str) {
    if let Ok(config) = load_from::<Config>(Some(("any.toml", text)), []) {
        let printed = to_toml(&config).expect("a configuration can be printed");
        let again = load_from::<Config>(Some(("printed.toml", &printed)), []);
        assert_eq!(again.expect("what was printed is taken"), config);
    }
    let (name, value) = text.split_once('=').unwrap_or(("QUEUE__CAPACITY", text));
    let variable = (format!("FOREBAY__{name}"), value.to_owned());
    let _taken = load_from::<Config>(None, [variable]);
}
