//! What a user asks for: a name of the catalogue, or a repository of the hub.

use std::fmt;

use super::super::catalog::{self, Entry, Pinned};
use super::error::PullError;
use super::hub::DEFAULT_REVISION;
use super::receipt::Receipt;

/// What stands in front of a repository.
const PREFIX: &str = "hf:";

/// A model to be pulled.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The repository, `organisation/name`.
    pub repository: String,
    /// A branch, a tag or a commit.
    pub revision: String,
    /// The file of the repository, if a certain one is meant.
    pub file: Option<String>,
    /// What the catalogue knows about it.
    pub entry: Option<&'static Entry>,
}

impl Wanted {
    /// Reads a name of the catalogue or `hf:organisation/name[@revision]`, and the file to take if it has several.
    ///
    /// # Errors
    /// [`PullError::Unknown`], [`PullError::BadRepository`]; [`PullError::NoModel`] for a file of a model that is one.
    pub fn parse(given: &str, file: Option<&str>) -> Result<Self, PullError> {
        let file = file.map(str::to_owned);
        let Some(repository) = given.strip_prefix(PREFIX) else {
            let entry = catalog::find(given)?;
            return Self::of(entry, DEFAULT_REVISION, file);
        };
        let (repository, revision) = repository.split_once('@').unwrap_or((repository, DEFAULT_REVISION));
        let bad = |why| Err(PullError::BadRepository { given: given.to_owned(), why });
        let plain = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        match repository.split_once('/') {
            Some((organisation, name)) if plain(organisation) && plain(name) => {}
            Some(_) => return bad("a repository's name is letters, digits, '-', '_' and '.'"),
            None => return bad("it has no organisation"),
        }
        if revision.is_empty() || revision.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return bad("its revision is empty or holds spaces");
        }
        match catalog::find(&format!("{PREFIX}{repository}")) {
            Ok(entry) => Self::of(entry, revision, file),
            Err(_) => Ok(Self { repository: repository.to_owned(), revision: revision.to_owned(), file, entry: None }),
        }
    }

    fn of(entry: &'static Entry, revision: &str, file: Option<String>) -> Result<Self, PullError> {
        if entry.pinned.is_some() && file.is_some() {
            return Err(PullError::NoModel {
                repository: entry.name.clone(),
                why: "it is one file".to_owned(),
                advice: "leave out --file".to_owned(),
            });
        }
        let (repository, revision) = (entry.repository.clone(), revision.to_owned());
        Ok(Self { repository, revision, file, entry: Some(entry) })
    }

    /// The one file it is, if the catalogue has its hash.
    #[must_use]
    pub fn pinned(&self) -> Option<&'static Pinned> {
        self.entry?.pinned.as_ref()
    }

    /// A folder's name for it, and so the model's: the catalogue's own, or that of the repository.
    #[must_use]
    pub fn folder_name(&self) -> String {
        let named = self.entry.map(|entry| entry.name.as_str()).filter(|name| !name.starts_with(PREFIX));
        let mut name = named.map_or_else(|| self.repository.replacen('/', "--", 1), str::to_owned);
        let stem = self.file.as_deref().map(|file| file.trim_end_matches(".onnx").trim_end_matches(".safetensors"));
        let revision = Some(self.revision.as_str()).filter(|revision| *revision != DEFAULT_REVISION);
        for part in [revision, stem].into_iter().flatten() {
            name.push_str("--");
            name.extend(part.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }));
        }
        name
    }

    /// Whether a folder with this receipt holds it, in whichever state.
    pub(super) fn is_in(&self, receipt: &Receipt) -> bool {
        let file = self.pinned().map(|pinned| &pinned.file).or(self.file.as_ref());
        receipt.repository == self.repository
            && receipt.revision == self.revision
            && file.is_none_or(|file| *file == receipt.source)
    }
}

/// The name that asks for it again.
impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.entry.map(|entry| entry.name.as_str()).filter(|name| !name.starts_with(PREFIX));
        match named {
            Some(name) => f.write_str(name)?,
            None => write!(f, "{PREFIX}{}", self.repository)?,
        }
        if self.revision != DEFAULT_REVISION {
            write!(f, "@{}", self.revision)?;
        }
        self.file.iter().try_for_each(|file| write!(f, " --file {file}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_repositories_are_read_and_said_again() {
        for (given, file, said, folder) in [
            ("resnet50", None, "resnet50-v1-12", "resnet50-v1-12"),
            ("hf:a/b.c_d", None, "hf:a/b.c_d", "a--b.c_d"),
            ("hf:a/b@refs/pr/1", None, "hf:a/b@refs/pr/1", "a--b--refs-pr-1"),
            (
                "hf:Xenova/resnet-50",
                Some("onnx/model_fp16.onnx"),
                "hf:Xenova/resnet-50 --file onnx/model_fp16.onnx",
                "Xenova--resnet-50--onnx-model_fp16",
            ),
            ("mlperf-resnet50", None, "mlperf-resnet50", "mlperf-resnet50"),
        ] {
            let wanted = Wanted::parse(given, file).unwrap();
            assert_eq!((wanted.to_string().as_str(), wanted.folder_name().as_str()), (said, folder));
        }
        assert!(Wanted::parse("hf:timm/resnet50.a1_in1k", None).unwrap().entry.is_some());
    }

    #[test]
    fn what_is_no_repository_is_refused() {
        for given in
            ["hf:", "hf:a", "hf:a/", "hf:/b", "hf:../b", "hf:a/..", "hf:a/b/c", "hf:a/b@", "hf:a/b@x y", "hf:a/b c"]
        {
            let error = Wanted::parse(given, None).unwrap_err();
            assert!(matches!(error, PullError::BadRepository { .. }), "{given}: {error}");
        }
        assert!(Wanted::parse("resnet50", Some("x.onnx")).unwrap_err().to_string().contains("leave out --file"));
    }
}
