//! Around every request: its id, its time, its line in the log, its count in the metrics.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use super::App;
use crate::edge::{REQUEST_ID, request_id};
use crate::pipeline::Failure;
use crate::telemetry::requests::Line;
use crate::telemetry::traces::{Exchange, Wire};
use crate::telemetry::{ServedModel, StageTimes, Trace};

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// The outcome of a request whose client went away before its answer.
const CLIENT_LEFT: &str = "client_left";

/// What a handler tells the middleware about its answer, as an extension of the response.
#[derive(Debug, Clone)]
pub(super) struct Report {
    /// `ok` or the stable error code.
    pub outcome: &'static str,
    /// The model that was asked, if one was found.
    pub model: Option<Arc<ServedModel>>,
    /// Where the time went.
    pub times: StageTimes,
    /// What the log should say about a failure.
    pub cause: Option<String>,
}

impl Default for Report {
    fn default() -> Self {
        Self { outcome: "ok", model: None, times: StageTimes::default(), cause: None }
    }
}

pub(super) async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let mut seen = Seen::begin(&app, &request, &id, started);

    let mut response = next.run(request).await;

    let report = response.extensions_mut().remove::<Report>().unwrap_or_default();
    let times = report.times;
    if report.outcome == Failure::Overloaded.code() {
        app.overload.note();
    }
    seen.answer = Some((report, response.status()));
    drop(seen);
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    if let Ok(value) = HeaderValue::try_from(times.server_timing(started.elapsed())) {
        headers.insert(SERVER_TIMING, value);
    }
    response
}

/// A request from its head to its answer, or until its client has left and the handler is dropped: then it is told of.
struct Seen<'a> {
    app: &'a App,
    id: &'a HeaderValue,
    method: Method,
    path: String,
    /// Unknown paths share one label: a metric must not grow with what strangers type.
    route: Option<MatchedPath>,
    started: Instant,
    trace: Trace,
    /// What was reported, and the status; nothing while there is no answer.
    answer: Option<(Report, StatusCode)>,
}

impl<'a> Seen<'a> {
    fn begin(app: &'a App, request: &Request, id: &'a HeaderValue, started: Instant) -> Self {
        app.metrics.requests_in_flight.inc();
        Self {
            app,
            id,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            route: request.extensions().get::<MatchedPath>().cloned(),
            started,
            trace: app.tracer.begin(request.headers(), started),
            answer: None,
        }
    }
}

impl Drop for Seen<'_> {
    fn drop(&mut self) {
        let Self { app, method, path, started, .. } = self;
        let (report, status) = match self.answer.take() {
            Some((report, status)) => (report, Some(status)),
            None => (Report { outcome: CLIENT_LEFT, ..Report::default() }, None),
        };
        let Report { outcome, model, times, cause } = report;
        let took = started.elapsed();
        let route = self.route.as_ref().map(MatchedPath::as_str);
        let model_name = model.as_ref().map(|model| model.name.as_str());
        let id = self.id.to_str().unwrap_or_default();
        app.metrics.requests_in_flight.dec();
        app.metrics.request(route.unwrap_or("unknown"), model_name.unwrap_or_default(), outcome, took);
        app.log.write(&Line {
            id,
            method: Some(method.as_str()),
            path,
            status: status.map(|status| status.as_u16()),
            code: outcome,
            model: model_name,
            took,
            cause: cause.as_deref(),
            trace: &self.trace,
        });
        app.tracer.end(std::mem::take(&mut self.trace), || Exchange {
            wire: Wire::Http {
                method: well_known(method),
                route: route.map(str::to_owned),
                path: path.clone(),
                status: status.map(|status| status.as_u16()),
            },
            request_id: id.to_owned(),
            outcome: outcome.to_owned(),
            is_fault: status.is_some_and(|status| status.is_server_error()),
            model,
            times,
        });
    }
}

/// The methods that RFC 9110 and RFC 5789 define.
fn well_known(method: &Method) -> Option<&'static str> {
    let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    known.into_iter().find(|known| method == *known)
}
