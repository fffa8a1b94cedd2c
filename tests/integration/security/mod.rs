//! Who may connect and ask.

mod admin;
mod keys;
mod pages;
mod rates;
mod tls;

use std::path::{Path, PathBuf};

use reqwest::RequestBuilder;

use crate::support::{Answer, send};

/// A key that servers in these tests take.
const KEY: &str = "a-key-of-24-characters-x";

/// A file in its own directory, which goes with it.
struct Secret(tempfile::TempDir);

impl Secret {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A file of keys.
    fn keys(text: &str) -> (Self, String) {
        let secret = Self::new();
        let path = secret.put("keys", text);
        (secret, path)
    }

    /// Writes a file in one step, as deployments do, and returns its path.
    fn put(&self, name: &str, text: &str) -> String {
        let (path, new) = (self.path(name), self.path("new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &path).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.0.path()).join(name)
    }
}

/// Sends a request with a key.
async fn with(request: RequestBuilder, key: &str) -> Answer {
    send(request.bearer_auth(key)).await
}
