//! Which web pages may ask from a browser. Nobody's, unless the operator names their origins.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
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
