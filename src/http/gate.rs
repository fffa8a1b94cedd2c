//! Before every handler: whether the request may come in. What is asked of it is `crate::guard`'s; here it gets the words
//! and the status of its API.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;

use super::error::{Problem, ProblemKind};
use super::fallback;
use super::routes::Route;
use crate::edge::Peer;
use crate::guard::{Access, Guard, Refused};

/// What a client has to show (RFC 6750, section 3).
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer");

/// The guard, and what each route is to it. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    guard: Guard,
    /// Of routes that are not simply used, by the router's spelling of the path. All of them are read.
    others: Arc<HashMap<String, Access>>,
}

impl Gate {
    pub(super) fn new(guard: &Guard, routes: &[Route]) -> Self {
        let others = routes.iter().filter(|route| route.method == Method::GET && route.operation.access != Access::Use);
        let others = others.map(|route| (route.path.clone(), route.operation.access)).collect();
        Self { guard: guard.clone(), others: Arc::new(others) }
    }

    /// A gate before one route, which is whatever `access` says when it is read.
    pub(super) fn of_one(guard: &Guard, path: &str, access: Access) -> Self {
        Self { guard: guard.clone(), others: Arc::new(HashMap::from([(path.to_owned(), access)])) }
    }

    /// Paths that no route has are closed as well: who has no key learns nothing about which there are.
    fn access(&self, request: &Request) -> Access {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Access::Use;
        }
        let path = request.extensions().get::<MatchedPath>();
        path.and_then(|path| self.others.get(path.as_str())).copied().unwrap_or(Access::Use)
    }
}

/// Lets a request pass, or answers it.
pub(super) async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    match gate.guard.admit(request.headers(), peer, gate.access(&request)) {
        Ok(_admitted) => next.run(request).await,
        Err(refused) => fallback::refused(request, refused.into()),
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let detail = refused.to_string();
        match refused {
            Refused::NoKey | Refused::Malformed | Refused::WrongKey => {
                Self::new(ProblemKind::Unauthorized, detail).with(header::WWW_AUTHENTICATE, CHALLENGE)
            }
            Refused::TooFast { retry_after, .. } => {
                Self::new(ProblemKind::RateLimited, detail).with(header::RETRY_AFTER, seconds(retry_after))
            }
        }
    }
}

/// Whole seconds, after which the request is within the rate.
fn seconds(wait: Duration) -> HeaderValue {
    let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    HeaderValue::from(whole.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_in_whole_seconds_and_never_too_short() {
        for (milliseconds, told) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (60_000, "60")] {
            assert_eq!(seconds(Duration::from_millis(milliseconds)), told);
        }
        assert_eq!(seconds(Duration::from_nanos(1_000_000_001)), "2");
    }
}
