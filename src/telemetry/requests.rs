//! What the log says of requests that were answered and of those that failed, within bounds: no client can fill a disk.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::traces::Trace;

/// Lines a second about requests that failed inside the server, at most. Each names a cause that somebody must look at, and
/// hundreds of them name the same one.
const FAILURES_PER_SECOND: u32 = 100;
/// What the bounds count in.
const SECOND: Duration = Duration::from_secs(1);

/// Writes a line about each request, or about some. Cheap to clone; clones share the bounds.
#[derive(Debug, Clone)]
pub struct RequestLog {
    /// None where answered requests stay at debug.
    answered: Option<Arc<Mutex<Bound>>>,
    failed: Arc<Mutex<Bound>>,
}

/// A model that is served, as spans and reports name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedModel {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The execution provider in use.
    pub provider: &'static str,
}

/// One request that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its method, of HTTP.
    pub method: Option<&'a str>,
    /// Its path.
    pub path: &'a str,
    /// The status of its answer, of HTTP.
    pub status: Option<u16>,
    /// `ok`, or the stable error code.
    pub code: &'a str,
    /// The model that was asked, if one was found.
    pub model: Option<&'a str>,
    /// From the end of its head to its answer.
    pub took: Duration,
    /// What went wrong inside the server.
    pub cause: Option<&'a str>,
    /// Whose trace it belongs to.
    pub trace: &'a Trace,
}

impl RequestLog {
    /// At most so many lines a second about answered requests at info; the others, or all, are there at debug.
    #[must_use]
    pub fn new(lines_per_second: u32) -> Self {
        let bound = |per_second| Arc::new(Mutex::new(Bound { per_second, begun: None, written: 0, left_out: 0 }));
        let answered = (lines_per_second > 0).then(|| bound(lines_per_second));
        Self { answered, failed: bound(FAILURES_PER_SECOND) }
    }

    /// Writes the line, where the bounds let it through.
    pub fn write(&self, line: &Line<'_>) {
        let Line { id, method, path, status, code, model, took, cause, trace } = *line;
        // Whole microseconds, so that the log shows no digits of noise.
        let duration_ms = took.as_micros() as f64 / 1e3;
        let trace_id = trace.trace_id().map(tracing::field::display);
        let span_id = trace.span_id().map(tracing::field::display);
        if let Some(cause) = cause {
            if let Some(left_out) = admit(&self.failed).map(not_none) {
                tracing::error!(
                    request.id = id,
                    trace_id,
                    span_id,
                    method,
                    path,
                    status,
                    code,
                    model,
                    duration_ms,
                    left_out,
                    cause,
                    "request failed: {cause}"
                );
            }
        } else if let Some(left_out) = self.answered.as_deref().and_then(admit).map(not_none) {
            tracing::info!(
                request.id = id,
                trace_id,
                span_id,
                method,
                path,
                status,
                code,
                model,
                duration_ms,
                left_out,
                "request answered"
            );
        } else {
            tracing::debug!(
                request.id = id,
                trace_id,
                span_id,
                method,
                path,
                status,
                code,
                model,
                duration_ms,
                "request answered"
            );
        }
    }
}

/// So many in a second, and a count of the others.
struct Bound {
    per_second: u32,
    /// When the second began that is counted now.
    begun: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} a second", self.per_second)
    }
}

/// A field is there where something was left out.
fn not_none(left_out: u64) -> Option<u64> {
    Some(left_out).filter(|left_out| *left_out > 0)
}

/// If there is room for a line, how many were left out before it.
fn admit(bound: &Mutex<Bound>) -> Option<u64> {
    bound.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now())
}

impl Bound {
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.begun.is_none_or(|begun| now.duration_since(begun) >= SECOND) {
            (self.begun, self.written) = (Some(now), 0);
        }
        if self.written == self.per_second {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_lines_and_the_next_says_how_many_were_left_out() {
        let mut bound = Bound { per_second: 2, begun: None, written: 0, left_out: 0 };
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!([0, 1, 2, 999].map(|ms| bound.admit(at(ms))), [Some(0), Some(0), None, None]);
        assert_eq!([1000, 1001, 1002].map(|ms| bound.admit(at(ms))), [Some(2), Some(0), None]);
    }
}
