//! What every answer tells browsers: not to guess at it, run it, frame it, keep it, or come back in the open. Programs do
//! not read these headers; they cost less than a microsecond.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, header};

/// On every answer, unless it says otherwise itself: the page of the documentation runs scripts, and may be kept.
const HEADERS: [(HeaderName, HeaderValue); 5] = [
    // What is sent as JSON is not a script, whatever it begins with.
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    // Were it shown as a page all the same, it could load and run nothing, and stand in nobody's frame.
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    // The same for browsers from before that.
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    // What a photo shows is between its sender and this server.
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// For a year browsers ask for this host under TLS only. Other hosts below it are none of our business.
const STRICT_TRANSPORT: HeaderValue = HeaderValue::from_static("max-age=31536000");

pub(super) fn harden<B>(mut response: Response<B>, is_tls: bool) -> Response<B> {
    add(response.headers_mut(), is_tls);
    response
}

fn add(headers: &mut HeaderMap, is_tls: bool) {
    headers.reserve(HEADERS.len() + 1);
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(value);
    }
    if is_tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, STRICT_TRANSPORT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_keeps_what_it_says_itself() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        add(&mut headers, false);
        assert_eq!(headers[header::CACHE_CONTROL], "no-cache");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert!(!headers.contains_key(header::STRICT_TRANSPORT_SECURITY), "nothing is strict about a plain port");
        add(&mut headers, true);
        assert_eq!(headers[header::STRICT_TRANSPORT_SECURITY], "max-age=31536000");
        assert_eq!(headers.len(), HEADERS.len() + 1);
    }
}
