//! The calls that are open on one HTTP/2 connection, and which limit it breaks: it carries nothing, or its client takes
//! nothing. The clock stays outside.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::limits::ConnectionLimits;

/// The open calls of one connection. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Calls(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    open: usize,
    begun: u64,
    /// When the last call ended, or the connection began.
    idle_since: Instant,
    /// Calls whose client has been offered a part of the answer that it has not taken yet, and since when.
    offered: BTreeMap<u64, Instant>,
}

/// One open call. Dropping it ends the call.
#[derive(Debug)]
pub(super) struct Call {
    calls: Calls,
    number: u64,
}

/// What is wrong with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// It has carried no call for the header timeout.
    Idle,
    /// Its client has taken nothing of an answer for the write timeout.
    Unread,
}

impl Calls {
    pub(super) fn new(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(State { open: 0, begun: 0, idle_since: now, offered: BTreeMap::new() })))
    }

    /// Counts a call until the result is dropped.
    pub(super) fn begin(&self) -> Call {
        let mut state = self.lock();
        state.open += 1;
        state.begun += 1;
        Call { calls: self.clone(), number: state.begun }
    }

    /// Which limit is broken at `now`.
    pub(super) fn overdue(&self, now: Instant, limits: &ConnectionLimits) -> Option<Overdue> {
        let state = self.lock();
        let past = |since: Instant, limit: Duration| now.saturating_duration_since(since) >= limit;
        // Numbers grow with time, but an old call may have been offered its latest part just now.
        if state.offered.values().any(|&since| past(since, limits.write_timeout)) {
            return Some(Overdue::Unread);
        }
        (state.open == 0 && past(state.idle_since, limits.header_timeout)).then_some(Overdue::Idle)
    }

    /// Some call has begun, ever.
    pub(super) fn have_begun(&self) -> bool {
        self.lock().begun > 0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Call {
    /// A part of the answer was handed over, and the client has to take it.
    pub(super) fn offer(&self, now: Instant) {
        self.calls.lock().offered.insert(self.number, now);
    }

    /// The client has taken what it was offered.
    pub(super) fn taken(&self) {
        self.calls.lock().offered.remove(&self.number);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut state = self.calls.lock();
        state.offered.remove(&self.number);
        state.open -= 1;
        if state.open == 0 {
            state.idle_since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits {
        connections_max: 1,
        header_bytes_max: 1024,
        handshake_timeout: Duration::from_secs(10),
        header_timeout: Duration::from_secs(10),
        write_timeout: Duration::from_secs(3),
    };

    #[test]
    fn a_connection_without_calls_is_idle_after_the_header_timeout() {
        let start = Instant::now();
        let calls = Calls::new(start);
        assert_eq!(calls.overdue(start + Duration::from_millis(9_999), &LIMITS), None);
        assert_eq!(calls.overdue(start + Duration::from_secs(10), &LIMITS), Some(Overdue::Idle));
        let call = calls.begin();
        assert_eq!(calls.overdue(start + Duration::from_secs(100), &LIMITS), None, "a call may take long");
        drop(call);
        assert_eq!(calls.overdue(Instant::now() + Duration::from_secs(9), &LIMITS), None, "the clock starts anew");
    }

    #[test]
    fn an_answer_that_nobody_takes_is_overdue_whatever_the_other_calls_do() {
        let start = Instant::now();
        let calls = Calls::new(start);
        let (slow, quick) = (calls.begin(), calls.begin());
        slow.offer(start);
        quick.offer(start + Duration::from_secs(2));
        assert_eq!(calls.overdue(start + Duration::from_millis(2_999), &LIMITS), None);
        assert_eq!(calls.overdue(start + Duration::from_secs(3), &LIMITS), Some(Overdue::Unread));
        slow.taken();
        assert_eq!(calls.overdue(start + Duration::from_secs(3), &LIMITS), None);
        drop(quick);
        assert_eq!(calls.overdue(start + Duration::from_secs(100), &LIMITS), None, "an ended call has nothing to take");
    }
}
