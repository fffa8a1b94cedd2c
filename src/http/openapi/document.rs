//! The table of routes as an OpenAPI document.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::http::{HeaderValue, StatusCode};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::operation::{Answer, Operation, Parameter, Place};
use super::schemas::{Schemas, Way};
use crate::guard::Access;
use crate::http::routes::Route;
use crate::http::template::Template;

/// The groups of operations, in the order in which they are shown.
const TAGS: [(&str, &str); 9] = [
    ("native", "Residual's own API: images in, classes out, and everything about the models."),
    ("health", "What probes, collectors and people ask."),
    ("v2", "Open Inference Protocol v2, as Triton, KServe and OpenVINO Model Server speak it."),
    ("huggingface", "Image classification as Hugging Face's inference clients ask for it."),
    ("kserve", "KServe v1 and TensorFlow Serving."),
    ("sagemaker", "Amazon SageMaker's container contract, multi-model calls included."),
    ("vertex", "Vertex AI's container contract."),
    ("torchserve", "TorchServe's inference API."),
    ("description", "This description."),
];

/// Parts of paths that mean the same everywhere, with those of the built-in model to begin with.
const PATH_PARTS: [(&str, &str, &str); 2] = [
    ("name", "Name of a model, as `GET /api/v1/models` lists it.", "resnet20-cifar10"),
    ("version", "Version of the model, as `GET /api/v1/models` lists it.", "1"),
];

/// The name of the keys among the ways to show who one is.
const KEY: &str = "key";

/// What clients need to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Security {
    /// Nothing.
    Open,
    /// A key, for all that is not open to everybody.
    Keys,
}

/// The description, ready to send, and what the index shows of it.
#[derive(Debug)]
pub(in crate::http) struct Document {
    json: Bytes,
    etag: HeaderValue,
    index: BTreeMap<String, &'static str>,
}

impl Document {
    /// Describes all of `routes`; with keys, which of them need one.
    pub(in crate::http) fn of(routes: &[Route], security: Security) -> Self {
        let mut schemas = Schemas::new();
        let mut paths = Map::new();
        let mut requests = Vec::new();
        for Route { method, path, operation } in routes {
            let template = Template::new(path);
            let (path, method) = (template.described(), method.as_str().to_lowercase());
            let here = format!("/paths/{}/{method}", path.replace('~', "~0").replace('/', "~1"));
            requests.extend([format!("{here}/parameters"), format!("{here}/requestBody")]);
            let is_open = matches!(operation.access, Access::Probe | Access::Description);
            let mut operation = described(operation, &template, &mut schemas);
            if security == Security::Keys && is_open {
                operation["security"] = json!([]);
            }
            let item = paths.entry(path).or_insert_with(|| json!({}));
            item[method] = operation;
        }
        let used = |tag: &str| routes.iter().any(|route| route.operation.tag == tag);
        let tags = TAGS.iter().filter(|(name, _)| used(name));
        let tags: Vec<Value> =
            tags.map(|(name, description)| json!({ "name": name, "description": description })).collect();
        let mut document = json!({
            "openapi": "3.1.1",
            "info": {
                "title": "Residual",
                "version": env!("CARGO_PKG_VERSION"),
                "summary": env!("CARGO_PKG_DESCRIPTION"),
                "license": { "name": env!("CARGO_PKG_LICENSE") },
            },
            "servers": [{ "url": "/" }],
            "tags": tags,
            "paths": paths,
        });
        schemas.finish(&mut document, &requests);
        if security == Security::Keys {
            let key = json!({ "type": "http", "scheme": "bearer", "description": "A key that the operator gave out." });
            document["components"]["securitySchemes"] = json!({ KEY: key });
            document["security"] = json!([{ KEY: [] }]);
        }
        let index = routes
            .iter()
            .map(|route| {
                let path = Template::new(&route.path).described();
                (format!("{} {path}", route.method), route.operation.summary)
            })
            .collect();
        let json = Bytes::from(document.to_string());
        let etag: String = Sha256::digest(&json).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let etag = HeaderValue::try_from(format!("\"{etag}\"")).expect("hex digits are printable");
        Self { json, etag, index }
    }

    /// The document's text.
    pub(in crate::http) fn json(&self) -> Bytes {
        self.json.clone()
    }

    /// Tells one document from another.
    pub(in crate::http) fn etag(&self) -> &HeaderValue {
        &self.etag
    }

    /// Each route with a line about it.
    pub(in crate::http) fn index(&self) -> &BTreeMap<String, &'static str> {
        &self.index
    }
}

fn described(operation: &Operation, template: &Template, schemas: &mut Schemas) -> Value {
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": operation
            .answers
            .iter()
            .map(|(status, answer)| (status.to_string(), answered(*status, answer, schemas)))
            .collect::<Map<_, _>>(),
    });
    if !operation.description.is_empty() {
        described["description"] = operation.description.into();
    }
    let parameters = parameters(operation, template, schemas);
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    if !operation.bodies.is_empty() {
        let contents = operation.bodies.iter();
        let contents: Map<_, _> = contents
            .map(|&(media_type, content)| (media_type.to_owned(), json!({ "schema": schemas.of(content, Way::Read) })))
            .collect();
        described["requestBody"] = json!({ "required": operation.body_needed, "content": contents });
    }
    described
}

/// All that varies in the path, and what else was declared.
fn parameters(operation: &Operation, template: &Template, schemas: &mut Schemas) -> Vec<Value> {
    let declared = |name: &str| operation.parameters.iter().find(|it| it.place == Place::Path && it.name == name);
    let mut parameters = Vec::new();
    for name in template.names() {
        let known = PATH_PARTS.iter().find(|(part, ..)| *part == name);
        let mut parameter = json!({ "name": name, "in": "path", "required": true });
        parameter["schema"] = json!({ "type": "string", "minLength": 1 });
        parameter["description"] = known.map_or("", |(_, description, _)| description).into();
        if let Some((.., example)) = known {
            parameter["example"] = (*example).into();
        }
        if let Some(declared) = declared(name) {
            parameter["description"] = declared.description.into();
            parameter["schema"] = schemas.of(declared.content, Way::Read);
        }
        parameters.push(parameter);
    }
    for Parameter { name, place, description, content } in &operation.parameters {
        let place = match place {
            Place::Path => continue,
            Place::Query => "query",
            Place::Header => "header",
        };
        let schema = schemas.of(*content, Way::Read);
        parameters.push(json!({ "name": name, "in": place, "description": description, "schema": schema }));
    }
    parameters
}

fn answered(status: u16, answer: &Answer, schemas: &mut Schemas) -> Value {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Answer");
    let description = if answer.description.is_empty() { reason } else { &answer.description };
    let mut described = json!({ "description": description });
    if !answer.contents.is_empty() {
        let mut contents = Map::new();
        for &(media_type, content) in &answer.contents {
            contents.insert(media_type.to_owned(), json!({ "schema": schemas.of(content, Way::Written) }));
        }
        described["content"] = contents.into();
    }
    if !answer.headers.is_empty() {
        let headers = answer.headers.iter();
        described["headers"] = headers
            .map(|(name, description)| {
                ((*name).to_owned(), json!({ "description": description, "schema": { "type": "string" } }))
            })
            .collect::<Map<_, _>>()
            .into();
    }
    described
}

#[cfg(test)]
mod tests;
