//! Requests that no route takes, or that may not come in, answered in the words of the API whose paths they come close to.

use axum::extract::Request;
use axum::http::Method;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::error::{Problem, ProblemKind};
use super::upload;

/// How an API says that something is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// A problem document.
    Problem,
    /// `{"error": "Not Found"}`.
    Error,
    /// `{"error": ...}` with the whole sentence.
    Sentence,
    /// TorchServe's.
    TorchServe,
}

/// Paths, with all below them, whose API is not the native one.
const SHAPES: [(&str, Shape); 8] = [
    ("/v2", Shape::Error),
    ("/v1", Shape::Sentence),
    ("/models", Shape::Sentence),
    ("/pipeline", Shape::Sentence),
    ("/hf-inference", Shape::Sentence),
    ("/invocations", Shape::Sentence),
    ("/ping", Shape::TorchServe),
    ("/predictions", Shape::TorchServe),
];

impl Shape {
    fn of(path: &str) -> Self {
        let below =
            |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        SHAPES.iter().find(|(prefix, _)| below(prefix)).map_or(Self::Problem, |(_, shape)| *shape)
    }

    fn answer(self, problem: Problem) -> Response {
        match self {
            Self::Problem => problem.into_response(),
            Self::Error => {
                let reason = problem.kind().status().canonical_reason();
                problem.into_response_with(json!({ "error": reason }))
            }
            Self::Sentence => problem.into_plain(),
            Self::TorchServe => problem.into_torchserve(),
        }
    }
}

/// Answers a path that no route has.
pub(super) async fn not_found(request: Request) -> Response {
    let path = request.uri().path().to_owned();
    upload::refuse(request);
    let detail = format!("there is nothing at {path}; POST an image to /api/v1/classify, or GET / for the routes");
    Shape::of(&path).answer(Problem::new(ProblemKind::NotFound, detail))
}

/// Answers a route's wrong method. `allow` names the right ones.
pub(super) async fn method_not_allowed(request: Request, allow: &str) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    upload::refuse(request);
    let detail = format!("{method} is not for {path}; use {allow}");
    Shape::of(&path).answer(Problem::method_not_allowed(detail, allow))
}

/// Answers a request that may not come in, before its body is read.
pub(super) fn refused(request: Request, problem: Problem) -> Response {
    let shape = Shape::of(request.uri().path());
    upload::refuse(request);
    match shape {
        // This one says more than the reason of its status.
        Shape::Error => problem.into_v2(),
        shape => shape.answer(problem),
    }
}

/// The value of `Allow` for a path with these methods.
pub(super) fn allow(methods: &[Method]) -> String {
    let head = |method: &Method| *method == Method::GET;
    let names = methods.iter().flat_map(|method| [Some(method.as_str()), head(method).then_some("HEAD")]);
    names.flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_answered_in_the_words_of_its_api() {
        for (path, shape) in [
            ("/v2", Shape::Error),
            ("/v2/", Shape::Error),
            ("/v2/models/x/nothing", Shape::Error),
            ("/v1/models/x:predict", Shape::Sentence),
            ("/predictions/x/1/2", Shape::TorchServe),
            ("/v2x", Shape::Problem),
            ("/api/v2", Shape::Problem),
            ("/", Shape::Problem),
        ] {
            assert_eq!(Shape::of(path), shape, "{path}");
        }
    }

    #[test]
    fn who_may_get_may_head() {
        assert_eq!(allow(&[Method::POST]), "POST");
        assert_eq!(allow(&[Method::GET, Method::POST]), "GET, HEAD, POST");
    }
}
