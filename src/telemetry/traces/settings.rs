//! What the exporter is told: the collector's address and the sampling ratio by settings, the rest by OpenTelemetry's standard
//! variables. Headers carry keys, so they have no flag and are never shown.

use std::fmt;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use uuid::Uuid;

/// Where a collector takes traces, below its address.
const TRACES_PATH: &str = "/v1/traces";
/// How long one export may take, as OpenTelemetry has it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The name of this service, unless OTEL_SERVICE_NAME says another one.
const SERVICE_NAME: &str = "residual";

/// Where traces go, and which.
#[derive(Clone)]
pub struct TraceSettings {
    pub(super) url: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) timeout: Duration,
    /// What every span is told to come from.
    pub(super) resource: Vec<(String, String)>,
    pub(super) ratio: f64,
}

/// Why traces cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// A variable that is not a list of pairs. Its value may be a key and is not shown.
    #[error("{variable} is no list of KEY=VALUE pairs with commas between them; entry {entry} of it is not one")]
    Pairs {
        /// The variable.
        variable: &'static str,
        /// Which of its entries, from 1.
        entry: usize,
    },
    /// A header that no request can have.
    #[error("entry {entry} of {variable} is no HTTP header")]
    Header {
        /// The variable.
        variable: &'static str,
        /// Which of its entries, from 1.
        entry: usize,
    },
    /// A time that is none.
    #[error("{variable} is {value:?}; it is a number of milliseconds above 0")]
    Timeout {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
    },
    /// The system gives no thread.
    #[error("start the thread that exports traces: {0}")]
    Thread(#[source] std::io::Error),
}

impl fmt::Debug for TraceSettings {
    /// Without the headers' values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        let Self { url, timeout, resource, ratio, .. } = self;
        f.debug_struct("TraceSettings")
            .field("url", url)
            .field("headers", &headers)
            .field("timeout", timeout)
            .field("resource", resource)
            .field("ratio", ratio)
            .finish()
    }
}

impl TraceSettings {
    /// Traces of `ratio` of the requests for the collector at `endpoint`. `variable` has the value of each variable that is set.
    ///
    /// # Errors
    /// [`TraceError`] about a variable that cannot be read.
    pub fn new(endpoint: &str, ratio: f64, variable: impl Fn(&str) -> Option<String>) -> Result<Self, TraceError> {
        let set = |name: &'static str| variable(name).filter(|value| !value.is_empty()).map(|value| (name, value));
        // What is said of traces goes before what is said of everything.
        let either = |traces: &'static str, all: &'static str| set(traces).or_else(|| set(all));
        let headers = match either("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS") {
            Some((variable, list)) => headers(variable, &list)?,
            None => Vec::new(),
        };
        let timeout = match either("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT") {
            None => TIMEOUT,
            Some((variable, value)) => match value.parse() {
                Ok(ms @ 1_u64..) => Duration::from_millis(ms),
                Ok(0) | Err(_) => return Err(TraceError::Timeout { variable, value }),
            },
        };
        let mut resource = vec![
            ("service.name".to_owned(), SERVICE_NAME.to_owned()),
            ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("service.instance.id".to_owned(), Uuid::new_v4().to_string()),
        ];
        if let Some((variable, list)) = set("OTEL_RESOURCE_ATTRIBUTES") {
            pairs(variable, &list)?.into_iter().for_each(|pair| replace(&mut resource, pair));
        }
        if let Some((_, name)) = set("OTEL_SERVICE_NAME") {
            replace(&mut resource, ("service.name".to_owned(), name));
        }
        Ok(Self { url: url(endpoint), headers, timeout, resource, ratio })
    }
}

/// Where to send traces: at the usual path below the collector's address. An address that ends in `traces` is that path.
fn url(endpoint: &str) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    if endpoint.ends_with("/traces") { endpoint.to_owned() } else { format!("{endpoint}{TRACES_PATH}") }
}

fn headers(variable: &'static str, list: &str) -> Result<Vec<(HeaderName, HeaderValue)>, TraceError> {
    let header = |(index, (name, value)): (usize, (String, String))| {
        let name = HeaderName::try_from(name).ok();
        // Spaces around the value are of the list and not of the header.
        let value = HeaderValue::try_from(value.trim()).ok();
        let (Some(name), Some(mut value)) = (name, value) else {
            return Err(TraceError::Header { variable, entry: index + 1 });
        };
        value.set_sensitive(true);
        Ok((name, value))
    };
    pairs(variable, list)?.into_iter().enumerate().map(header).collect()
}

/// `key=value,key=value`, as W3C Baggage has it: what a list could not hold is percent-encoded.
fn pairs(variable: &'static str, list: &str) -> Result<Vec<(String, String)>, TraceError> {
    let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let pair = |(index, entry): (usize, &str)| {
        let decoded = |text: &str| percent_decode_str(text.trim()).decode_utf8().ok().map(String::from);
        let pair = entry.split_once('=').and_then(|(key, value)| Some((decoded(key)?, decoded(value)?)));
        pair.filter(|(key, _)| !key.is_empty()).ok_or(TraceError::Pairs { variable, entry: index + 1 })
    };
    entries.enumerate().map(pair).collect()
}

fn replace(resource: &mut Vec<(String, String)>, (key, value): (String, String)) {
    match resource.iter_mut().find(|(known, _)| *known == key) {
        Some((_, old)) => *old = value,
        None => resource.push((key, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<TraceSettings, String> {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        TraceSettings::new("http://c:4318/", 1.0, variable).map_err(|error| error.to_string())
    }

    #[test]
    fn an_address_gets_the_usual_path_unless_it_has_one() {
        for (endpoint, expected) in [
            ("http://c:4318", "http://c:4318/v1/traces"),
            ("http://c:4318/", "http://c:4318/v1/traces"),
            ("https://gateway/otlp", "https://gateway/otlp/v1/traces"),
            ("http://c:4318/v1/traces", "http://c:4318/v1/traces"),
            ("https://agent/api/v0.2/traces", "https://agent/api/v0.2/traces"),
        ] {
            assert_eq!(url(endpoint), expected);
        }
    }

    #[test]
    fn variables_name_the_service_and_its_attributes() {
        let settings = with(&[
            ("OTEL_SERVICE_NAME", "photos"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other, deployment.environment.name=test%2C1,service.version=9"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "250"),
        ])
        .unwrap();
        let value = |key: &str| settings.resource.iter().find(|(known, _)| known == key).unwrap().1.as_str();
        assert_eq!([value("service.name"), value("service.version")], ["photos", "9"]);
        assert_eq!(value("deployment.environment.name"), "test,1");
        assert_eq!(settings.timeout, Duration::from_millis(250));
        assert_eq!(with(&[]).unwrap().timeout, TIMEOUT);
    }

    #[test]
    fn keys_are_sent_and_never_shown() {
        let settings = with(&[("OTEL_EXPORTER_OTLP_HEADERS", "x-key=s%3Dcret, authorization=Basic abc==")]).unwrap();
        assert_eq!(settings.headers[0].1, "s=cret");
        assert_eq!(settings.headers[1].1, "Basic abc==");
        let shown = format!("{settings:?}");
        assert!(shown.contains("x-key") && !shown.contains("cret") && !shown.contains("abc"), "{shown}");
        for (list, expected) in [
            ("s3cret", "entry 1 of it is not one"),
            ("a=1,=s3cret", "entry 2 of it is not one"),
            ("a b=s3cret", "entry 1 of OTEL_EXPORTER_OTLP_HEADERS is no HTTP header"),
            ("a=s3%0acret", "entry 1 of OTEL_EXPORTER_OTLP_HEADERS is no HTTP header"),
        ] {
            let error = with(&[("OTEL_EXPORTER_OTLP_HEADERS", list)]).unwrap_err();
            assert!(error.contains(expected) && !error.contains("cret"), "{list}: {error}");
        }
        let error = with(&[("OTEL_EXPORTER_OTLP_TIMEOUT", "10s")]).unwrap_err();
        assert_eq!(error, "OTEL_EXPORTER_OTLP_TIMEOUT is \"10s\"; it is a number of milliseconds above 0");
    }
}
