//! Around every call: its id, its clock, its messages, its count in the metrics, its line in the log.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body::Frame;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tonic::{Code, Status};

use super::Grpc;
use super::call::{Call, Report};
use super::deadline;
use super::messages::{Messages, Rules};
use super::methods::Kind;
use super::status::{self, ERROR_CODE, OVERLOADED, TooManyCalls, UnknownMethod};
use super::unpack::Packing;
use crate::edge::{REQUEST_ID, Shared, request_id};
use crate::guard::{Access, Admitted};
use crate::telemetry::Trace;
use crate::telemetry::requests::Line;
use crate::telemetry::traces::{Exchange, Wire};

const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// The metric label of calls that there are not: a metric must not grow with what strangers type.
const UNKNOWN_ROUTE: &str = "unknown";
/// The outcome of a call whose client went away before its end.
const CLIENT_LEFT: &str = "client_left";

pub(super) async fn observe(State(grpc): State<Grpc>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let method = grpc.methods.get(request.uri().path()).cloned();
    let limit = deadline::timeout(request.headers()).and_then(|timeout| started.checked_add(timeout));
    let call = Call::new(limit);
    let route = method.as_ref().map_or_else(|| Arc::from(UNKNOWN_ROUTE), |method| Arc::clone(&method.path));
    let trace = grpc.shared.tracer.begin(request.headers(), started);
    let mut observed = Observed::begin(&grpc, route, call.clone(), id.clone(), started, trace);
    // Who has no key learns nothing about which calls there are.
    let access = method.as_ref().map_or(Access::Use, |method| method.access);
    let peer = request.extensions().get().copied();
    let admitted = match (grpc.guard.admit(request.headers(), peer, access), method) {
        (Err(refused), _) => Err(refused.into()),
        (Ok(admitted), Some(method)) => {
            let kind = method.kind;
            let rules = Rules {
                limits: grpc.limits,
                memory: grpc.shared.uploads.clone(),
                pool: grpc.pool.clone(),
                phases: grpc.shared.phases.clone(),
                method,
                call: call.clone(),
            };
            observed.admit(kind).and_then(|()| with_messages(request, rules, call, admitted))
        }
        (Ok(_), None) => Err(UnknownMethod(request.uri().path().to_owned()).into()),
    };
    let mut response = match admitted {
        Err(status) => status.into_http(),
        Ok(request) => match limit {
            // Dropping the handler is how a caller leaves.
            Some(limit) => match tokio::time::timeout_at(limit.into(), next.run(request)).await {
                Ok(response) => response,
                Err(_elapsed) => status::deadline_exceeded().into_http(),
            },
            None => next.run(request).await,
        },
    };
    observed.see(response.headers());
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(Packing::ALL));
    let times = observed.call.reported().times;
    if let Ok(value) = HeaderValue::try_from(times.server_timing(started.elapsed())) {
        headers.insert(SERVER_TIMING, value);
    }
    let sleep = limit.map(|limit| Box::pin(tokio::time::sleep_until(limit.into())));
    response.map(|body| Body::new(Answer { body, sleep, ended: false, observed }))
}

/// The request with its messages in place of its body.
fn with_messages(request: Request, rules: Rules, call: Call, admitted: Option<Admitted>) -> Result<Request, Status> {
    let (mut head, body) = request.into_parts();
    let encoding = head.headers.remove(ENCODING);
    let messages = Messages::new(body, encoding.as_ref().map(HeaderValue::as_bytes), rules)?;
    // The length of the body that was.
    head.headers.remove(header::CONTENT_LENGTH);
    head.extensions.insert(call);
    if let Some(admitted) = admitted {
        head.extensions.insert(admitted);
    }
    Ok(Request::from_parts(head, messages.into_body()))
}

/// Counts a call as in flight until its answer has left, or its client has.
struct Observed {
    grpc: Grpc,
    route: Arc<str>,
    call: Call,
    id: HeaderValue,
    started: Instant,
    trace: Trace,
    /// `ok` or a stable code, and the status, once they are known.
    outcome: Option<(String, Code)>,
    place: Option<OwnedSemaphorePermit>,
}

impl Observed {
    fn begin(grpc: &Grpc, route: Arc<str>, call: Call, id: HeaderValue, started: Instant, trace: Trace) -> Self {
        grpc.shared.metrics.requests_in_flight.inc();
        Self { grpc: grpc.clone(), route, call, id, started, trace, outcome: None, place: None }
    }

    /// Takes one of the places for open calls of this kind.
    fn admit(&mut self, kind: Kind) -> Result<(), Status> {
        let place = Arc::clone(self.grpc.places(kind)).try_acquire_owned();
        self.place = Some(place.map_err(|_none_free| TooManyCalls(self.grpc.limits.calls_max))?);
        Ok(())
    }

    /// Learns the outcome, where these headers or trailers have it.
    fn see(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get(Status::GRPC_STATUS).map(|status| Code::from_bytes(status.as_bytes())) {
            let ours = headers.get(ERROR_CODE).and_then(|code| code.to_str().ok());
            self.outcome = Some((ours.unwrap_or(status::name(code)).to_owned(), code));
        }
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        let Shared { metrics, tracer, log, .. } = &self.grpc.shared;
        metrics.requests_in_flight.dec();
        let (Report { model, times, cause, left }, took) = (self.call.reported(), self.started.elapsed());
        let ended = self.outcome.take().filter(|_| !left);
        let (outcome, code) = ended.as_ref().map_or((CLIENT_LEFT, None), |(outcome, code)| (outcome, Some(*code)));
        let model_name = model.as_ref().map(|model| model.name.as_str());
        metrics.request(&self.route, model_name.unwrap_or_default(), outcome, took);
        let id = self.id.to_str().unwrap_or_default();
        log.write(&Line {
            id,
            method: None,
            path: &self.route,
            status: None,
            code: outcome,
            model: model_name,
            took,
            cause: cause.as_deref(),
            trace: &self.trace,
        });
        let method = self.route.strip_prefix('/');
        tracer.end(std::mem::take(&mut self.trace), || Exchange {
            wire: Wire::Grpc { method: method.map(str::to_owned), status: code.map(status::shouted) },
            request_id: id.to_owned(),
            outcome: outcome.to_owned(),
            is_fault: code.is_some_and(status::is_fault),
            model,
            times,
        });
        if outcome == OVERLOADED {
            self.grpc.overload.note();
        }
    }
}

/// The body of an answer, which ends at the client's deadline.
struct Answer {
    body: Body,
    sleep: Option<Pin<Box<Sleep>>>,
    ended: bool,
    observed: Observed,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let me = &mut *self;
        if me.ended {
            return Poll::Ready(None);
        }
        if let Some(sleep) = &mut me.sleep
            && sleep.as_mut().poll(cx).is_ready()
        {
            me.ended = true;
            let mut trailers = HeaderMap::new();
            // Its message and metadata are plain text.
            let _ = status::deadline_exceeded().add_header(&mut trailers);
            me.observed.see(&trailers);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(Pin::new(&mut me.body).poll_frame(cx));
        if let Some(trailers) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.trailers_ref()) {
            me.observed.see(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }
}
