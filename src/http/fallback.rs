//! Requests that no route takes.

use axum::extract::Request;

use super::error::{Problem, ProblemKind};
use super::upload;

/// Answers a path that no route has.
pub(super) async fn not_found(request: Request) -> Problem {
    let path = request.uri().path().to_owned();
    upload::refuse(request);
    Problem::new(
        ProblemKind::NotFound,
        format!("there is nothing at {path}; POST an image to /api/v1/classify, or GET / for the routes"),
    )
}

/// Answers a route's wrong method.
pub(super) async fn method_not_allowed(request: Request) -> Problem {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    upload::refuse(request);
    let allowed = if path == "/api/v1/classify" { "POST" } else { "GET, HEAD" };
    Problem::method_not_allowed(format!("{method} is not for {path}; use {allowed}"), allowed)
}
