//! What an idle connection costs: private memory of the front, and memory of the kernel.
//!
//! Both ends of a connection are on this machine, and cost the kernel the same: a socket, a file, a
//! watch. Half of what the kernel's memory grows by is one end's.

use std::time::Duration;

use anyhow::Result;
use forebay_benches::{
    Goal, Report,
    load::{Crowd, Pace, front::Devices},
    process,
};
use forebay_front::config::Level;

use crate::{MESSAGE_BYTES, Options, Stand};

const KIB: f64 = 1024.0;
const GIB: f64 = 1024.0 * 1024.0 * 1024.0;
/// What was used and is idle again settles within this time.
const REST: Duration = Duration::from_secs(2);

/// A connection's part of what is used more than before, in bytes.
struct Growth {
    front: f64,
    kernel: f64,
}

pub(crate) fn measure(options: &Options, report: &Report) -> Result<()> {
    let devices = Devices::new("bench", MESSAGE_BYTES);
    for (tls, name, goal_kib) in [(false, "plain", 3.0), (true, "TLS", 24.0)] {
        let (mut fresh, mut used, mut burst) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            let stand = Stand::start(options, Level::Process, tls)?;
            // The buffers of threads and of the way to the middle are no connection's.
            let mut few = Crowd::connect(&devices, &stand.target, 1_000_000, 100)?;
            few.flow(Pace::Each(2000), Duration::ZERO)?;
            let before = (stand.served.rss_anon()?, process::kernel_memory()?);
            let mut crowd = Crowd::connect(&devices, &stand.target, 0, options.connections)?;
            let grown = |crowd: &mut Crowd<'_, Devices>| -> Result<Growth> {
                crowd.idle(REST)?;
                let rss = stand.served.rss_anon()? as f64 - before.0 as f64;
                let kernel = process::kernel_memory()? as f64 - before.1 as f64;
                let count = crowd.len() as f64;
                Ok(Growth { front: rss / count, kernel: kernel / count / 2.0 })
            };
            fresh.push(grown(&mut crowd)?);
            crowd.flow(Pace::Each(1), Duration::ZERO)?;
            used.push(grown(&mut crowd)?);
            crowd.flow(Pace::Each(16), Duration::ZERO)?;
            burst.push(grown(&mut crowd)?);
            drop((crowd, few));
            stand.end()?;
        }
        let moments =
            [(&fresh, "welcomed"), (&used, "after a message"), (&burst, "after 16 at once")];
        for (growths, when) in moments {
            let name = |what: &str| format!("idle, {name}, {when}: {what}");
            let of = |of: fn(&Growth) -> f64| growths.iter().map(of).collect::<Vec<f64>>();
            let goal = Goal::AtMost(goal_kib);
            report.add_rounds(&name("front"), &of(|one| one.front / KIB), "KiB", goal);
            report.add_rounds(
                &name("kernel, one end"),
                &of(|one| one.kernel / KIB),
                "KiB",
                Goal::None,
            );
            let goal = if tls { Goal::None } else { Goal::AtLeast(130_000.0) };
            let per_gib = of(|one| GIB / (one.front + one.kernel));
            report.add_rounds(&name("a GiB holds"), &per_gib, "connections", goal);
        }
    }
    Ok(())
}
