//! Which web pages may ask from a browser. Nobody's, unless the operator names their origins.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::oip::HEADER_LENGTH;
use crate::edge::REQUEST_ID;
use crate::guard::CorsOrigins;

/// What pages may send beside what every page may: keys, types of bodies, the lengths and ids of the protocols, the trace
/// they belong to.
const SENT: [HeaderName; 6] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    HeaderName::from_static(HEADER_LENGTH),
    REQUEST_ID,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];

/// What pages may read of an answer.
const READ: [HeaderName; 5] = [
    HeaderName::from_static(HEADER_LENGTH),
    REQUEST_ID,
    header::RETRY_AFTER,
    HeaderName::from_static("server-timing"),
    header::WWW_AUTHENTICATE,
];

/// How long a browser need not ask again whether it may. Browsers have bounds of their own, of minutes to hours.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// Answers what browsers ask before they send a page's request, and marks the answers that its page may read. `None` where
/// no page may.
pub(super) fn layer(origins: &CorsOrigins) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let origin = match origins.named() {
        None => AllowOrigin::any(),
        Some(named) => AllowOrigin::list(named.into_iter().filter_map(|name| HeaderValue::try_from(name).ok())),
    };
    let layer = CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(SENT)
        .expose_headers(READ)
        .max_age(REMEMBERED);
    Some(layer)
}

/// A web page from elsewhere sent the request, and nobody named its origin. It could not read the answer; what it asked for
/// would be done all the same. Browsers say where a page is from with everything but plain reading, programs never do.
pub(super) fn is_foreign(headers: &HeaderMap, origins: &CorsOrigins) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let origin = origin.to_str().unwrap_or_default();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let is_ours = host.is_some() && origin.split_once("://").map(|(_, authority)| authority) == host;
    !is_ours && origins.named().is_some_and(|named| !named.contains(&origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_foreign_unless_it_is_from_here_or_named() {
        let headers = |pairs: &[(HeaderName, &'static str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
        };
        let named = CorsOrigins::new(vec!["https://app.example".parse().unwrap()]);
        let any = CorsOrigins::new(vec!["*".parse().unwrap()]);
        let host = (header::HOST, "127.0.0.1:8000");
        for (origin, foreign_to_none, foreign_to_named) in [
            ("http://127.0.0.1:8000", false, false),
            ("http://127.0.0.1:3000", true, true),
            ("https://app.example", true, false),
            ("https://app.example.evil", true, true),
            ("null", true, true),
        ] {
            let headers = headers(&[host.clone(), (header::ORIGIN, origin)]);
            assert_eq!(is_foreign(&headers, &CorsOrigins::default()), foreign_to_none, "{origin}");
            assert_eq!(is_foreign(&headers, &named), foreign_to_named, "{origin}");
            assert!(!is_foreign(&headers, &any), "{origin}");
        }
        assert!(!is_foreign(&headers(&[host]), &CorsOrigins::default()), "programs name no origin");
        assert!(is_foreign(&headers(&[(header::ORIGIN, "http://x")]), &CorsOrigins::default()));
    }
}
