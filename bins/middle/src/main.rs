//! The `forebay-middle` binary: a thin main around the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use forebay_middle::{Config, run};

fn main() -> ExitCode {
    forebay_ops::tier_main(
        "forebay-middle",
        env!("CARGO_PKG_VERSION"),
        "Takes entries of many fronts, and hands them to storage",
        |config: Config, registry, shutdown| run(config, registry, shutdown),
    )
}
