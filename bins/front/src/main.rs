//! The `forebay-front` binary: a thin main around the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use forebay_front::Config;

fn main() -> ExitCode {
    forebay_ops::tier_main(
        "forebay-front",
        env!("CARGO_PKG_VERSION"),
        "Devices in over WebSockets, acknowledgements out",
        |config: Config, registry, shutdown| {
            let deadline = config.drain.deadline.get();
            let running = forebay_front::start(config, registry, &shutdown)?;
            running.join();
            let drained = running.drain(deadline);
            if !drained.is_complete() {
                tracing::warn!(entries = drained.entries, "left for the next start");
            }
            Ok(())
        },
    )
}
