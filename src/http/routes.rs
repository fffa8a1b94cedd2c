//! One table makes the router and its description: a route that is added here stands in both, so that the two cannot
//! disagree. What a route is described by is in `openapi/`.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Extension, MatchedPath, Request, State};
use axum::handler::Handler;
use axum::http::Method;
use axum::response::Response;
use axum::routing::{MethodFilter, any, on};
use axum::{Router, middleware};
use futures_util::future::BoxFuture;

use super::gate::{self, Gate};
use super::openapi::{Document, Operation, Security};
use super::template::Template;
use super::{App, cors, fallback};

/// One operation on one path.
#[derive(Debug, Clone)]
pub(super) struct Route {
    /// What is done.
    pub method: Method,
    /// Where, with `{name}` for what varies and `{*name}` for what may hold slashes.
    pub path: String,
    /// In words and types.
    pub operation: Operation,
}

/// The router and the table of its routes, while they are filled.
#[must_use]
pub(super) struct Routes {
    router: Router<App>,
    table: Vec<Route>,
    /// The methods of each path, as the router spells the path.
    methods: HashMap<String, Vec<Method>>,
}

impl Routes {
    /// No routes.
    pub(super) fn new() -> Self {
        Self { router: Router::new(), table: Vec::new(), methods: HashMap::new() }
    }

    /// Adds an operation that reads. HEAD comes with it.
    pub(super) fn get<H: Handler<T, App>, T: 'static>(
        self,
        path: impl Into<String>,
        handler: H,
        operation: Operation,
    ) -> Self {
        self.on(Method::GET, path, handler, operation)
    }

    /// Adds an operation that takes a body.
    pub(super) fn post<H: Handler<T, App>, T: 'static>(
        self,
        path: impl Into<String>,
        handler: H,
        operation: Operation,
    ) -> Self {
        self.on(Method::POST, path, handler, operation)
    }

    /// Adds an operation with any method.
    ///
    /// # Panics
    /// If the path has that method already, or is none: routes are written by us, not by users.
    pub(super) fn on<H: Handler<T, App>, T: 'static>(
        mut self,
        method: Method,
        path: impl Into<String>,
        handler: H,
        operation: Operation,
    ) -> Self {
        let path = path.into();
        let filter = MethodFilter::try_from(method.clone()).expect("a route has one of HTTP's own methods");
        self.router = self.router.route(&path, on(filter, handler));
        self.methods.entry(path.clone()).or_default().push(method.clone());
        self.table.push(Route { method, path, operation });
        self
    }

    /// Adds operations whose paths the router cannot tell apart, all of which match `path`: `/v1/models/{name}:predict`
    /// beside `/v1/models/{name}`. Of paths that match a request, the one that was added first counts; handlers read what varies
    /// with [`super::template::Captured`].
    pub(super) fn under(mut self, path: &str, fill: impl FnOnce(Under) -> Under) -> Self {
        let Under { branches, table } = fill(Under { branches: Vec::new(), table: Vec::new() });
        let branches: Arc<[Branch]> = branches.into();
        let handler = move |State(app): State<App>, request: Request| dispatch(branches, app, request);
        self.router = self.router.route(path, any(handler));
        self.table.extend(table);
        self
    }

    /// Describes an operation that something before the router answers. The router answers the other methods of its path.
    pub(super) fn elsewhere(mut self, method: Method, path: impl Into<String>, operation: Operation) -> Self {
        let path = path.into();
        self.methods.entry(path.clone()).or_default().push(method.clone());
        self.table.push(Route { method, path, operation });
        self
    }

    /// All routes of both.
    pub(super) fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.table.extend(other.table);
        for (path, methods) in other.methods {
            self.methods.entry(path).or_default().extend(methods);
        }
        self
    }

    /// What they are described by.
    pub(super) fn document(&self, security: Security) -> Document {
        Document::of(&self.table, security)
    }

    /// The router of all routes, with answers for whatever takes none of them, and the description at hand for the routes
    /// that show it.
    pub(super) fn finish(self, app: App) -> Router {
        let security = if app.guard.has_keys() { Security::Keys } else { Security::Open };
        let document = Arc::new(self.document(security));
        let gate = app.guard.is_on().then(|| Gate::new(&app.guard, &self.table));
        let allow: HashMap<String, String> =
            self.methods.into_iter().map(|(path, methods)| (path, fallback::allow(&methods))).collect();
        let allow = Arc::new(allow);
        let of_matched = Arc::clone(&allow);
        let wrong_method = move |request: Request| {
            let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
            let allow = of_matched.get(path).cloned().unwrap_or_default();
            async move { fallback::method_not_allowed(request, &allow).await }
        };
        // A path that the router does not have may be described all the same: another method is answered elsewhere.
        let no_route = move |request: Request| {
            let allow = allow.get(request.uri().path()).cloned();
            async move {
                match allow {
                    Some(allow) => fallback::method_not_allowed(request, &allow).await,
                    None => fallback::not_found(request).await,
                }
            }
        };
        let mut router =
            self.router.fallback(no_route).method_not_allowed_fallback(wrong_method).layer(Extension(document));
        // What is not asked for costs nothing.
        if let Some(gate) = gate {
            router = router.layer(middleware::from_fn_with_state(gate, gate::pass));
        }
        // Before the gate: browsers ask whether a page may send a key, and send none then.
        if let Some(cors) = cors::layer(&app.origins) {
            router = router.layer(cors);
        }
        router.layer(middleware::from_fn_with_state(app.clone(), super::middleware::observe)).with_state(app)
    }
}

/// Operations below one path, in the order in which they are tried.
#[must_use]
pub(super) struct Under {
    branches: Vec<Branch>,
    table: Vec<Route>,
}

struct Branch {
    method: Method,
    template: Template,
    handler: Erased,
}

/// A handler, whatever it extracts.
type Erased = Box<dyn Fn(Request, App) -> BoxFuture<'static, Response> + Send + Sync>;

impl Under {
    /// Adds an operation that reads. HEAD comes with it.
    pub(super) fn get<H: Handler<T, App>, T: 'static>(
        self,
        path: impl Into<String>,
        handler: H,
        operation: Operation,
    ) -> Self {
        self.on(Method::GET, path, handler, operation)
    }

    /// Adds an operation that takes a body.
    pub(super) fn post<H: Handler<T, App>, T: 'static>(
        self,
        path: impl Into<String>,
        handler: H,
        operation: Operation,
    ) -> Self {
        self.on(Method::POST, path, handler, operation)
    }

    /// Adds an operation with any method.
    pub(super) fn on<H: Handler<T, App>, T: 'static>(
        mut self,
        method: Method,
        path: impl Into<String>,
        handler: H,
        operation: Operation,
    ) -> Self {
        let path = path.into();
        let template = Template::new(&path);
        let erased: Erased = Box::new(move |request, app| Box::pin(handler.clone().call(request, app)));
        self.branches.push(Branch { method: method.clone(), template, handler: erased });
        self.table.push(Route { method, path, operation });
        self
    }
}

/// Answers with the branch whose path comes first of those that match, and whose method is right.
async fn dispatch(branches: Arc<[Branch]>, app: App, mut request: Request) -> Response {
    let path = request.uri().path();
    let matching = |branch: &Branch| Some((branch.template.clone(), branch.template.captures(path)?));
    let Some((template, captured)) = branches.iter().find_map(matching) else {
        return fallback::not_found(request).await;
    };
    let method = match *request.method() {
        Method::HEAD => &Method::GET,
        ref method => method,
    };
    let here = || branches.iter().filter(|branch| branch.template == template);
    let Some(branch) = here().find(|branch| branch.method == method) else {
        let methods: Vec<Method> = here().map(|branch| branch.method.clone()).collect();
        return fallback::method_not_allowed(request, &fallback::allow(&methods)).await;
    };
    request.extensions_mut().insert(captured);
    (branch.handler)(request, app).await
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{StatusCode, header};
    use http_body_util::BodyExt as _;
    use schemars::JsonSchema;
    use serde::Serialize;
    use serde_json::{Value, json};
    use tower::ServiceExt as _;

    use super::super::template::Captured;
    use super::*;

    /// Something wrong.
    #[derive(Serialize, JsonSchema)]
    struct Wrong {
        error: String,
    }

    fn predict(id: &'static str) -> Operation {
        Operation::new(id, "Do it")
            .description("At length.")
            .tag("kserve")
            .header::<u64>("Some-Length", "Bytes of something")
            .body::<Wrong>("application/json")
            .body_bytes("application/octet-stream")
            .body_optional()
            .ok_bytes("application/octet-stream", "Bytes")
            .ok_header("Other-Length", "Bytes of something else")
            .errors::<Wrong>(&[400, 404])
    }

    fn table() -> Routes {
        let look = |id| Operation::new(id, "Look").tag("kserve").ok_empty("Nothing");
        let say = |what: &'static str| {
            async move |captured: Captured| format!("{what} {} {}", captured.get("name"), captured.get("nothing"))
        };
        Routes::new()
            .get("/v2/x/{part}", async || "x", look("x").path("part", "A part of it."))
            .post("/v2/x/{part}", async || "posted x", look("y").path("part", "A part of it."))
            .elsewhere(Method::POST, "/before", look("before"))
            .under("/v1/models/{*path}", |under| {
                under
                    .post("/v1/models/{name}:predict", say("predict"), predict("predict"))
                    .get("/v1/models/{name}", say("status"), look("status"))
                    .on(Method::DELETE, "/v1/models/{name}", say("unload"), look("unload"))
            })
    }

    async fn ask(method: &str, path: &str) -> (StatusCode, Option<String>, String) {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = table().finish(App::empty()).oneshot(request).await.unwrap();
        let allow = response.headers().get(header::ALLOW).map(|allow| allow.to_str().unwrap().to_owned());
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, allow, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn paths_that_the_router_cannot_tell_apart_reach_their_own_handlers() {
        for (method, path, answer) in [
            ("POST", "/v1/models/resnet:predict", "predict resnet "),
            ("GET", "/v1/models/res%20net", "status res net "),
            ("DELETE", "/v1/models/resnet", "unload resnet "),
            ("HEAD", "/v1/models/resnet", ""),
            ("POST", "/v2/x/y", "posted x"),
        ] {
            let (status, _, body) = ask(method, path).await;
            assert_eq!((status, body.as_str()), (StatusCode::OK, answer), "{method} {path}");
        }
    }

    #[tokio::test]
    async fn a_wrong_method_is_told_the_right_ones() {
        for (method, path, allowed) in [
            ("GET", "/v1/models/resnet:predict", "POST"),
            ("POST", "/v1/models/resnet", "GET, HEAD, DELETE"),
            ("PATCH", "/v2/x/y", "GET, HEAD, POST"),
            ("GET", "/before", "POST"),
        ] {
            let (status, allow, _) = ask(method, path).await;
            assert_eq!((status, allow.as_deref()), (StatusCode::METHOD_NOT_ALLOWED, Some(allowed)), "{path}");
        }
    }

    #[tokio::test]
    async fn a_path_that_nobody_has_is_answered_in_the_words_of_its_api() {
        assert_eq!(ask("DELETE", "/v2/x/y").await.2, json!({ "error": "Method Not Allowed" }).to_string());
        assert_eq!(ask("GET", "/v2/nothing").await.2, json!({ "error": "Not Found" }).to_string());
        let (status, _, body) = ask("GET", "/v1/models/a/b").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(body.starts_with("{\"error\":\"there is nothing at /v1/models/a/b"), "{body}");
        assert!(ask("GET", "/nothing").await.2.contains("\"code\":\"not_found\""));
    }

    #[test]
    fn the_description_has_the_paths_that_users_see() {
        let document: Value = serde_json::from_slice(&table().document(Security::Open).json()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        assert_eq!(
            paths.iter().map(|(path, item)| (path.as_str(), item.as_object().unwrap().len())).collect::<Vec<_>>(),
            [("/before", 1), ("/v1/models/{name}", 2), ("/v1/models/{name}:predict", 1), ("/v2/x/{part}", 2)]
        );
        insta::assert_json_snapshot!(paths["/v1/models/{name}:predict"]["post"]);
    }
}
