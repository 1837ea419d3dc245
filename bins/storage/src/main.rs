//! The `forebay-storage` binary: a thin main around the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use forebay_storage::{Config, run};

fn main() -> ExitCode {
    forebay_ops::tier_main(
        "forebay-storage",
        env!("CARGO_PKG_VERSION"),
        "Stores what the middles hold, and shows it to readers",
        |config: Config, registry, shutdown| run(config, registry, shutdown),
    )
}
