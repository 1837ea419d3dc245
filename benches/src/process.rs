//! What a process costs, as the kernel counts it.

use std::fs;

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_setaffinity};

const KIB: u64 = 1024;

/// Confines this thread, and all it starts from now on, to one CPU.
///
/// # Errors
/// There is no such CPU.
pub fn stay_on(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("CPU {cpu}"))
}

/// CPU seconds of a process so far, of all its threads and in the kernel too.
///
/// # Errors
/// There is no such process.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // After the name, which may hold anything.
    let (_, rest) = stat.rsplit_once(')').context("no name in /proc/PID/stat")?;
    let field = |number: usize| -> Result<f64> {
        let text = rest.split_whitespace().nth(number - 3).context("a short /proc/PID/stat")?;
        Ok(text.parse::<f64>()?)
    };
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    Ok((field(14)? + field(15)?) / ticks)
}

/// Private memory of a process in bytes (`RssAnon`): its stacks and its heap.
///
/// # Errors
/// There is no such process.
pub fn rss_anon(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    kib(&status, "RssAnon:").map(|kib| kib * KIB)
}

/// Memory of the kernel in bytes that connections add to: its objects, and what sockets buffer.
///
/// # Errors
/// `/proc` is not as this kernel has it.
pub fn kernel_memory() -> Result<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let slab = kib(&meminfo, "Slab:")? * KIB;
    let sockets = fs::read_to_string("/proc/net/sockstat")?;
    let tcp =
        sockets.lines().find(|line| line.starts_with("TCP:")).context("no TCP in sockstat")?;
    let pages = tcp.split_whitespace().last().context("no mem in sockstat")?.parse::<u64>()?;
    Ok(slab + pages * rustix::param::page_size() as u64)
}

fn kib(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.with_context(|| format!("no {name}"))?.trim().trim_end_matches(" kB");
    Ok(number.trim().parse()?)
}
