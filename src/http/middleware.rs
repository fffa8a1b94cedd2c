//! Around every request: its id, its time, its line in the log, its count in the metrics.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

use super::App;
use crate::edge::{REQUEST_ID, request_id};
use crate::pipeline::Failure;
use crate::telemetry::{Metrics, StageTimes};

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

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
