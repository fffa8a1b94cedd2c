//! An allocator that counts, and a panic hook that is quiet about the one panic that is caught.

use std::panic::PanicHookInfo;

use peak_alloc::PeakAlloc;

#[global_allocator]
static HELD: PeakAlloc = PeakAlloc;

/// Runs `work` and returns the most bytes that it held at once, beyond what was held before.
pub fn weigh(work: &mut dyn FnMut()) -> u64 {
    let before = HELD.current_usage();
    HELD.reset_peak_usage();
    work();
    HELD.peak_usage().saturating_sub(before) as u64
}

/// Prints a panic, unless it is one of the JPEG decoder's.
#[allow(dead_code, reason = "one target has such panics")]
pub fn tell_unless_caught(panic: &PanicHookInfo<'_>) {
    let is_caught = panic.location().is_some_and(|location| location.file().contains("libjpeg-turbo-rs"));
    if !is_caught {
        eprintln!("{panic}");
    }
}
