//! Handing memory back that the allocator keeps. The one file with `unsafe`: docs/decisions/0006 argues for it.

/// Gives free pages of the heap back to the system, after hundreds of megabytes of weights were freed at once.
///
/// glibc keeps what is freed in pieces below 32 MiB, and each thread's arena keeps its own: a server that had replaced a
/// ResNet-50 fifty times held 2.4 GiB, of which 0.4 were in use. Takes some milliseconds, in which other threads wait for
/// memory; does nothing where the allocator is another one.
pub fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[expect(unsafe_code, reason = "a call into the C library; see docs/decisions/0006")]
        // SAFETY: `malloc_trim` takes a number of bytes to keep at the top of the heap, touches only free pages, and takes
        // the allocator's own locks (malloc_trim(3): MT-Safe).
        unsafe {
            libc::malloc_trim(0);
        }
    }
}
