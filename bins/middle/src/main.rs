//! The `forebay-middle` binary: a thin main around the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use forebay_middle::{Config, start};

fn main() -> ExitCode {
    forebay_ops::tier_main(
        "forebay-middle",
        env!("CARGO_PKG_VERSION"),
        "Takes entries of many fronts, and hands them to storage",
        |config: Config, registry, shutdown| {
            let deadline = config.drain.deadline.into();
            let running = start(config, registry, shutdown)?;
            running.join();
            for (consumer, bytes) in running.drain(deadline)?.consumers_behind {
                tracing::warn!(consumer, bytes, "a consumer has not caught up; the log keeps it");
            }
            Ok(())
        },
    )
}
