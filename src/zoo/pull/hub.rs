//! The hub: its addresses, what a repository holds, and which of its files make a model.
//!
//! The calls are those of the Hugging Face hub, as its Python client makes them: `/api/models/…/revision/…` for the
//! listing (with sizes and hashes if `blobs` is asked for), `/…/resolve/…` for the files.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use ureq::http::Uri;

use super::error::PullError;

/// The hub that is asked if no other is named.
pub const DEFAULT_HUB: &str = "https://huggingface.co";

/// The revision that is meant if none is given.
pub(super) const DEFAULT_REVISION: &str = "main";

/// What stays as it is in one segment of an address.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// The same in a path of several.
const PATH: &AsciiSet = &SEGMENT.remove(b'/');

/// A hub's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hub {
    uri: Uri,
    /// Without a slash at the end.
    base: String,
}

impl Hub {
    /// Reads an address like `https://hub.example` or `http://127.0.0.1:8080/mirror`.
    ///
    /// # Errors
    /// [`PullError::BadHub`].
    pub fn parse(given: &str) -> Result<Self, PullError> {
        let bad = |why: &str| PullError::BadHub { given: given.to_owned(), why: why.to_owned() };
        let base = given.trim().trim_end_matches('/').to_owned();
        let uri: Uri = base.parse().map_err(|_| bad("not an address"))?;
        match uri.scheme_str() {
            Some("http" | "https") => {}
            Some(_) | None => return Err(bad("it does not begin with https:// or http://")),
        }
        let authority = uri.authority().ok_or_else(|| bad("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("it holds a password; set HF_TOKEN instead"));
        }
        if uri.query().is_some() {
            return Err(bad("it holds a query"));
        }
        Ok(Self { uri, base })
    }

    /// Whether `uri` is on the hub itself: the same scheme, host and port.
    pub(super) fn is_origin_of(&self, uri: &Uri) -> bool {
        let port = |uri: &Uri| uri.port_u16().or(if uri.scheme_str() == Some("https") { Some(443) } else { Some(80) });
        let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
        uri.scheme() == self.uri.scheme() && host(uri) == host(&self.uri) && port(uri) == port(&self.uri)
    }

    /// Whether nobody else reads what is sent there: it is https, or this machine.
    pub(super) fn is_private(&self) -> bool {
        self.uri.scheme_str() == Some("https") || matches!(self.uri.host(), Some("localhost" | "127.0.0.1" | "[::1]"))
    }

    /// The address of a file.
    pub(super) fn file(&self, repository: &str, revision: &str, path: &str) -> String {
        let (revision, path) = (utf8_percent_encode(revision, SEGMENT), utf8_percent_encode(path, PATH));
        format!("{}/{repository}/resolve/{revision}/{path}", self.base)
    }

    /// The address of a repository's listing.
    pub(super) fn listing(&self, repository: &str, revision: &str) -> String {
        let revision = utf8_percent_encode(revision, SEGMENT);
        format!("{}/api/models/{repository}/revision/{revision}?blobs=true", self.base)
    }
}

/// A repository at one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) repository: String,
    pub(super) commit: String,
    pub(super) licence: Option<String>,
    files: Vec<Sibling>,
}

/// A file of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Sibling {
    #[serde(rename = "rfilename")]
    pub(super) path: String,
    #[serde(default)]
    pub(super) size: Option<u64>,
    #[serde(default)]
    lfs: Option<Lfs>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Lfs {
    #[serde(default)]
    sha256: Option<String>,
}

impl Sibling {
    pub(super) fn sha256(&self) -> Option<&str> {
        self.lfs.as_ref()?.sha256.as_deref()
    }
}

/// The file of a repository that holds the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A graph with its weights.
    Onnx(String),
    /// Weights alone.
    Safetensors(String),
}

impl Listing {
    pub(super) fn parse(url: &str, repository: &str, json: &[u8]) -> Result<Self, PullError> {
        #[derive(Deserialize)]
        struct Answer {
            sha: String,
            siblings: Vec<Sibling>,
            #[serde(default)]
            tags: Vec<String>,
        }
        let bad = |why: String| PullError::BadAnswer { url: url.to_owned(), why };
        let answer: Answer = serde_json::from_slice(json).map_err(|error| bad(error.to_string()))?;
        // The commit becomes a part of addresses and of what people read.
        if answer.sha.is_empty() || !answer.sha.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(bad(format!("its commit is {:?}, expected hexadecimal digits", answer.sha)));
        }
        // Both are shown to people, and a terminal obeys what looks like an order.
        let shown = |text: &str| !text.contains(char::is_control);
        let mut licences = answer.tags.iter().filter_map(|tag| tag.strip_prefix("license:"));
        let licence = licences.find(|licence| shown(licence)).map(str::to_owned);
        let files = answer.siblings.into_iter().filter(|file| shown(&file.path)).collect();
        Ok(Self { repository: repository.to_owned(), commit: answer.sha, licence, files })
    }

    pub(super) fn find(&self, path: &str) -> Option<&Sibling> {
        self.files.iter().find(|file| file.path == path)
    }

    /// `name` at the root, or else beside the model.
    pub(super) fn beside(&self, model: &str, name: &str) -> Option<&Sibling> {
        self.find(name).or_else(|| self.find(&format!("{}{name}", folder_of(model))))
    }

    /// Which file to serve: the one asked for; else what exporters call the model; else the only candidate.
    pub(super) fn model(&self, asked: Option<&str>) -> Result<Source, PullError> {
        let no_model = |why: String, advice: &str| {
            Err(PullError::NoModel { repository: self.repository.clone(), why, advice: advice.to_owned() })
        };
        let ending = |ending: &str| -> Vec<&str> {
            self.files.iter().map(|file| file.path.as_str()).filter(|path| path.ends_with(ending)).collect()
        };
        let (graphs, weights) = (ending(".onnx"), ending(".safetensors"));
        if let Some(asked) = asked {
            return match self.find(asked).map(|file| file.path.clone()) {
                Some(path) if path.ends_with(".onnx") => Ok(Source::Onnx(path)),
                Some(path) if path.ends_with(".safetensors") => Ok(Source::Safetensors(path)),
                Some(path) => no_model(format!("{path} is neither .onnx nor .safetensors"), "name another with --file"),
                None => no_model(
                    format!("there is no {asked}"),
                    &format!("name one of these with --file: {}", list(&graphs, &weights)),
                ),
            };
        }
        let usual = |names: &[&str], all: &[&str]| {
            let named = names.iter().find(|name| all.contains(name)).copied();
            named.or(if let [only] = all { Some(only) } else { None }).map(str::to_owned)
        };
        if let Some(graph) = usual(&["onnx/model.onnx", "model.onnx"], &graphs) {
            Ok(Source::Onnx(graph))
        } else if let Some(weights) = usual(&["model.safetensors"], &weights) {
            Ok(Source::Safetensors(weights))
        } else if graphs.is_empty() && weights.is_empty() {
            no_model(
                "it holds neither .onnx nor .safetensors".to_owned(),
                "export it to ONNX, or save it as safetensors",
            )
        } else {
            no_model("it holds several".to_owned(), &format!("name one with --file: {}", list(&graphs, &weights)))
        }
    }
}

/// The folder of a path in a repository, with its slash; nothing at the root.
pub(super) fn folder_of(path: &str) -> &str {
    path.rfind('/').map_or("", |slash| &path[..=slash])
}

fn list(graphs: &[&str], weights: &[&str]) -> String {
    /// Names shown at most.
    const SHOWN_MAX: usize = 8;
    let all: Vec<&str> = graphs.iter().chain(weights).copied().collect();
    let more = if all.len() > SHOWN_MAX { ", …" } else { "" };
    if all.is_empty() { "none".to_owned() } else { format!("{}{more}", all[..all.len().min(SHOWN_MAX)].join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(paths: &[&str]) -> Listing {
        let siblings: Vec<_> = paths.iter().map(|path| serde_json::json!({ "rfilename": path })).collect();
        let json = serde_json::json!({ "sha": "0a1b", "siblings": siblings, "tags": ["onnx", "license:apache-2.0"] });
        Listing::parse("u", "a/b", json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn the_model_is_what_exporters_call_so_or_the_only_one() {
        let model = |paths: &[&str]| listing(paths).model(None);
        let onnx = |path: &str| Source::Onnx(path.to_owned());
        assert_eq!(model(&["model.onnx", "onnx/model.onnx", "onnx/model_fp16.onnx"]).unwrap(), onnx("onnx/model.onnx"));
        assert_eq!(model(&["model.safetensors", "model.onnx", "b.onnx"]).unwrap(), onnx("model.onnx"));
        assert_eq!(model(&["resnet50_v1.onnx", "README.md"]).unwrap(), onnx("resnet50_v1.onnx"));
        let weights = Source::Safetensors("model.safetensors".to_owned());
        assert_eq!(model(&["model.safetensors", "a.onnx", "b.onnx"]).unwrap(), weights);
        let several = model(&["a.onnx", "b.onnx"]).unwrap_err().to_string();
        assert!(several.contains("several; name one with --file: a.onnx, b.onnx"), "{several}");
        let none = model(&["pytorch_model.bin"]).unwrap_err().to_string();
        assert!(none.contains("neither .onnx nor .safetensors; export it"), "{none}");
    }

    #[test]
    fn a_file_that_is_asked_for_must_be_there_and_be_a_model() {
        let listing = listing(&["onnx/model.onnx", "onnx/model_fp16.onnx", "config.json"]);
        assert_eq!(
            listing.model(Some("onnx/model_fp16.onnx")).unwrap(),
            Source::Onnx("onnx/model_fp16.onnx".to_owned())
        );
        assert!(
            listing.model(Some("x.onnx")).unwrap_err().to_string().contains("there is no x.onnx; name one of these")
        );
        assert!(listing.model(Some("config.json")).unwrap_err().to_string().contains("neither .onnx nor"));
    }

    #[test]
    fn a_listing_tells_commit_licence_sizes_and_hashes() {
        let json = br#"{"sha":"0a1b","siblings":[{"rfilename":"m.onnx","size":7,"lfs":{"sha256":"ab","size":7,"pointerSize":1}},
            {"rfilename":"config.json","size":2,"lfs":null}],"tags":["license:mit"],"gated":false}"#;
        let listing = Listing::parse("u", "a/b", json).unwrap();
        assert_eq!((listing.commit.as_str(), listing.licence.as_deref()), ("0a1b", Some("mit")));
        assert_eq!((listing.files[0].sha256(), listing.files[0].size), (Some("ab"), Some(7)));
        assert_eq!((listing.files[1].sha256(), listing.files[1].size), (None, Some(2)));
        for bad in [&br#"{"sha":"../x","siblings":[]}"#[..], b"{}", b"<html>"] {
            assert!(matches!(Listing::parse("u", "a/b", bad), Err(PullError::BadAnswer { .. })));
        }
    }

    #[test]
    fn names_that_a_terminal_would_obey_are_passed_over() {
        let listing = listing(&["a\u{1b}[2J.onnx", "b.onnx"]);
        assert_eq!(listing.model(None).unwrap(), Source::Onnx("b.onnx".to_owned()));
    }

    #[test]
    fn addresses_are_those_of_the_hub() {
        let hub = Hub::parse("https://hub.example/mirror/").unwrap();
        assert_eq!(
            hub.file("a/b", "refs/pr/1", "x y/m#.onnx"),
            "https://hub.example/mirror/a/b/resolve/refs%2Fpr%2F1/x%20y/m%23.onnx"
        );
        assert_eq!(hub.listing("a/b", "main"), "https://hub.example/mirror/api/models/a/b/revision/main?blobs=true");
        for bad in [
            "hub.example",
            "ftp://hub.example",
            "https://",
            "",
            "https://me:secret@hub.example",
            "https://hub.example/?x",
        ] {
            assert!(Hub::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_origin_is_scheme_host_and_port() {
        let hub = Hub::parse("https://hub.example/mirror").unwrap();
        let same = |uri: &'static str| hub.is_origin_of(&Uri::from_static(uri));
        assert!(same("https://HUB.example:443/x"));
        assert!(
            !same("http://hub.example/x") && !same("https://hub.example:8443/x") && !same("https://cdn.hub.example/x")
        );
        assert!(hub.is_private() && Hub::parse("http://127.0.0.1:1").unwrap().is_private());
        assert!(!Hub::parse("http://hub.example").unwrap().is_private());
    }
}
