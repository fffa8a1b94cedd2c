//! How fetching behaves: what it tells, how it waits, and when it gives up.

use std::time::Duration;

use super::error::PullError;

/// How long a try may take, and how often one may fail.
#[derive(Clone, Debug)]
pub struct Patience {
    /// For a connection to stand, TLS included.
    pub connect: Duration,
    /// For the next bytes to come, of the head or of the body.
    pub stall: Duration,
    /// Tries for each file, the first included.
    pub tries_max: u32,
    /// Wait before the second try; it doubles with each further one.
    pub backoff: Duration,
    /// Wait at most. A server that asks for more is given up.
    pub wait_max: Duration,
    /// For another process that pulls into the same folder.
    pub lock: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            stall: Duration::from_secs(30),
            tries_max: 6,
            backoff: Duration::from_secs(1),
            wait_max: Duration::from_secs(60),
            lock: Duration::from_secs(60 * 60),
        }
    }
}

/// What goes on, for somebody to look at.
#[derive(Debug)]
pub enum Event<'a> {
    /// Another process pulls into the same folder, and this one waits for it.
    Waiting,
    /// A file begins to come.
    Begun {
        /// Its path in the repository.
        file: &'a str,
        /// The bytes that were there already.
        from: u64,
        /// Its size, if it is known.
        bytes: Option<u64>,
    },
    /// There is more of it now.
    Advanced {
        /// The bytes that are there.
        bytes: u64,
    },
    /// It is there, and it is right.
    Finished {
        /// Its path in the repository.
        file: &'a str,
    },
    /// Something failed that may pass.
    Retrying {
        /// What.
        why: &'a PullError,
        /// How long is waited before the next try.
        wait: Duration,
    },
    /// Weights are being turned into a graph.
    Converting {
        /// Their path in the repository.
        file: &'a str,
    },
}

/// Whom to tell, how to wait, and how long.
pub(super) struct Manners<'a> {
    pub(super) progress: &'a dyn Fn(Event<'_>),
    pub(super) pause: &'a dyn Fn(Duration),
    pub(super) patience: &'a Patience,
}

impl Manners<'_> {
    /// Does `work` until it succeeds, fails for good, or has failed too often.
    pub(super) fn persist<T>(&self, mut work: impl FnMut() -> Result<T, PullError>) -> Result<T, PullError> {
        let mut tries = 0;
        loop {
            let error = match work() {
                Err(error) if error.passes() => error,
                other => return other,
            };
            tries += 1;
            match self.patience.wait(tries, error.retry_after()) {
                Some(wait) => {
                    (self.progress)(Event::Retrying { why: &error, wait });
                    (self.pause)(wait);
                }
                None => return Err(PullError::GaveUp { tries, cause: Box::new(error) }),
            }
        }
    }
}

impl Patience {
    /// How long to wait after the try with this number failed; nothing if it was the last.
    fn wait(&self, tries: u32, asked: Option<Duration>) -> Option<Duration> {
        let own = self.backoff.saturating_mul(2_u32.saturating_pow(tries - 1)).min(self.wait_max);
        let wait = asked.unwrap_or(own);
        (tries < self.tries_max && wait <= self.wait_max).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_a_server_may_ask_for_more_or_less() {
        let patience = Patience { tries_max: 9, ..Patience::default() };
        let wait =
            |tries, asked: Option<u64>| patience.wait(tries, asked.map(Duration::from_secs)).map(|d| d.as_secs());
        let waits: Vec<_> = (1..=9).map(|tries| wait(tries, None)).collect();
        assert_eq!(waits, [Some(1), Some(2), Some(4), Some(8), Some(16), Some(32), Some(60), Some(60), None]);
        assert_eq!(wait(1, Some(0)), Some(0));
        assert_eq!((wait(1, Some(60)), wait(1, Some(61))), (Some(60), None));
    }
}
