//! `GET /openapi.json` and `GET /docs`: the description for programs and for people. The page is Swagger UI, served from
//! the binary; it asks nobody but this server.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED as ARCHIVE;

use super::packed::Packed;
use super::{Document, Operation};
use crate::guard::Access;
use crate::http::error::{Problem, ProblemKind};
use crate::http::routes::Routes;

const SCRIPT: Packed = Packed::find(ARCHIVE, "/dist/swagger-ui-bundle.js");
const STYLE: Packed = Packed::find(ARCHIVE, "/dist/swagger-ui.css");
static SCRIPT_BYTES: [u8; SCRIPT.len] = SCRIPT.bytes(ARCHIVE);
static STYLE_BYTES: [u8; STYLE.len] = STYLE.bytes(ARCHIVE);

/// Scripts only from here, no request to elsewhere, in nobody's frame. Swagger UI writes styles into its elements, and
/// has pictures in its style sheet.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; \
                      img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file that the page consists of.
struct File {
    name: &'static str,
    media_type: &'static str,
    content: FileContent,
}

enum FileContent {
    Plain(&'static str),
    Packed(Packed, &'static [u8]),
}

const FILES: [File; 4] = [
    File { name: "start.js", media_type: JAVASCRIPT, content: FileContent::Plain(include_str!("docs/start.js")) },
    File { name: "page.css", media_type: CSS, content: FileContent::Plain(include_str!("docs/page.css")) },
    File { name: "swagger-ui-bundle.js", media_type: JAVASCRIPT, content: FileContent::Packed(SCRIPT, &SCRIPT_BYTES) },
    File { name: "swagger-ui.css", media_type: CSS, content: FileContent::Packed(STYLE, &STYLE_BYTES) },
];
const FILE_NAMES: [&str; 4] = [FILES[0].name, FILES[1].name, FILES[2].name, FILES[3].name];
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

/// The routes that show the description.
pub(in crate::http) fn routes() -> Routes {
    let shown = |id, summary| Operation::new(id, summary).tag("description").access(Access::Description);
    Routes::new()
        .get(
            "/openapi.json",
            document,
            shown("openapi", "This description, OpenAPI 3.1")
                .ok::<Map<String, Value>>("The document")
                .ok_header("ETag", "Changes with the document; send it back as `If-None-Match`")
                .not_modified(),
        )
        .get(
            "/docs",
            page,
            shown("docs", "This description as a page to browse and try").ok_bytes("text/html", "The page"),
        )
        .get(
            "/docs/{file}",
            file,
            shown("docsFile", "A file of that page")
                .path_one_of("file", "Its name.", &FILE_NAMES)
                .ok_bytes("text/javascript", "A script or a style sheet")
                .ok_bytes("text/css", "A script or a style sheet")
                .not_modified()
                .problems(&[ProblemKind::NotFound]),
        )
}

async fn document(Extension(document): Extension<Arc<Document>>, headers: HeaderMap) -> Response {
    cached(&headers, document.etag(), || {
        ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], document.json()).into_response()
    })
}

async fn page() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, include_str!("docs/page.html"))
}

async fn file(path: Result<Path<String>, PathRejection>, headers: HeaderMap) -> Response {
    // What is no UTF-8 is no file's name either.
    let name = path.as_ref().map_or("\u{fffd}", |path| &path.0);
    let Some(file) = FILES.iter().find(|file| file.name == name) else {
        return Problem::new(ProblemKind::NotFound, format!("/docs has no file {name:?}")).into_response();
    };
    let named = [
        (header::CONTENT_TYPE, HeaderValue::from_static(file.media_type)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    match file.content {
        FileContent::Plain(text) => {
            let etag = concat!("\"", env!("CARGO_PKG_VERSION"), "\"");
            cached(&headers, &HeaderValue::from_static(etag), || (named, text).into_response())
        }
        // Every browser unpacks gzip, and nobody else has a use for these two.
        FileContent::Packed(packed, bytes) => {
            let etag = HeaderValue::try_from(format!("\"{:08x}\"", packed.crc32)).expect("hex digits are printable");
            let gzip = [(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))];
            cached(&headers, &etag, || (named, gzip, gzipped(packed, bytes)).into_response())
        }
    }
}

fn gzipped(packed: Packed, bytes: &'static [u8]) -> Bytes {
    [&Packed::GZIP_HEAD, bytes, &packed.gzip_tail()].concat().into()
}

/// The answer, or word that the client has it already. It has to ask each time: the address stays when the program is
/// replaced.
fn cached(asked: &HeaderMap, etag: &HeaderValue, answer: impl FnOnce() -> Response) -> Response {
    let known = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = known.flat_map(|value| value.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
    let mut response = match tags.any(|tag| tag == "*" || tag.as_bytes() == etag.as_bytes()) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => answer(),
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, etag.clone());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read as _};

    use super::*;

    #[test]
    fn the_packed_files_are_those_of_the_archive() {
        let mut archive = zip::ZipArchive::new(Cursor::new(ARCHIVE)).unwrap();
        for (packed, bytes, end) in
            [(SCRIPT, &SCRIPT_BYTES[..], "/dist/swagger-ui-bundle.js"), (STYLE, &STYLE_BYTES, "/dist/swagger-ui.css")]
        {
            let ends = |name: &String| name.ends_with(end);
            let names = archive.file_names().flatten().map(std::borrow::Cow::into_owned);
            let names: Vec<String> = names.filter(ends).collect();
            assert_eq!(names.len(), 1, "{names:?}");
            let mut text = String::new();
            archive.by_name(&names[0]).unwrap().read_to_string(&mut text).unwrap();
            let mut unpacked = String::new();
            flate2::read::GzDecoder::new(&*gzipped(packed, bytes)).read_to_string(&mut unpacked).unwrap();
            assert!(unpacked == text, "{end}");
        }
    }

    #[test]
    fn who_has_the_answer_is_told_so() {
        let etag = HeaderValue::from_static("\"a\"");
        for (asked, status) in
            [("\"a\"", 304), ("\"b\", W/\"a\"", 304), ("*", 304), ("\"b\"", 200), ("a", 200), ("", 200)]
        {
            let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static(asked))]);
            let response = cached(&headers, &etag, || "text".into_response());
            assert_eq!(response.status(), status, "{asked}");
            assert_eq!(response.headers()[header::ETAG], "\"a\"");
        }
    }
}
