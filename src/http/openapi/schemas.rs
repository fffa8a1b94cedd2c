//! The schemas of all types that routes name, each once.
//!
//! One type may have two: what is written always has every field, what is read may lack those that have a default.

use std::collections::BTreeSet;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::operation::Content;

/// Where in the document types stand.
const DEFINITIONS: &str = "/components/schemas";

/// Makes schemas, and remembers which types they refer to.
pub(super) struct Schemas {
    read: SchemaGenerator,
    written: SchemaGenerator,
}

/// Whether the server reads or writes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Read,
    Written,
}

impl Schemas {
    pub(super) fn new() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12()
                .with(|settings| settings.definitions_path = DEFINITIONS.into())
                .with_transform(RecursiveTransform(without_links))
        };
        Self {
            read: settings().for_deserialize().into_generator(),
            written: settings().for_serialize().into_generator(),
        }
    }

    /// The schema of a body or a parameter; types with names become references.
    pub(super) fn of(&mut self, content: Content, way: Way) -> Value {
        let bytes = json!({ "type": "string", "format": "binary" });
        match (content, way) {
            (Content::Of(schema), Way::Read) => schema(&mut self.read).to_value(),
            (Content::Of(schema), Way::Written) => schema(&mut self.written).to_value(),
            (Content::Name, _) => json!({ "type": "string", "minLength": 1 }),
            (Content::OneOf(names), _) => json!({ "type": "string", "enum": names }),
            (Content::Bytes, _) => bytes,
            (Content::Files(part), _) => json!({
                "type": "object",
                "properties": { part: { "type": "array", "items": bytes } },
                "required": [part],
            }),
        }
    }

    /// Puts what was referred to into `document`. Where a type has two schemas under one name, the one that is read gets a
    /// name of its own: `ThingRead`.
    pub(super) fn finish(mut self, document: &mut Value, requests: &[String]) {
        let mut written = self.written.take_definitions(true);
        let read = self.read.take_definitions(true);
        let apart = differing(&read, &written);
        for (name, mut schema) in read {
            rename(&mut schema, &apart);
            written.insert(if apart.contains(&name) { renamed(&name) } else { name }, schema);
        }
        for pointer in requests {
            if let Some(request) = document.pointer_mut(pointer) {
                rename(request, &apart);
            }
        }
        document["components"] = json!({ "schemas": written });
    }
}

/// Names that mean one thing where they are read and another where they are written: their own schemas differ, or those of
/// what they refer to.
fn differing(read: &Map<String, Value>, written: &Map<String, Value>) -> BTreeSet<String> {
    let shared = || read.iter().filter(|(name, _)| written.contains_key(*name));
    let mut apart: BTreeSet<String> =
        shared().filter(|(name, schema)| written.get(*name) != Some(schema)).map(|(name, _)| name.clone()).collect();
    loop {
        let more: Vec<String> = shared()
            .filter(|(name, schema)| !apart.contains(*name) && refers(schema, &apart))
            .map(|(name, _)| name.clone())
            .collect();
        if more.is_empty() {
            return apart;
        }
        apart.extend(more);
    }
}

/// Descriptions are the comments of the code, whose links lead nowhere here.
fn without_links(schema: &mut Schema) {
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = description.replace("[`", "`").replace("`]", "`");
    }
}

fn renamed(name: &str) -> String {
    format!("{name}Read")
}

fn referred(value: &Value) -> Option<&str> {
    value.get("$ref")?.as_str()?.strip_prefix('#')?.strip_prefix(DEFINITIONS)?.strip_prefix('/')
}

fn refers(value: &Value, names: &BTreeSet<String>) -> bool {
    referred(value).is_some_and(|name| names.contains(name))
        || match value {
            Value::Array(items) => items.iter().any(|item| refers(item, names)),
            Value::Object(fields) => fields.values().any(|field| refers(field, names)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
}

fn rename(value: &mut Value, names: &BTreeSet<String>) {
    if let Some(name) = referred(value).filter(|name| names.contains(*name)) {
        value["$ref"] = format!("#{DEFINITIONS}/{}", renamed(name)).into();
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, names)),
        Value::Object(fields) => fields.values_mut().for_each(|field| rename(field, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemars::JsonSchema;

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only the schema is of interest")]
    struct Outer {
        inner: Inner,
        same: Same,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only the schema is of interest")]
    struct Inner {
        #[serde(default)]
        count: u64,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only the schema is of interest")]
    struct Same {
        text: String,
    }

    #[test]
    fn a_type_that_is_read_and_written_differently_has_two_schemas() {
        let mut schemas = Schemas::new();
        let outer = Content::Of(SchemaGenerator::subschema_for::<Outer>);
        let mut document = json!({ "in": schemas.of(outer, Way::Read), "out": schemas.of(outer, Way::Written) });
        schemas.finish(&mut document, &["/in".to_owned()]);
        assert_eq!(document["in"]["$ref"], "#/components/schemas/OuterRead");
        assert_eq!(document["out"]["$ref"], "#/components/schemas/Outer");
        let all = document["components"]["schemas"].as_object().unwrap();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["Inner", "InnerRead", "Outer", "OuterRead", "Same"]);
        assert_eq!(all["OuterRead"]["properties"]["inner"]["$ref"], "#/components/schemas/InnerRead");
        assert_eq!(all["OuterRead"]["properties"]["same"]["$ref"], "#/components/schemas/Same");
        assert!(all["InnerRead"].get("required").is_none());
        assert_eq!(all["Inner"]["required"], json!(["count"]));
    }
}
