//! What requests see: the models, their versions, and for each the engine that answers or the reason why none does.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::Handle;
use crate::zoo::Version;

/// All models at one moment. Replaced whole, never changed in place.
#[derive(Debug, Clone, Default)]
pub(super) struct Roster {
    /// The model of requests that name none; without it there must be only one.
    pub(super) default: Option<String>,
    pub(super) models: BTreeMap<String, BTreeMap<Version, Entry>>,
    /// Models that were unloaded by name, with the versions that they had: they can be loaded again.
    pub(super) unloaded: BTreeMap<String, Vec<Version>>,
    /// The first models have been loaded. From here on, no models means that none is wanted.
    pub(super) begun: bool,
    /// Models that clients added, each with the place that they named.
    pub(super) added: BTreeMap<String, String>,
}

/// One version of one model.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    /// The engine that answers.
    pub(super) handle: Option<Handle>,
    /// A load is running, for the first time or to replace the engine.
    pub(super) loading: bool,
    /// Why the latest load failed.
    pub(super) problem: Option<String>,
}

/// Where a version is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ModelState")]
pub enum State {
    /// It answers.
    Ready,
    /// It is being loaded for the first time.
    Loading,
    /// It could not be loaded.
    Unavailable,
}

/// One version of one model, as lists show it.
#[derive(Debug, Clone)]
pub struct Row {
    /// The model.
    pub name: String,
    /// The version.
    pub version: Version,
    /// Where it is in its life.
    pub state: State,
    /// Why the latest load failed; beside [`State::Ready`], why it was not replaced.
    pub problem: Option<String>,
    /// Requests that name neither model nor version get this one.
    pub default: bool,
    /// The engine, where it is ready.
    pub handle: Option<Handle>,
}

/// Why a request gets no engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotServed {
    /// No model has been loaded yet.
    #[error("no model is loaded")]
    Nothing,
    /// All models were unloaded, or none was added yet.
    #[error("no model is loaded now; load one first")]
    Empty,
    /// The request must say which model it means.
    #[error("this server has several models and no default; name one of {}", quoted(names))]
    NameNeeded {
        /// The models there are.
        names: Vec<String>,
    },
    /// There is no model of this name.
    #[error("there is no model {name:?}; this server has {}", some_of(names))]
    UnknownModel {
        /// The name asked for.
        name: String,
        /// The models there are.
        names: Vec<String>,
    },
    /// The model has no such version.
    #[error("model {name:?} has no version {version:?}; there is {}", quoted(versions))]
    UnknownVersion {
        /// The model.
        name: String,
        /// The version asked for.
        version: String,
        /// The versions there are.
        versions: Vec<String>,
    },
    /// The model is known, and no engine runs for it.
    #[error("model {name:?} cannot answer now: {reason}")]
    Unavailable {
        /// The model.
        name: String,
        /// `it is loading`, or that its load failed.
        reason: &'static str,
    },
}

fn some_of(names: &[String]) -> String {
    if names.is_empty() { "none now".to_owned() } else { quoted(names) }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

impl Entry {
    fn state(&self) -> State {
        match self {
            Self { handle: Some(_), .. } => State::Ready,
            Self { loading: true, .. } => State::Loading,
            Self { .. } => State::Unavailable,
        }
    }

    fn unavailable(&self, name: &str) -> NotServed {
        let reason = if self.loading { "it is loading" } else { "it could not be loaded; the server's log says why" };
        NotServed::Unavailable { name: name.to_owned(), reason }
    }
}

impl Roster {
    pub(super) fn get(&self, name: Option<&str>, version: Option<&str>) -> Result<Handle, NotServed> {
        let (name, versions) = self.versions(name)?;
        let entry = match version {
            Some(version) => versions.get(&Version::from(version)).ok_or_else(|| NotServed::UnknownVersion {
                name: name.to_owned(),
                version: version.to_owned(),
                versions: versions.keys().map(ToString::to_string).collect(),
            })?,
            // The newest that answers: a new version that is broken or still loading leaves the one before it in charge.
            None => versions
                .values()
                .rev()
                .find(|entry| entry.handle.is_some())
                .or_else(|| versions.values().next_back())
                .expect("a model without versions is not listed"),
        };
        entry.handle.clone().ok_or_else(|| entry.unavailable(name))
    }

    fn versions(&self, name: Option<&str>) -> Result<(&str, &BTreeMap<Version, Entry>), NotServed> {
        if self.models.is_empty() && !self.begun {
            return Err(NotServed::Nothing);
        }
        let names = || self.models.keys().cloned().collect();
        let name = match name.or(self.default_name()) {
            Some(name) => name,
            None if self.models.is_empty() => return Err(NotServed::Empty),
            None => return Err(NotServed::NameNeeded { names: names() }),
        };
        match self.models.get_key_value(name) {
            Some((name, versions)) => Ok((name, versions)),
            None if self.unloaded.contains_key(name) => {
                Err(NotServed::Unavailable { name: name.to_owned(), reason: "it was unloaded; load it first" })
            }
            None => Err(NotServed::UnknownModel { name: name.to_owned(), names: names() }),
        }
    }

    fn default_name(&self) -> Option<&str> {
        let only = || (self.models.len() == 1).then(|| self.models.keys().next().map(String::as_str)).flatten();
        self.default.as_deref().or_else(only)
    }

    pub(super) fn rows(&self) -> Vec<Row> {
        let default = self.get(None, None).ok();
        let row = |name: &String, version: &Version, entry: &Entry| Row {
            name: name.clone(),
            version: version.clone(),
            state: entry.state(),
            problem: entry.problem.clone(),
            default: matches!((&default, &entry.handle), (Some(default), Some(handle)) if default.is(handle)),
            handle: entry.handle.clone(),
        };
        let versions = |(name, versions): (&String, &BTreeMap<Version, Entry>)| -> Vec<Row> {
            versions.iter().map(|(version, entry)| row(name, version, entry)).collect()
        };
        self.models.iter().flat_map(versions).collect()
    }

    pub(super) fn ready(&self) -> Vec<Handle> {
        self.models.values().flat_map(BTreeMap::values).filter_map(|entry| entry.handle.clone()).collect()
    }

    /// The entry of one version, made if it is new.
    pub(super) fn entry(&mut self, name: &str, version: &Version) -> &mut Entry {
        self.models.entry(name.to_owned()).or_default().entry(version.clone()).or_default()
    }

    /// Forgets one version, and the model with its last version. Returns whether an engine was serving it.
    pub(super) fn remove(&mut self, name: &str, version: &Version) -> bool {
        let Some(versions) = self.models.get_mut(name) else { return false };
        let entry = versions.remove(version);
        if versions.is_empty() {
            self.models.remove(name);
        }
        entry.is_some_and(|entry| entry.handle.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(models: &[(&str, &str)], default: Option<&str>) -> Roster {
        let mut roster = Roster { default: default.map(str::to_owned), ..Roster::default() };
        for (name, version) in models {
            roster.entry(name, &Version::from(*version)).problem = Some("broken".to_owned());
        }
        roster
    }

    fn asked(roster: &Roster, name: Option<&str>, version: Option<&str>) -> String {
        roster.get(name, version).unwrap_err().to_string()
    }

    #[test]
    fn a_request_without_a_name_means_the_default_or_the_only_model() {
        assert_eq!(asked(&Roster::default(), None, None), "no model is loaded");
        let broken = "cannot answer now: it could not be loaded; the server's log says why";
        assert_eq!(asked(&roster(&[("a", "1")], None), None, None), format!("model \"a\" {broken}"));
        let two = [("a", "1"), ("b", "1")];
        assert_eq!(
            asked(&roster(&two, None), None, None),
            "this server has several models and no default; name one of \"a\", \"b\""
        );
        assert_eq!(asked(&roster(&two, Some("b")), None, None), format!("model \"b\" {broken}"));
    }

    #[test]
    fn what_is_not_there_is_answered_with_what_is() {
        let roster = roster(&[("a", "2"), ("a", "10"), ("b", "1")], None);
        assert_eq!(asked(&roster, Some("c"), None), "there is no model \"c\"; this server has \"a\", \"b\"");
        assert_eq!(asked(&roster, Some("a"), Some("3")), "model \"a\" has no version \"3\"; there is \"2\", \"10\"");
    }

    #[test]
    fn a_model_goes_with_its_last_version() {
        let mut roster = roster(&[("a", "1"), ("a", "2")], None);
        roster.remove("a", &Version::from("1"));
        assert_eq!(roster.rows().len(), 1);
        roster.remove("a", &Version::from("2"));
        assert!(roster.models.is_empty());
    }
}
