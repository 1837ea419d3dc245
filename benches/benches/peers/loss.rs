//! What is left of acked messages after a kill -9 of the server, and after a power cut.
//!
//! All messages are acked and nothing is on its way when the fault comes, so that what the broker
//! has after its restart is what it kept of its word: a count is enough. The power cut is that of a
//! file system of its own (`FS_IOC_SHUTDOWN` on ext4): nothing that was not synced survives.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use forebay_benches::{
    Goal, Report,
    load::{Crowd, Pace, Target},
};
use forebay_testkit::{Filesystem, LoopMount};

use crate::broker::{BROKERS, Broker, Kind, Safe};

const CONNECTIONS: usize = 100;
const EACH: u64 = 200;
const IMAGE_BYTES: u64 = 512 << 20;

pub(crate) fn measure(report: &Report) -> Result<()> {
    for kind in BROKERS {
        let name =
            |fault: &str| format!("{}, {}: acked and lost, {fault}", kind.safe.name(), kind.name);
        let folder = tempfile::tempdir()?;
        let (mut broker, acked) = acked(kind, folder.path())?;
        broker.kill()?;
        report.add(&name("kill -9"), lost(&mut *broker, acked)?, "messages", Goal::AtMost(0.0));

        let mut mount = match LoopMount::new(Filesystem::Ext4, IMAGE_BYTES) {
            Ok(mount) => mount,
            Err(error) => {
                eprintln!("SKIPPED power cut: {error:#}");
                continue;
            }
        };
        let (mut broker, acked) = self::acked(kind, mount.path())?;
        mount.cut()?;
        broker.kill()?;
        mount.unmount()?;
        mount.mount()?;
        let goal = match kind.safe {
            Safe::Disk => Goal::AtMost(0.0),
            Safe::Process => Goal::None,
        };
        report.add(&name("power cut"), lost(&mut *broker, acked)?, "messages", goal);
        drop(broker);
        mount.unmount()?;
    }
    Ok(())
}

/// A broker that has just acked the last of its messages.
fn acked(kind: &Kind, folder: &Path) -> Result<(Box<dyn Broker>, u64)> {
    let broker =
        (kind.start)(folder, false).with_context(|| format!("{} did not start", kind.name))?;
    let target = Target::plain(broker.address());
    let mut crowd = Crowd::connect(broker.speech(), &target, 0, CONNECTIONS)?;
    let messages = crowd.flow(Pace::Each(EACH), Duration::ZERO)?.messages;
    ensure!(messages == CONNECTIONS as u64 * EACH, "{messages} messages acked");
    drop(crowd);
    Ok((broker, messages))
}

fn lost(broker: &mut dyn Broker, acked: u64) -> Result<f64> {
    let stored = broker.stored_after_restart()?;
    ensure!(stored <= acked, "{stored} messages stored, but {acked} sent");
    Ok((acked - stored) as f64)
}
