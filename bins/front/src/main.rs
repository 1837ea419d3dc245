//! The `forebay-front` binary: a thin main around the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use forebay_front::Config;

fn main() -> ExitCode {
    forebay_ops::tier_main(
        "forebay-front",
        env!("CARGO_PKG_VERSION"),
        "Devices in over WebSockets, acknowledgements out",
        |config: Config, registry, shutdown| forebay_front::run(config, registry, &shutdown),
    )
}
