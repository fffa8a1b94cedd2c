//! Release numbers, compared as numbers: 1.4 is older than 1.31.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A release number of ONNX Runtime or of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Incompatible changes.
    pub major: u32,
    /// For ONNX Runtime, also the version of its C API.
    pub minor: u32,
    /// Fixes.
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: Option<&str>| part.and_then(|digits| digits.parse().ok());
        let mut parts = text.split('.');
        match (number(parts.next()), number(parts.next()), number(parts.next()), parts.next()) {
            (Some(major), Some(minor), Some(patch), None) => Ok(Self { major, minor, patch }),
            _ => Err(format!("found version {text:?}, expected three numbers like 1.31.1")),
        }
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The version in `libonnxruntime.so.1.31.1` or `libonnxruntime.1.31.1.dylib`.
pub(crate) fn version_in_name(path: &Path) -> Option<Version> {
    let name = path.file_name()?.to_str()?.strip_prefix("libonnxruntime.")?;
    name.strip_prefix("so.").or_else(|| name.strip_suffix(".dylib"))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_numbers_make_a_version() {
        assert_eq!("1.31.1".parse(), Ok(super::super::RUNTIME_VERSION));
        assert!("1.4.0".parse::<Version>() < "1.31.1".parse());
        for text in ["", "1", "1.31", "1.31.1.0", "1.31.x", "v1.31.1", "1.31.99999999999"] {
            assert!(text.parse::<Version>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn file_names_carry_versions() {
        let in_name = |name: &str| version_in_name(Path::new(name)).map(|version| version.to_string());
        assert_eq!(in_name("/lib/libonnxruntime.so.1.31.1"), Some("1.31.1".into()));
        assert_eq!(in_name("libonnxruntime.1.31.1.dylib"), Some("1.31.1".into()));
        assert_eq!(in_name("libonnxruntime.so.1"), None);
        assert_eq!(in_name("libonnxruntime.so"), None);
    }
}
