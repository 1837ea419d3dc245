//! The last word of a process: what stays behind, for whoever looks at the container afterwards.
//!
//! Kubernetes shows the file's content as the container's termination message.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::Remains;

/// Where Kubernetes looks by default.
const KUBERNETES: &str = "/dev/termination-log";

/// The file to write to: the one configured, or the one that Kubernetes has made.
fn file(configured: Option<&Path>) -> Option<PathBuf> {
    match configured {
        Some(path) => Some(path.to_owned()),
        None => Some(PathBuf::from(KUBERNETES)).filter(|path| path.exists()),
    }
}

/// Says what each tier leaves behind, in the log and in the termination message.
///
/// What is left is on disk and goes on after the next start; that it cannot be said in the file is
/// a warning and no more.
pub fn tell(configured: Option<&Path>, left: &[(&str, Remains)], took: Duration) {
    let tiers: serde_json::Map<_, _> =
        left.iter().map(|(tier, remains)| ((*tier).to_owned(), json!(remains))).collect();
    let complete = left.iter().all(|(_, remains)| remains.is_nothing());
    for (tier, Remains { connections, entries, bytes }) in left {
        if complete {
            tracing::info!(tier, ?took, "drained, nothing is left");
        } else {
            tracing::warn!(
                tier,
                connections,
                entries,
                bytes,
                ?took,
                "ended; what is left is on disk and goes on after the next start"
            );
        }
    }
    let ended = if complete { "drained" } else { "with something left" };
    leave(configured, ended, &tiers, took);
}

/// Says in the termination message that the process was asked to end before it served.
///
/// Nothing is said of what is left: that is known to nobody who has not opened the queues.
pub fn tell_early(configured: Option<&Path>, took: Duration) {
    leave(configured, "before it served", &serde_json::Map::new(), took);
}

fn leave(
    configured: Option<&Path>,
    ended: &str,
    left: &serde_json::Map<String, serde_json::Value>,
    took: Duration,
) {
    let Some(path) = file(configured) else { return };
    let message = json!({
        "ended": ended,
        "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "left": left,
    });
    if let Err(error) = write(&path, &message.to_string()) {
        tracing::warn!(path = %path.display(), %error, "the termination message cannot be written");
    }
}

/// Over what is there: in a container the file exists, is mounted, and cannot be renamed.
fn write(path: &Path, message: &str) -> io::Result<()> {
    fs::write(path, format!("{message}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_says_what_each_tier_leaves_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("message");
        fs::write(&path, "what was there before, which is longer than what comes").unwrap();
        let left = Remains { connections: 0, entries: 12, bytes: 3400 };
        let tiers = [("front", left), ("middle", Remains::default())];
        tell(Some(&path), &tiers, Duration::from_millis(1200));
        let text = fs::read_to_string(&path).unwrap();
        let message: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(message["ended"], "with something left");
        assert_eq!(message["took_ms"], 1200);
        assert_eq!(message["left"]["front"]["entries"], 12);
        assert_eq!(message["left"]["middle"]["bytes"], 0);
    }
}
