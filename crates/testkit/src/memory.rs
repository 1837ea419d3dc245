//! What a process holds in memory.

use std::io;

/// The private memory of a process in bytes, without files that it has mapped.
///
/// So a ring's pages do not count: the kernel can write them back and drop them.
///
/// # Errors
/// There is no such process.
pub fn rss_anon(pid: u32) -> io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .and_then(|line| line.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<u64>().ok());
    kilobytes
        .map(|kilobytes| kilobytes * 1024)
        .ok_or_else(|| io::Error::other(format!("process {pid} shows no RssAnon, has it ended?")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touched_heap_counts_and_a_missing_process_is_an_error() {
        let before = rss_anon(std::process::id()).unwrap();
        let block = vec![1u8; 64 << 20];
        let after = rss_anon(std::process::id()).unwrap();
        assert!(after >= before + (48 << 20), "{before} then {after}");
        assert_eq!(block.iter().map(|byte| u64::from(*byte)).sum::<u64>(), 64 << 20);
        assert!(rss_anon(u32::MAX).is_err());
    }
}
