//! A request that has ended -> its spans: one for the whole, and below it one for each stage that its images passed. Names and
//! attributes are those of OpenTelemetry's semantic conventions where these have any.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::context::Parent;
use super::otlp::{KeyValue, Span, SpanKind, Status, StatusCode};
use super::{Ids, Sampled, SpanId, TraceId};
use crate::telemetry::{ServedModel, Stage, StageTimes};

/// The version of the conventions that names are taken from.
pub(super) const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.42.0";
/// Longest text of a client in an attribute.
const TEXT_BYTES_MAX: usize = 256;
/// OTLP's flags hold those of W3C in their lowest byte, and above them whether it is known that the parent is in another process.
const SAMPLED: u32 = 1;
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// One request and its answer, as its layer saw them.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// What it came by.
    pub wire: Wire,
    /// Its id.
    pub request_id: String,
    /// `ok`, or the stable error code.
    pub outcome: String,
    /// The server is to blame: its own failure, and not what the client sent.
    pub is_fault: bool,
    /// The model that was asked, if one was found.
    pub model: Option<Arc<ServedModel>>,
    /// Where the time went.
    pub times: StageTimes,
}

/// What a request came by.
#[derive(Debug, Clone)]
pub enum Wire {
    /// HTTP.
    Http {
        /// Its method, one of those that everybody knows; none otherwise.
        method: Option<&'static str>,
        /// The pattern of its route; none if there is none.
        route: Option<String>,
        /// Its path.
        path: String,
        /// The status of the answer; none if the client left before.
        status: Option<u16>,
    },
    /// gRPC.
    Grpc {
        /// `package.Service/Method`; none if there is none.
        method: Option<String>,
        /// The status by its name; none if the client left before.
        status: Option<&'static str>,
    },
}

/// One request that is exported, with all that its spans are made of.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) parent: Option<Parent>,
    pub(super) sampled: Sampled,
    pub(super) exchange: Exchange,
    pub(super) ended: Instant,
}

impl Ended {
    /// How many spans it makes.
    pub(super) fn len(&self) -> usize {
        1 + self.exchange.times.passed().count()
    }

    /// Adds its spans: first the request's own, then its stages in their order.
    pub(super) fn spans(&self, ids: &mut Ids, to: &mut Vec<Span>) {
        let Self { parent, sampled, exchange, ended } = self;
        to.push(Span {
            name: exchange.wire.span_name(),
            kind: SpanKind::Server.into(),
            parent_span_id: parent.as_ref().map_or_else(Vec::new, |parent| parent.span_id.0.to_be_bytes().to_vec()),
            attributes: exchange.attributes(),
            status: exchange.is_fault.then(|| Status { message: String::new(), code: StatusCode::Error.into() }),
            flags: SAMPLED | HAS_IS_REMOTE | if parent.is_some() { IS_REMOTE } else { 0 },
            ..self.span(sampled.span_id, sampled.started.0, *ended)
        });
        for (stage, _) in exchange.times.passed() {
            let Some(passed) = exchange.times.passed_stage(stage) else { continue };
            to.push(Span {
                name: stage.name().to_owned(),
                kind: SpanKind::Internal.into(),
                parent_span_id: sampled.span_id.0.to_be_bytes().to_vec(),
                attributes: exchange.stage_attributes(stage),
                flags: SAMPLED | HAS_IS_REMOTE,
                ..self.span(ids.span(), passed.began, passed.ended)
            });
        }
    }

    /// What all spans of the request have.
    fn span(&self, id: SpanId, began: Instant, ended: Instant) -> Span {
        let TraceId(trace_id) = self.sampled.trace_id;
        Span {
            trace_id: trace_id.to_be_bytes().to_vec(),
            span_id: id.0.to_be_bytes().to_vec(),
            trace_state: self.parent.as_ref().map_or_else(String::new, |parent| parent.state.clone()),
            start_time_unix_nano: self.nanos(began),
            end_time_unix_nano: self.nanos(ended),
            ..Span::default()
        }
    }

    /// Nanoseconds since 1970, counted from the one moment of which both clocks are known: a clock that is set meanwhile bends
    /// no duration.
    fn nanos(&self, moment: Instant) -> u64 {
        let (instant, wall) = self.sampled.started;
        let wall = match moment.checked_duration_since(instant) {
            Some(after) => wall.checked_add(after),
            None => wall.checked_sub(instant.saturating_duration_since(moment)),
        };
        let since = wall.and_then(|wall| wall.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Exchange {
    fn attributes(&self) -> Vec<KeyValue> {
        let mut attributes = self.wire.attributes();
        attributes.push(KeyValue::text("residual.request_id", self.request_id.as_str()));
        attributes.push(KeyValue::text("residual.outcome", self.outcome.as_str()));
        if self.outcome != "ok" {
            attributes.push(KeyValue::text("error.type", self.outcome.as_str()));
        }
        if let Some(model) = self.model.as_deref() {
            attributes.push(KeyValue::text("residual.model.name", model.name.as_str()));
            attributes.push(KeyValue::text("residual.model.version", model.version.as_str()));
        }
        attributes
    }

    fn stage_attributes(&self, stage: Stage) -> Vec<KeyValue> {
        let mut attributes = Vec::new();
        if stage == Stage::Infer {
            attributes.push(KeyValue::int("residual.batch_images", self.times.batch_len));
            if let Some(model) = self.model.as_deref() {
                attributes.push(KeyValue::text("residual.model.name", model.name.as_str()));
                attributes.push(KeyValue::text("residual.model.version", model.version.as_str()));
                attributes.push(KeyValue::text("residual.provider", model.provider));
            }
        }
        attributes
    }
}

impl Wire {
    /// Of what clients type nothing gets into a name: collectors keep statistics by it.
    fn span_name(&self) -> String {
        match self {
            Self::Http { method, route: Some(route), .. } => format!("{} {route}", method.unwrap_or("HTTP")),
            Self::Http { method, route: None, .. } => method.unwrap_or("HTTP").to_owned(),
            Self::Grpc { method, .. } => method.clone().unwrap_or_else(|| "_OTHER".to_owned()),
        }
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let mut attributes = Vec::with_capacity(8);
        match self {
            Self::Http { method, route, path, status } => {
                attributes.push(KeyValue::text("http.request.method", method.unwrap_or("_OTHER")));
                attributes.push(KeyValue::text("url.path", shortened(path)));
                attributes.extend(route.as_deref().map(|route| KeyValue::text("http.route", route)));
                attributes.extend(status.map(|status| KeyValue::int("http.response.status_code", status)));
            }
            Self::Grpc { method, status } => {
                attributes.push(KeyValue::text("rpc.system.name", "grpc"));
                attributes.push(KeyValue::text("rpc.method", method.as_deref().unwrap_or("_OTHER")));
                attributes.extend(status.map(|status| KeyValue::text("rpc.response.status_code", status)));
            }
        }
        attributes
    }
}

fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ended(wire: Wire) -> Ended {
        let started = Instant::now();
        let at = |ms| started + Duration::from_millis(ms);
        let mut times = StageTimes::default();
        times.batch_len = 4;
        times.set(Stage::Queue, at(2), Duration::from_millis(3));
        times.set(Stage::Infer, at(5), Duration::from_millis(10));
        let model = ServedModel { name: "m".to_owned(), version: "2".to_owned(), provider: "cpu" };
        Ended {
            parent: None,
            sampled: Sampled {
                trace_id: TraceId(1 << 64),
                span_id: SpanId(5),
                started: (started, SystemTime::UNIX_EPOCH + Duration::from_secs(1000)),
            },
            exchange: Exchange {
                wire,
                request_id: "r".to_owned(),
                outcome: "ok".to_owned(),
                is_fault: false,
                model: Some(Arc::new(model)),
                times,
            },
            ended: at(20),
        }
    }

    fn http(route: Option<&str>) -> Wire {
        let path = "/p".repeat(400);
        Wire::Http { method: Some("POST"), route: route.map(str::to_owned), path, status: Some(200) }
    }

    fn spans(ended: &Ended) -> Vec<Span> {
        let mut spans = Vec::new();
        ended.spans(&mut Ids::new(), &mut spans);
        assert_eq!(spans.len(), ended.len());
        spans
    }

    fn millis(span: &Span) -> (u64, u64) {
        let since = |nanos: u64| (nanos - 1_000_000_000_000) / 1_000_000;
        (since(span.start_time_unix_nano), since(span.end_time_unix_nano))
    }

    #[test]
    fn stages_lie_in_the_request_at_their_own_times() {
        let spans = spans(&ended(http(Some("/x"))));
        let names: Vec<(&str, (u64, u64))> = spans.iter().map(|span| (span.name.as_str(), millis(span))).collect();
        assert_eq!(names, [("POST /x", (0, 20)), ("queue", (2, 5)), ("infer", (5, 15))]);
        for stage in &spans[1..] {
            assert_eq!(stage.parent_span_id, spans[0].span_id);
            assert_eq!(stage.trace_id, [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
        assert!(spans[0].parent_span_id.is_empty());
        assert_ne!(spans[1].span_id, spans[2].span_id);
        assert!(spans[2].attributes.contains(&KeyValue::int("residual.batch_images", 4)));
        assert!(spans[2].attributes.contains(&KeyValue::text("residual.provider", "cpu")));
    }

    #[test]
    fn a_remote_parent_stays_the_parent() {
        let mut ended = ended(http(None));
        let state = "a=1".to_owned();
        ended.parent = Some(Parent { trace_id: TraceId(1 << 64), span_id: SpanId(9), sampled: true, state });
        let spans = spans(&ended);
        assert_eq!(spans[0].parent_span_id, [0, 0, 0, 0, 0, 0, 0, 9]);
        assert_eq!((spans[0].flags, spans[1].flags), (0x301, 0x101));
        assert!(spans.iter().all(|span| span.trace_state == "a=1"));
    }

    #[test]
    fn what_clients_type_is_short_and_in_no_name() {
        let spans = spans(&ended(http(None)));
        assert_eq!(spans[0].name, "POST");
        let path = "/p".repeat(128);
        assert!(spans[0].attributes.contains(&KeyValue::text("url.path", path)));
    }

    #[test]
    fn only_the_server_s_own_failures_are_errors() {
        let mut ended = ended(Wire::Grpc { method: Some("a.B/C".to_owned()), status: Some("INVALID_ARGUMENT") });
        ended.exchange.outcome = "bad_tensor".to_owned();
        let refused = spans(&ended);
        assert_eq!((refused[0].name.as_str(), &refused[0].status), ("a.B/C", &None));
        assert!(refused[0].attributes.contains(&KeyValue::text("error.type", "bad_tensor")));
        ended.exchange.is_fault = true;
        assert_eq!(spans(&ended)[0].status.as_ref().unwrap().code, StatusCode::Error as i32);
    }
}
