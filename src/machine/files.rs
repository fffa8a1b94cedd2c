//! How many files and connections this process may have open.

/// Raises what this process may open to what the system lets it raise to, and returns that. Each connection is one file, and
/// the usual soft limit of 1024, which is there for programs that use `select`, is less than a server needs.
#[must_use]
pub fn raise_limit() -> Option<u64> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let now = getrlimit(Resource::Nofile);
        if now.current == now.maximum {
            return now.current;
        }
        match setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum }) {
            Ok(()) => now.maximum,
            Err(_refused) => now.current,
        }
    }
    #[cfg(not(unix))]
    None
}

#[cfg(all(test, unix))]
mod tests {
    #[test]
    fn the_limit_is_as_high_as_it_may_be() {
        let raised = super::raise_limit();
        let now = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        assert_eq!((raised, now.current), (now.maximum, now.maximum));
    }
}
