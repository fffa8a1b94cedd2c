//! Versions of a model, and which of two is newer.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

/// The version of a model as clients write it. Ordered so that the newest is the largest: numbers by value, as Triton's
/// version folders are, and above any text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Version(Arc<str>);

impl Version {
    /// The version of a model whose place has no versions.
    #[must_use]
    pub fn first() -> Self {
        Self(Arc::from("1"))
    }

    /// The version that a folder's name says, if the name is a version: a whole number that is not written with leading
    /// zeros, as Triton has it.
    #[must_use]
    pub fn of_folder(name: &str) -> Option<Self> {
        let is_number = name.parse::<u64>().is_ok_and(|number| number.to_string() == name && number > 0);
        is_number.then(|| Self(Arc::from(name)))
    }

    /// As clients write it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn number(&self) -> Option<u64> {
        self.0.parse().ok()
    }
}

impl From<&str> for Version {
    fn from(text: &str) -> Self {
        Self(Arc::from(text))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.number().cmp(&other.number()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_the_largest_number() {
        let mut versions = ["9", "beta", "10", "2", "alpha"].map(Version::from);
        versions.sort();
        assert_eq!(versions.map(|version| version.to_string()), ["alpha", "beta", "2", "9", "10"]);
    }

    #[test]
    fn only_plain_numbers_are_version_folders() {
        for (name, is_version) in
            [("1", true), ("20", true), ("0", false), ("01", false), ("+1", false), ("v1", false), ("1.0", false)]
        {
            assert_eq!(Version::of_folder(name).is_some(), is_version, "{name}");
        }
    }
}
