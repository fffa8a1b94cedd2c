//! One POST to a collector, and what its answer means. OTLP's specification says which statuses are worth another try.

use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use prost::Message as _;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

use crate::telemetry::traces::otlp::ExportTraceServiceResponse;
use crate::telemetry::traces::settings::TraceSettings;

/// Of an answer, which has a few bytes; a server that is no collector may answer anything.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// Of what a collector says, in a log line.
const WHY_BYTES_MAX: usize = 200;

/// Talks to one collector.
pub(super) struct Collector {
    settings: TraceSettings,
    agent: Agent,
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was taken, but for so many of its spans.
    Taken { rejected: u64, why: String },
    /// Sent again, it would be refused again.
    Refused { why: String },
    /// It may be taken later; after that time, where the collector says one.
    TryAgain { why: String, after: Option<Duration> },
}

impl Collector {
    pub(super) fn new(settings: TraceSettings) -> Self {
        // As for the hub of models: the system's certificates, and ring, which builds with a C compiler alone.
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            // Collectors are near; a proxy for the outside would see every trace.
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(settings.timeout))
            .user_agent(concat!("residual/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Self { settings, agent }
    }

    pub(super) fn send(&self, message: &[u8]) -> Answer {
        let mut request = self.agent.post(&self.settings.url).header(CONTENT_TYPE, "application/x-protobuf");
        for (name, value) in &self.settings.headers {
            request = request.header(name, value);
        }
        let mut response = match request.send(message) {
            Ok(response) => response,
            Err(error) => return Answer::TryAgain { why: error.to_string(), after: None },
        };
        let after = response.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec().unwrap_or_default();
        meaning(status, after.map(Duration::from_secs), &body)
    }
}

fn meaning(status: u16, after: Option<Duration>, body: &[u8]) -> Answer {
    let why = format!("it answered {status}");
    match status {
        200..=299 => {
            // An answer without a message, or with one that is none, takes everything.
            let partial = ExportTraceServiceResponse::decode(body).ok().and_then(|answer| answer.partial_success);
            let rejected = partial.as_ref().map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0));
            let why = partial.map_or_else(String::new, |partial| shortened(&partial.error_message));
            Answer::Taken { rejected, why }
        }
        429 | 502 | 503 | 504 => Answer::TryAgain { why, after },
        _ => Answer::Refused { why },
    }
}

fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(WHY_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::traces::otlp::ExportTracePartialSuccess;

    #[test]
    fn statuses_mean_what_the_specification_says() {
        assert_eq!(meaning(200, None, b""), Answer::Taken { rejected: 0, why: String::new() });
        assert_eq!(meaning(200, None, b"<html>"), Answer::Taken { rejected: 0, why: String::new() });
        let partial = ExportTracePartialSuccess { rejected_spans: 3, error_message: "old".to_owned() };
        let body = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
        assert_eq!(meaning(200, None, &body), Answer::Taken { rejected: 3, why: "old".to_owned() });
        for again in [429, 502, 503, 504] {
            let after = Some(Duration::from_secs(7));
            assert!(matches!(meaning(again, after, b""), Answer::TryAgain { after: Some(_), .. }), "{again}");
        }
        for never in [302, 400, 401, 404, 413, 500] {
            assert_eq!(meaning(never, None, b""), Answer::Refused { why: format!("it answered {never}") });
        }
    }
}
