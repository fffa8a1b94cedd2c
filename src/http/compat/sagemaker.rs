//! Amazon SageMaker's container contract: `GET /ping` (`ping.rs`) and `POST /invocations` for the default model; models that
//! come and go are `multi_model.rs`. SageMaker fixes no shapes, so a request is answered in the form in which it came: Hugging
//! Face's `inputs`, TensorFlow Serving's `instances` and columns, the native API's `image`. A bare photo is answered as
//! Hugging Face's containers do, or as `Accept` says.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use super::document::{Document, Key, Looks};
use super::{ASK_ERRORS, huggingface, kserve_v1, schema};
use crate::http::App;
use crate::http::asking::{self, Item};
use crate::http::error::{Problem, ProblemKind, V2Error};
use crate::http::forms::Upload;
use crate::http::native;
use crate::http::oip::{JsonPart, rendered};
use crate::http::openapi::Operation;
use crate::http::routes::Routes;
use crate::http::upload::{self, Whole};
use crate::models::Handle;
use crate::oip::OipError;
use crate::pipeline::{Ask, Engine};

pub(super) fn routes() -> Routes {
    Routes::new().post("/invocations", invocations, operation("sagemakerInvocations"))
}

/// What an invocation takes and answers, whichever model it is of.
pub(super) fn operation(id: &'static str) -> Operation {
    Operation::new(id, "Classify images as SageMaker's clients ask for it")
        .description(
            "The body is a photo, whatever its content type says, or JSON in the form of Hugging Face, TensorFlow Serving or the \
             native API, which is also the form of the answer. A bare photo is answered as Hugging Face's containers do, or as \
             Accept says: application/jsonlines has a class a line, application/json;verbose all classes.",
        )
        .tag("sagemaker")
        .header::<String>("Accept", "application/json, application/json;verbose or application/jsonlines")
        .body_bytes("application/octet-stream")
        .body_bytes("image/*")
        .body::<schema::Invocation>("application/json")
        .body_bytes(V2_TYPE)
        .ok::<Value>("As the request")
        .ok_bytes("application/jsonlines", "A class a line")
        .ok_bytes(V2_TYPE, "The answer of the Open Inference Protocol, to a body of that type")
        .errors::<V2Error>(&ASK_ERRORS)
        .errors::<V2Error>(&[406, 415, 422, 500])
}

/// `POST /invocations`.
async fn invocations(State(app): State<App>, request: Request) -> Response {
    let find = |app: &App| Ok(app.models.get(None, None)?);
    let answer = |engine, request| answer(&app, engine, request);
    asking::ask(&app, request, find, Problem::into_v2, answer).await
}

/// Every key that a JSON body may hold its items under.
const KEYS: &[Key] = &[Key::Inputs, Key::Instances, Key::Image, Key::Images];

/// Answers one invocation of a model.
pub(super) async fn answer(app: &App, engine: Handle, request: Request) -> Result<Response, Problem> {
    if let Some(json) = v2_part(request.headers()) {
        return v2(app, &engine, request, json).await;
    }
    let accepted = match Accepted::of(request.headers()) {
        Ok(accepted) => accepted,
        Err(problem) => {
            upload::refuse(request);
            return Err(problem);
        }
    };
    let Whole { bytes, share, deadline } = upload::plain(request, &app.limits, &app.uploads).await?;
    if Looks::of(&bytes) == Looks::Raw {
        // The share is held to the end: the photo lives as long.
        let _share = share;
        return photo(&engine, bytes, accepted, deadline).await;
    }
    let (document, _share) = Document::read(app, &engine, bytes, KEYS, share, deadline).await?;
    let is_column = document.items.iter().any(|item| matches!(item, Item::Tensor(_))) || document.named;
    let ask = huggingface::ask(&engine, &document.parameters, deadline)?;
    match document.key {
        Key::Inputs if !is_column => huggingface::respond(&engine, document.items, document.one, ask).await,
        Key::Inputs | Key::Instances | Key::Data => kserve_v1::respond(&engine, document, ask).await,
        Key::Image | Key::Images => {
            let photos = document.items.into_iter().map(|item| match item {
                Item::Photo(photo) => Ok(photo),
                Item::Tensor(_) => Err(Problem::new(ProblemKind::BadTensor, "\"image\" holds numbers, not base64")),
            });
            let mut photos: Vec<_> = photos.collect();
            let upload = match (document.one, photos.pop()) {
                (true, Some(photo)) => Upload::One(photo),
                (_, last) => Upload::Many(photos.into_iter().chain(last).collect()),
            };
            native::respond(&engine, upload, ask).await
        }
    }
}

/// The type of bodies of the Open Inference Protocol with binary tensors: SageMaker strips the header that says how much of
/// one is JSON, so that the type says it.
const V2_TYPE: &str = "application/vnd.sagemaker-triton.binary+json";
/// Its parameter: bytes of JSON.
const V2_JSON_SIZE: &str = "json-header-size";

/// How much of the body is JSON, if it is one of the Open Inference Protocol.
fn v2_part(headers: &HeaderMap) -> Option<Result<JsonPart, OipError>> {
    let mut parts = headers.get(header::CONTENT_TYPE)?.to_str().ok()?.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case(V2_TYPE) {
        return None;
    }
    let size = parts.filter_map(|part| part.split_once('=')).find(|(name, _)| name.eq_ignore_ascii_case(V2_JSON_SIZE));
    Some(size.map_or(Ok(JsonPart::All), |(name, text)| {
        let bad = || OipError::invalid(format!("{name} is {text:?}; it is the number of bytes of JSON"));
        text.parse().map(JsonPart::Bytes).map_err(|_| bad())
    }))
}

/// Answers such a body.
async fn v2(
    app: &App,
    engine: &Engine,
    request: Request,
    json: Result<JsonPart, OipError>,
) -> Result<Response, Problem> {
    let spec = engine.spec();
    let told = rendered(app, &spec.name, Some(&spec.version), request, json).await?;
    let json_bytes = told.0.json_bytes;
    let mut response = told.into_response();
    if let Some(bytes) = json_bytes {
        let content_type = format!("{V2_TYPE};{V2_JSON_SIZE}={bytes}");
        let content_type = HeaderValue::try_from(content_type).expect("a number is a valid header value");
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    Ok(response)
}

/// Answers a bare photo.
async fn photo(
    engine: &Engine,
    photo: bytes::Bytes,
    accepted: Accepted,
    deadline: std::time::Instant,
) -> Result<Response, Problem> {
    let classes = engine.spec().labels.len();
    let ask = Ask::new(asking::TOP_K_DEFAULT.min(classes), deadline);
    match accepted {
        Accepted::Json => huggingface::respond(engine, vec![Item::Photo(photo)], true, ask).await,
        Accepted::JsonLines => {
            let outcomes = asking::all(engine, vec![Item::Photo(photo)], ask).await?;
            let classes: Vec<_> = outcomes.iter().flat_map(huggingface::classes).collect();
            let lines: Result<String, serde_json::Error> =
                classes.iter().map(|class| serde_json::to_string(class).map(|line| line + "\n")).collect();
            let lines = lines.expect("a label and a number are JSON");
            let content_type = HeaderValue::from_static("application/jsonlines");
            let answer = ([(header::CONTENT_TYPE, content_type)], lines).into_response();
            Ok(asking::answered(answer, asking::times(&outcomes)))
        }
        Accepted::Verbose => {
            let row = asking::rows(engine, vec![Item::Photo(photo)], ask).await?.pop().expect("one photo, one row");
            let labels: Vec<&str> = engine.spec().labels.iter().map(|label| &**label).collect();
            let predicted_label = labels[row.best.first().copied().unwrap_or_default()];
            let answer = Verbose { probabilities: &row.values, labels, predicted_label };
            Ok(asking::answered(Json(answer), row.times))
        }
    }
}

/// What JumpStart's image classifiers answer where they are asked for all they know.
#[derive(Debug, Serialize)]
struct Verbose<'a> {
    /// A score for each class.
    probabilities: &'a [f32],
    /// Its label.
    labels: Vec<&'a str>,
    /// The label of the best.
    predicted_label: &'a str,
}

/// The form of an answer to a bare photo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accepted {
    /// A list of classes.
    Json,
    /// A class a line.
    JsonLines,
    /// All classes, as JumpStart has them.
    Verbose,
}

impl Accepted {
    /// The first of the client's types that there is. SageMaker's clients name one, so weights are not compared.
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let values: Vec<&str> =
            headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        let ranges = values.iter().flat_map(|value| value.split(',')).map(str::trim).filter(|text| !text.is_empty());
        let mut ranges = ranges.peekable();
        if ranges.peek().is_none() {
            return Ok(Self::Json);
        }
        ranges.find_map(Self::range).ok_or_else(|| {
            Problem::new(
                ProblemKind::NotAcceptable,
                format!(
                    "Accept is {:?}; there are application/json, application/json;verbose and application/jsonlines",
                    values.join(", ")
                ),
            )
        })
    }

    fn range(text: &str) -> Option<Self> {
        let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
        match essence.trim().to_ascii_lowercase().as_str() {
            "application/json" if parameters.split(';').any(|one| one.trim() == "verbose") => Some(Self::Verbose),
            "*/*" | "application/*" | "application/json" => Some(Self::Json),
            "application/jsonlines" => Some(Self::JsonLines),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_type_that_there_is_decides() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_str(text).unwrap());
            Accepted::of(&headers).ok()
        };
        assert_eq!(Accepted::of(&HeaderMap::new()).unwrap(), Accepted::Json);
        assert_eq!(of("*/*"), Some(Accepted::Json));
        assert_eq!(of("application/json;verbose"), Some(Accepted::Verbose));
        assert_eq!(of("text/csv, application/jsonlines;q=0.5"), Some(Accepted::JsonLines));
        assert_eq!(of("application/x-npy"), None);
    }
}
