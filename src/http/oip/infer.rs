//! `POST /v2/models/{name}[/versions/{version}]/infer`.

use std::sync::Arc;

use super::body::{JsonPart, Packed, Unpacked};
use super::encoding::Encoding;
use super::render::Rendered;
use super::{Named, V2Problem, one, two};
use crate::http::App;
use crate::http::error::Problem;
use crate::http::middleware::Report;
use crate::http::upload::{self, Whole};
use crate::oip::OipError;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};

/// JSON up to this size is read where it is; more in the pool, since an async thread must not compute for long.
/// Far less than for binary tensors: each number is parsed.
const INLINE_JSON_BYTES_MAX: usize = 16 * 1024;
/// A body that is only copied is small up to this size.
const INLINE_COPY_BYTES_MAX: usize = 256 * 1024;
/// Answers whose values are up to this size are written where they are.
const INLINE_ANSWER_BYTES_MAX: usize = 16 * 1024;

/// The newest version of a model.
pub(in crate::http) async fn infer(State(app): State<App>, path: Named<String>, request: Request) -> Response {
    let json = JsonPart::of(request.headers());
    respond(&app, one(&path), None, request, json).await
}

/// One version of a model.
pub(in crate::http) async fn infer_version(
    State(app): State<App>,
    path: Named<(String, String)>,
    request: Request,
) -> Response {
    let (name, version) = two(&path);
    let json = JsonPart::of(request.headers());
    respond(&app, name, version, request, json).await
}

async fn respond(
    app: &App,
    name: &str,
    version: Option<&str>,
    request: Request,
    json: Result<JsonPart, OipError>,
) -> Response {
    let outcome = rendered(app, name, version, request, json).await;
    let mut response = outcome.map_or_else(|problem| V2Problem(problem).into_response(), IntoResponse::into_response);
    // Whatever the outcome, the report names the model that was asked, if there is one.
    if let (Some(report), Ok(face)) = (response.extensions_mut().get_mut::<Report>(), app.oip.face(name, version)) {
        report.model = Some(Arc::clone(face.engine().served()));
    }
    response
}

/// An answer with its stage times beside it.
pub(in crate::http) struct Told(pub(in crate::http) Rendered, Report);

impl IntoResponse for Told {
    fn into_response(self) -> Response {
        let mut response = self.0.into_response();
        response.extensions_mut().insert(self.1);
        response
    }
}

/// Reads a request in any of the protocol's forms and runs it.
pub(in crate::http) async fn rendered(
    app: &App,
    name: &str,
    version: Option<&str>,
    request: Request,
    json: Result<JsonPart, OipError>,
) -> Result<Told, Problem> {
    let asked = || {
        let encoding = Encoding::of_request(request.headers())?;
        Ok::<_, Problem>((app.oip.admitted(name, version)?, encoding, json?))
    };
    let (face, encoding, json) = match asked() {
        Ok(asked) => asked,
        Err(problem) => {
            upload::refuse(request);
            return Err(problem);
        }
    };
    let accepted = Encoding::of_answer(request.headers());
    // The share is held to the end: the tensors live as long.
    let Whole { bytes, share, deadline } = upload::whole(request, &app.limits, &app.uploads).await?;
    let json_bytes = match json {
        JsonPart::All => bytes.len(),
        JsonPart::Bytes(json) => json,
    };
    // A raw photo is copied behind its length.
    let copied = if json == JsonPart::Bytes(0) { bytes.len() } else { 0 };
    let inline = encoding.is_none() && json_bytes <= INLINE_JSON_BYTES_MAX && copied <= INLINE_COPY_BYTES_MAX;
    let packed = Packed { bytes, encoding, json, body_bytes_max: app.limits.body_bytes_max };
    let (name, version) = (name.to_owned(), version.map(str::to_owned));
    let face_of_body = face.clone();
    let unpack = move || {
        let mut share = share;
        let unpacked = packed.unpack(name, version, &face_of_body, &mut share);
        (unpacked, share)
    };
    let (unpacked, _share) = if inline { unpack() } else { app.pool.run(deadline, unpack).await? };
    let Unpacked { mut request, binary } = unpacked?;
    request.deadline = Some(deadline);
    let answer = app.oip.infer_on(&face, request).await?;
    let report = Report { times: answer.times, ..Report::default() };
    let large = answer.outputs.iter().map(|output| output.raw.len()).sum::<usize>() > INLINE_ANSWER_BYTES_MAX;
    let render = move || Rendered::new(&answer, &binary, accepted);
    let rendered = if large { app.pool.run(deadline, render).await? } else { render() };
    Ok(Told(rendered, report))
}
