use std::collections::BTreeSet;

use serde_json::Value;

use super::Security;
use crate::http::{App, MultiModel, Side, VertexRoutes};

/// The description of every API there is, those of platforms as well.
fn document() -> Value {
    let multi_model = MultiModel { root: "/opt/ml/models".into() };
    let vertex = VertexRoutes { predict: "/vertex/predict".to_owned(), health: "/vertex/health".to_owned() };
    let app = App::empty().on_platform(Some(multi_model), Some(vertex));
    serde_json::from_slice(&crate::http::routes(&app, Side::Everything).document(Security::Open).json()).unwrap()
}

/// Every operation, with its method and path.
fn operations(document: &Value) -> impl Iterator<Item = (String, &Value)> {
    document["paths"].as_object().unwrap().iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter();
        methods.map(move |(method, operation)| (format!("{} {path}", method.to_uppercase()), operation))
    })
}

/// Calls `see` with every object in the document, and where it stands.
fn walk(value: &Value, place: &str, see: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| walk(item, place, see)),
        Value::Object(fields) => {
            see(place, value);
            fields.iter().for_each(|(key, field)| walk(field, &format!("{place}/{key}"), see));
        }
        _ => {}
    }
}

#[test]
fn the_routes_are_these() {
    let document = document();
    let lines = operations(&document).map(|(route, operation)| {
        format!("{route}  {} ({})", operation["operationId"].as_str().unwrap(), operation["tags"][0].as_str().unwrap())
    });
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"));
}

#[test]
fn every_operation_has_a_name_of_its_own_a_group_and_words() {
    let document = document();
    let groups: Vec<&Value> = document["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
    let mut ids = BTreeSet::new();
    for (route, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id), "{route}: the name {id} is taken");
        assert!(id.starts_with(|c: char| c.is_ascii_lowercase()) && id.chars().all(char::is_alphanumeric), "{id}");
        assert!(groups.contains(&&operation["tags"][0]), "{route}: {} is no group", operation["tags"]);
        assert_ne!(operation["summary"], "", "{route} has no summary");
    }
}

#[test]
fn every_parameter_is_described_and_every_operation_has_its_answer() {
    let document = document();
    for (route, operation) in operations(&document) {
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert_ne!(parameter["description"], "", "{route}: {} is not described", parameter["name"]);
        }
        let answers = operation["responses"].as_object().unwrap();
        // What clients of an API may ask for and we do not offer says so.
        let succeeds = |status: &String| status.starts_with('2') || status == "501";
        assert!(answers.keys().any(succeeds), "{route} never succeeds");
        assert!(answers.values().all(|answer| answer["description"] != ""), "{route}");
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_type_is_used() {
    let document = document();
    let mut used = BTreeSet::new();
    walk(&document, "", &mut |place, value| {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{place}: {reference} leads nowhere");
            used.insert(pointer.rsplit('/').next().unwrap().to_owned());
        }
    });
    let types = document["components"]["schemas"].as_object().unwrap();
    assert_eq!(types.keys().cloned().collect::<BTreeSet<_>>(), used);
}

#[test]
fn no_two_types_share_a_name() {
    let document = document();
    let types = document["components"]["schemas"].as_object().unwrap();
    for name in types.keys() {
        // A second type of one name gets a number behind it.
        let first = name.trim_end_matches(|c: char| c.is_ascii_digit());
        assert!(first == name || !types.contains_key(first), "{name} wants #[schemars(rename)]");
    }
}

#[test]
fn no_word_of_the_code_gets_into_the_descriptions() {
    walk(&document(), "", &mut |place, value| {
        let description = value.get("description").and_then(Value::as_str).unwrap_or_default();
        for found in ["[`", "`]", "crate::", "super::", "Self::", ".rs`"] {
            assert!(!description.contains(found), "{place}: {description}");
        }
    });
}
