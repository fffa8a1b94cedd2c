//! What every request has, whatever it speaks: an id, and a line in the log where too many are refused.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// The header, or metadata key, of a request's id.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest request id that is taken over from a client. A UUID has 36 characters.
const REQUEST_ID_LEN_MAX: usize = 128;

/// The client's own id where it is short and printable, else a new one.
pub(crate) fn request_id(headers: &HeaderMap) -> HeaderValue {
    headers
        .get(REQUEST_ID)
        .filter(|id| (1..=REQUEST_ID_LEN_MAX).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic))
        .cloned()
        .unwrap_or_else(|| HeaderValue::try_from(Uuid::new_v4().to_string()).expect("a UUID is a valid header value"))
}

/// Tells the operator about overload, at most once a second.
#[derive(Debug, Default)]
pub(crate) struct OverloadLog {
    state: Mutex<OverloadState>,
}

#[derive(Debug, Default)]
struct OverloadState {
    refused: u64,
    logged: Option<Instant>,
}

/// Between two lines about overload.
const OVERLOAD_LOG_PAUSE: Duration = Duration::from_secs(1);

impl OverloadLog {
    /// Counts one refusal.
    pub(crate) fn note(&self) {
        if let Some(refused) = self.count(Instant::now()) {
            tracing::warn!(refused, "overloaded: {refused} request(s) were refused since the last such line");
        }
    }

    /// Counts one refusal; returns the number to log if it is time to.
    fn count(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.refused += 1;
        let due = state.logged.is_none_or(|logged| now.duration_since(logged) >= OVERLOAD_LOG_PAUSE);
        due.then(|| {
            state.logged = Some(now);
            std::mem::take(&mut state.refused)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_for(value: &'static [u8]) -> HeaderValue {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
        request_id(&headers)
    }

    #[test]
    fn overload_is_logged_at_most_once_a_second_with_all_that_were_refused() {
        let (log, start) = (OverloadLog::default(), Instant::now());
        assert_eq!(log.count(start), Some(1));
        assert_eq!(log.count(start), None);
        assert_eq!(log.count(start + Duration::from_millis(999)), None);
        assert_eq!(log.count(start + Duration::from_secs(1)), Some(3));
    }

    #[test]
    fn a_printable_id_is_kept_and_any_other_replaced() {
        assert_eq!(id_for(b"trace-42"), "trace-42");
        for bad in [&b""[..], b"with space", b"caf\xc3\xa9", &[b'x'; 129]] {
            assert_eq!(id_for(Box::leak(bad.to_vec().into_boxed_slice())).len(), 36);
        }
        assert_eq!(request_id(&HeaderMap::new()).len(), 36);
    }
}
