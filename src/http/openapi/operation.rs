//! What one route takes and answers, in words and in types.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::guard::Access;
use crate::http::error::{ProblemBody, ProblemKind};

/// One operation. Written next to its route, read by [`super::Document`].
#[derive(Debug, Clone)]
#[must_use]
pub(in crate::http) struct Operation {
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) description: &'static str,
    pub(super) tag: &'static str,
    pub(super) parameters: Vec<Parameter>,
    pub(super) bodies: Vec<(&'static str, Content)>,
    pub(super) body_needed: bool,
    pub(super) answers: BTreeMap<u16, Answer>,
    pub(in crate::http) access: Access,
}

/// A value in the path, the query or a header.
#[derive(Debug, Clone)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) place: Place,
    pub(super) description: &'static str,
    pub(super) content: Content,
}

/// Where a parameter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Query,
    Header,
}

/// What a body, or a parameter, is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content {
    /// A value of a type.
    Of(SchemaOf),
    /// Any text, but none.
    Name,
    /// One of these.
    OneOf(&'static [&'static str]),
    /// Bytes that mean something to whoever reads them.
    Bytes,
    /// Files of a form, each in a part of this name.
    Files(&'static str),
}

/// Makes the schema of one type.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// All that may come back with one status.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub(super) description: String,
    pub(super) contents: Vec<(&'static str, Content)>,
    /// Name and description.
    pub(super) headers: Vec<(&'static str, &'static str)>,
}

/// JSON, as most answers are.
const JSON: &str = "application/json";

impl Operation {
    /// An operation: its name in programs, unique and in camel case, and a line about it.
    pub(in crate::http) fn new(id: &'static str, summary: &'static str) -> Self {
        Self {
            id,
            summary,
            description: "",
            tag: "",
            parameters: Vec::new(),
            bodies: Vec::new(),
            body_needed: true,
            answers: BTreeMap::new(),
            access: Access::Use,
        }
    }

    /// More than a line, in Markdown.
    pub(in crate::http) fn description(mut self, description: &'static str) -> Self {
        self.description = description;
        self
    }

    /// The group it is shown in: one of those in `document.rs`.
    pub(in crate::http) fn tag(mut self, tag: &'static str) -> Self {
        self.tag = tag;
        self
    }

    /// Who may ask, where that is not everybody with a key.
    pub(in crate::http) fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Describes `{name}` of the path. `name` and `version` of a model need none.
    pub(in crate::http) fn path(self, name: &'static str, description: &'static str) -> Self {
        self.parameter(name, Place::Path, description, Content::Name)
    }

    /// Describes `{name}` of the path, which is one of a few.
    pub(in crate::http) fn path_one_of(
        self,
        name: &'static str,
        description: &'static str,
        names: &'static [&'static str],
    ) -> Self {
        self.parameter(name, Place::Path, description, Content::OneOf(names))
    }

    /// A parameter of the query; none has to be given.
    pub(in crate::http) fn query<T: JsonSchema>(self, name: &'static str, description: &'static str) -> Self {
        self.parameter(name, Place::Query, description, of::<T>())
    }

    /// A header of the request; none has to be given.
    pub(in crate::http) fn header<T: JsonSchema>(self, name: &'static str, description: &'static str) -> Self {
        self.parameter(name, Place::Header, description, of::<T>())
    }

    fn parameter(mut self, name: &'static str, place: Place, description: &'static str, content: Content) -> Self {
        self.parameters.push(Parameter { name, place, description, content });
        self
    }

    /// A body it takes: `T` in this media type. Bodies add up; the media type says which it is.
    pub(in crate::http) fn body<T: JsonSchema>(mut self, media_type: &'static str) -> Self {
        self.bodies.push((media_type, of::<T>()));
        self
    }

    /// Bytes it takes as body: `image/*`, `application/octet-stream`.
    pub(in crate::http) fn body_bytes(mut self, media_type: &'static str) -> Self {
        self.bodies.push((media_type, Content::Bytes));
        self
    }

    /// A form it takes as body: files, each in a part of this name.
    pub(in crate::http) fn body_files(mut self, part: &'static str) -> Self {
        self.bodies.push(("multipart/form-data", Content::Files(part)));
        self
    }

    /// The body may be left out.
    pub(in crate::http) fn body_optional(mut self) -> Self {
        self.body_needed = false;
        self
    }

    /// Success: `T` as JSON.
    pub(in crate::http) fn ok<T: JsonSchema>(self, description: &'static str) -> Self {
        self.answer(StatusCode::OK.as_u16(), description, Some((JSON, of::<T>())))
    }

    /// Success: plain text.
    pub(in crate::http) fn ok_text(self, description: &'static str) -> Self {
        self.answer(StatusCode::OK.as_u16(), description, Some(("text/plain", of::<String>())))
    }

    /// Success: bytes or text of this media type.
    pub(in crate::http) fn ok_bytes(self, media_type: &'static str, description: &'static str) -> Self {
        self.answer(StatusCode::OK.as_u16(), description, Some((media_type, Content::Bytes)))
    }

    /// Success without a body.
    pub(in crate::http) fn ok_empty(self, description: &'static str) -> Self {
        self.answer(StatusCode::OK.as_u16(), description, None)
    }

    /// Instead of success: the client's copy is still right.
    pub(in crate::http) fn not_modified(self) -> Self {
        self.answer(StatusCode::NOT_MODIFIED.as_u16(), "The copy that `If-None-Match` names is still right", None)
    }

    /// A header of the answer of success, which comes before: its name, and what it says.
    pub(in crate::http) fn ok_header(mut self, name: &'static str, description: &'static str) -> Self {
        self.answers.entry(StatusCode::OK.as_u16()).or_default().headers.push((name, description));
        self
    }

    /// Problems of the native API, by kind.
    pub(in crate::http) fn problems(mut self, kinds: &[ProblemKind]) -> Self {
        for kind in kinds {
            let line = format!("- `{}`: {}", kind.code(), kind.title());
            let answer = self.answers.entry(kind.status().as_u16()).or_default();
            if answer.contents.is_empty() {
                answer.contents.push(("application/problem+json", of::<ProblemBody>()));
            }
            if !answer.description.lines().any(|known| known == line) {
                let end = if answer.description.is_empty() { "" } else { "\n" };
                answer.description += &format!("{end}{line}");
            }
        }
        self
    }

    /// Errors of an API with a shape of its own: `T` as JSON.
    pub(in crate::http) fn errors<T: JsonSchema>(self, statuses: &[u16]) -> Self {
        statuses.iter().fold(self, |operation, &status| {
            let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
            operation.answer(status, reason.unwrap_or("Error"), Some((JSON, of::<T>())))
        })
    }

    fn answer(mut self, status: u16, description: &str, content: Option<(&'static str, Content)>) -> Self {
        let answer = self.answers.entry(status).or_default();
        if answer.description.is_empty() {
            description.clone_into(&mut answer.description);
        }
        answer.contents.extend(content);
        self
    }
}

fn of<T: JsonSchema>() -> Content {
    Content::Of(SchemaGenerator::subschema_for::<T>)
}
