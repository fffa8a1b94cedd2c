//! Memory that this process may still take: the machine's, or its container's where that is less.

use std::path::Path;

/// Bytes that are free, where the system tells. Caches of files count as free: the kernel gives them up first.
#[must_use]
pub fn available_bytes() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|info| available(&info));
    let group = group_free(Path::new("/sys/fs/cgroup"));
    machine.into_iter().chain(group).min()
}

/// Reads the line `MemAvailable: 12345 kB`.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// What a container's limit leaves, if it has one: of cgroup v2, else of v1. Inside a container its own group is the root
/// of what it sees.
fn group_free(root: &Path) -> Option<u64> {
    let v2 = ("memory.max", "memory.current", "memory.stat", "inactive_file ");
    let v1 =
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file ");
    [v2, v1].into_iter().find_map(|(limit, usage, stat, inactive)| {
        let number = |name: &str| std::fs::read_to_string(root.join(name)).ok()?.trim().parse::<u64>().ok();
        // v2 writes `max` where there is no limit, v1 a number that no machine has.
        let (limit, usage) = (number(limit)?, number(usage)?);
        let stat = std::fs::read_to_string(root.join(stat)).unwrap_or_default();
        let cached = stat.lines().find_map(|line| line.strip_prefix(inactive)?.trim().parse::<u64>().ok());
        Some(limit.saturating_sub(usage.saturating_sub(cached.unwrap_or(0))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_line_is_found_among_others() {
        assert_eq!(available("MemTotal:  16 kB\nMemAvailable:     8 kB\nBuffers: 1 kB\n"), Some(8192));
        assert_eq!(available("MemTotal: 16 kB\n"), None);
    }

    #[test]
    fn a_containers_limit_leaves_what_is_not_used_or_only_cached() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(root.path().join(name), text).unwrap();
        assert_eq!(group_free(root.path()), None);
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        assert_eq!(group_free(root.path()), None);
        write("memory.max", "1000\n");
        assert_eq!(group_free(root.path()), Some(300));
        write("memory.stat", "anon 500\ninactive_file 200\n");
        assert_eq!(group_free(root.path()), Some(500));
        std::fs::remove_file(root.path().join("memory.max")).unwrap();
        std::fs::create_dir(root.path().join("memory")).unwrap();
        write("memory/memory.limit_in_bytes", "100\n");
        write("memory/memory.usage_in_bytes", "150\n");
        assert_eq!(group_free(root.path()), Some(0));
    }
}
