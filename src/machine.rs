//! What this process may use of the machine.

pub mod files;
pub mod heap;
pub mod memory;

use std::thread::available_parallelism;

/// The cores this process may use and the cores the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cores {
    /// What the scheduler will really give: CPU affinity and the cgroup quota (v1 or v2) are counted. A container with
    /// a quota of 2 on a 64-core host has 2.
    pub usable: usize,
    /// Cores online in the machine, where the system tells.
    pub online: Option<usize>,
}

/// Reads both numbers.
#[must_use]
pub fn cores() -> Cores {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").ok().and_then(|list| count(&list));
    // An error means that the system will not say; one core is always there.
    Cores { usable: available_parallelism().map_or(1, std::num::NonZero::get), online }
}

/// Memory that this process holds now, in bytes, where the system tells.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    resident(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// Reads the line `VmRSS: 12345 kB`.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Threads that wanted to run in the last minute, on average, those of other processes among them, where the system tells.
#[must_use]
pub fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// What the processor calls itself, where the system tells.
#[must_use]
pub fn processor() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let name = info.lines().find_map(|line| line.strip_prefix("model name"))?;
    Some(name.trim_start_matches([' ', '\t', ':']).trim_end().to_owned())
}

/// Counts a kernel CPU list such as `0-3,6`.
fn count(list: &str) -> Option<usize> {
    list.trim().split(',').try_fold(0, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        Some(sum + last.checked_sub(first)? + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_cpu_lists_are_counted() {
        assert_eq!(count("0-1\n"), Some(2));
        assert_eq!(count("0-3,6,8-9"), Some(7));
        assert_eq!(count("0"), Some(1));
        assert_eq!(count(""), None);
        assert_eq!(count("3-1"), None);
    }

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(resident("VmHWM:\t  900 kB\nVmRSS:\t   12 kB\n"), Some(12 * 1024));
        assert_eq!(resident("VmHWM:\t  900 kB\n"), None);
    }

    #[test]
    fn there_is_at_least_one_core() {
        assert!(cores().usable >= 1);
    }
}
