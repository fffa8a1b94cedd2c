//! A collector of traces in this process: takes OTLP over HTTP and keeps the spans. Its messages are typed here once more, from
//! the specification and not from the server's, so that a field number that is wrong there is not wrong here as well.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use prost::Message;
use tokio::net::TcpListener;

/// What was sent, and what is answered.
#[derive(Clone)]
pub(crate) struct Collector {
    pub(crate) url: String,
    seen: Seen,
}

type Seen = Arc<Mutex<Vec<(HeaderMap, Export)>>>;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Export {
    #[prost(message, repeated, tag = "1")]
    of_resources: Vec<OfResource>,
}

#[derive(Clone, PartialEq, Message)]
struct OfResource {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    of_scopes: Vec<OfScope>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct OfScope {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    pub(crate) state: String,
    #[prost(bytes = "vec", tag = "4")]
    parent_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub(crate) name: String,
    #[prost(int32, tag = "6")]
    pub(crate) kind: i32,
    #[prost(fixed64, tag = "7")]
    pub(crate) began: u64,
    #[prost(fixed64, tag = "8")]
    pub(crate) ended: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<Attribute>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(int64, optional, tag = "3")]
    int: Option<i64>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        Self::answering(StatusCode::OK).await
    }

    /// One that answers every export with this status.
    pub(crate) async fn answering(status: StatusCode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Seen::default();
        let take = move |State(seen): State<Seen>, headers: HeaderMap, body: Bytes| async move {
            let export = Export::decode(body).unwrap();
            seen.lock().unwrap().push((headers, export));
            status
        };
        let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&seen));
        // Ends with the test's runtime.
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, seen }
    }

    /// Every span that has come, in the order in which they came.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let seen = self.seen.lock().unwrap();
        let resources = seen.iter().flat_map(|(_, export)| &export.of_resources);
        resources.flat_map(|resource| &resource.of_scopes).flat_map(|scope| scope.spans.clone()).collect()
    }

    /// The headers of every export, and the attributes of what it came from.
    pub(crate) fn exports(&self) -> Vec<(HeaderMap, HashMap<String, String>)> {
        let resource = |export: &Export| texts(&export.of_resources[0].resource.as_ref().unwrap().attributes);
        self.seen.lock().unwrap().iter().map(|(headers, export)| (headers.clone(), resource(export))).collect()
    }
}

impl Span {
    pub(crate) fn trace_id(&self) -> String {
        hex(&self.trace_id)
    }

    pub(crate) fn id(&self) -> String {
        hex(&self.span_id)
    }

    pub(crate) fn parent_id(&self) -> String {
        hex(&self.parent_id)
    }

    /// An attribute as text; empty if it has none of that name.
    pub(crate) fn attribute(&self, key: &str) -> String {
        texts(&self.attributes).remove(key).unwrap_or_default()
    }

    /// It says that the server failed.
    pub(crate) fn is_error(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.code == 2)
    }
}

fn texts(attributes: &[Attribute]) -> HashMap<String, String> {
    let text = |value: &Value| value.text.clone().or(value.int.map(|int| int.to_string())).unwrap();
    attributes.iter().map(|attribute| (attribute.key.clone(), text(attribute.value.as_ref().unwrap()))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
