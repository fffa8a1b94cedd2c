//! What the operating system says about this process, under the names that every Prometheus client gives it. Read whenever
//! metrics are asked for; missing where there is no `/proc`.

use prometheus::{Counter, Gauge, Registry};

use super::register;

/// The figures of one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Figures {
    cpu_seconds: f64,
    resident_bytes: f64,
    open_fds: f64,
    max_fds: f64,
    threads: f64,
    start_seconds: f64,
}

/// Registers the figures of this moment.
pub(super) fn register_figures(registry: &Registry) {
    let Some(figures) = read() else { return };
    let cpu = Counter::new("process_cpu_seconds_total", "Processor time of the process, in the kernel and outside.")
        .expect("metric names are constants");
    cpu.inc_by(figures.cpu_seconds);
    register(registry, cpu);
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Memory of the process that is in RAM.", figures.resident_bytes),
        ("process_open_fds", "Open file descriptors.", figures.open_fds),
        ("process_max_fds", "How many file descriptors may be open.", figures.max_fds),
        ("process_threads", "Threads of the process.", figures.threads),
        ("process_start_time_seconds", "When the process began, in seconds since 1970.", figures.start_seconds),
    ] {
        register(registry, Gauge::new(name, help).expect("metric names are constants")).set(value);
    }
}

#[cfg(target_os = "linux")]
#[expect(clippy::cast_precision_loss, reason = "metrics are f64, and none of these comes near 2^53")]
fn read() -> Option<Figures> {
    use procfs::process::{LimitValue, Process};

    let process = Process::myself().ok()?;
    let stat = process.stat().ok()?;
    let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
    let max_fds = match process.limits().ok()?.max_open_files.soft_limit {
        LimitValue::Value(max) => max as f64,
        // As the Go client shows it.
        LimitValue::Unlimited => u64::MAX as f64,
    };
    Some(Figures {
        cpu_seconds: seconds(stat.utime + stat.stime),
        resident_bytes: (stat.rss * procfs::page_size()) as f64,
        open_fds: process.fd_count().ok()? as f64,
        max_fds,
        threads: stat.num_threads as f64,
        start_seconds: procfs::boot_time_secs().ok()? as f64 + seconds(stat.starttime),
    })
}

#[cfg(not(target_os = "linux"))]
fn read() -> Option<Figures> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn the_figures_are_those_of_this_process() {
        let before = read().unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        // The kernel counts whole seconds since its start.
        assert!((now - 24.0 * 3600.0..now + 2.0).contains(&before.start_seconds), "{before:?}");
        assert!(before.threads >= 2.0 && before.resident_bytes > 1e6 && before.max_fds >= 64.0, "{before:?}");
        let files: Vec<_> = (0..40).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        assert!(read().unwrap().open_fds >= 40.0);
        drop(files);
        // Until the clock of the kernel, which ticks every 10 ms, has seen this thread work.
        while read().unwrap().cpu_seconds <= before.cpu_seconds {}
    }
}
