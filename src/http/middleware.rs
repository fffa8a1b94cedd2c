//! Around every request: its id, its time, its line in the log, its count in the metrics.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use uuid::Uuid;

use super::App;
use crate::pipeline::Failure;
use crate::telemetry::{Metrics, StageTimes};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// Longest request id that is taken over from a client. A UUID has 36 characters.
const REQUEST_ID_LEN_MAX: usize = 128;

/// What a handler tells the middleware about its answer, as an extension of the response.
#[derive(Debug, Clone)]
pub(super) struct Report {
    /// `ok` or the stable error code.
    pub outcome: &'static str,
    /// The model that was asked, if one was found.
    pub model: String,
    /// Where the time went.
    pub times: StageTimes,
    /// What the log should say about a failure.
    pub cause: Option<String>,
}

impl Default for Report {
    fn default() -> Self {
        Self { outcome: "ok", model: String::new(), times: StageTimes::default(), cause: None }
    }
}

pub(super) async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    // Unknown paths share one label: a metric must not grow with what strangers type.
    let route = request.extensions().get::<MatchedPath>().map_or("unknown", |path| path.as_str()).to_owned();
    let mut in_flight = InFlight::enter(&app.metrics, &route, started);

    let mut response = next.run(request).await;

    in_flight.answered = true;
    let report = response.extensions_mut().remove::<Report>().unwrap_or_default();
    let duration = started.elapsed();
    app.metrics.request(&route, &report.model, report.outcome, duration);
    let status = response.status().as_u16();
    // Whole microseconds, so that the log shows no digits of noise.
    let duration_ms = duration.as_micros() as f64 / 1e3;
    let id_text = id.to_str().unwrap_or_default();
    if let Some(cause) = report.cause.as_deref() {
        tracing::error!(request.id = id_text, %method, path, status, code = report.outcome, duration_ms, cause, "request failed: {cause}");
    } else {
        // Metrics count these; a line for each would let any client fill the disk.
        tracing::debug!(request.id = id_text, %method, path, status, code = report.outcome, duration_ms, "request answered");
    }
    if report.outcome == Failure::Overloaded.code() {
        app.overload.note();
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    if let Ok(value) = HeaderValue::try_from(report.times.server_timing(duration)) {
        headers.insert(SERVER_TIMING, value);
    }
    response
}

/// The client's own id where it is short and printable, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    headers
        .get(REQUEST_ID)
        .filter(|id| (1..=REQUEST_ID_LEN_MAX).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic))
        .cloned()
        .unwrap_or_else(|| HeaderValue::try_from(Uuid::new_v4().to_string()).expect("a UUID is a valid header value"))
}

/// Tells the operator about overload, at most once a second.
#[derive(Debug, Default)]
pub(super) struct OverloadLog {
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
    fn note(&self) {
        if let Some(refused) = self.count(Instant::now()) {
            tracing::warn!(refused, "overloaded: {refused} request(s) were refused with 503 since the last such line");
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

/// Counts a request as in flight until it is answered, or its client has left and the handler is dropped.
struct InFlight<'a> {
    metrics: &'a Metrics,
    route: &'a str,
    started: Instant,
    answered: bool,
}

impl<'a> InFlight<'a> {
    fn enter(metrics: &'a Metrics, route: &'a str, started: Instant) -> Self {
        metrics.requests_in_flight.inc();
        Self { metrics, route, started, answered: false }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.metrics.requests_in_flight.dec();
        if !self.answered {
            self.metrics.request(self.route, "", "client_left", self.started.elapsed());
        }
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
