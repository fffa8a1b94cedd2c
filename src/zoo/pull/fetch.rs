//! One file from the hub to the disk: checked while it streams, continued where it broke off, bounded in size and tries.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use ureq::http::header::{CONTENT_RANGE, CONTENT_TYPE, ETAG};

use super::client::{Client, Reply, Rest};
use super::error::PullError;
use super::manners::{Event, Manners, Patience};
use super::part::Part;
use super::receipt::hash_of_file;

/// Bytes read at once.
const BLOCK_BYTES: usize = 1 << 16;
/// A listing of a repository at most; those of a thousand files have a few hundred kilobytes.
const LISTING_BYTES_MAX: u64 = 16 << 20;
/// How a Git LFS pointer begins (github.com/git-lfs/git-lfs, `docs/spec.md`).
const LFS_POINTER: &[u8] = b"version https://git-lfs";

/// A file of the hub, and all that is known of it.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    pub(super) url: String,
    /// Its path in the repository.
    pub(super) path: String,
    /// What tells it from other files and other versions of it, whichever hub it comes from.
    pub(super) identity: String,
    pub(super) sha256: Option<String>,
    pub(super) bytes: Option<u64>,
    /// The bound where `bytes` is not known.
    pub(super) bytes_max: u64,
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fetched {
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

/// Fetches a small answer of the hub itself.
pub(super) fn listing(client: &Client, url: &str, manners: &Manners<'_>) -> Result<Vec<u8>, PullError> {
    manners.persist(|| {
        let reply = client.get(url, None)?;
        if let Some(refusal) = reply.refusal() {
            return Err(refusal);
        }
        let mut json = Vec::new();
        let mut body = reply.response.into_body().into_reader().take(LISTING_BYTES_MAX + 1);
        let read = body.read_to_end(&mut json);
        if json.len() as u64 > LISTING_BYTES_MAX {
            let why = format!("more than {LISTING_BYTES_MAX} bytes");
            return Err(PullError::BadAnswer { url: url.to_owned(), why });
        }
        read.map_err(|error| interrupted(url, json.len() as u64, None, error, manners.patience))?;
        Ok(json)
    })
}

/// Fetches `remote` to the file `dest`. If it fails there is no such file, and perhaps a part of it to go on with.
pub(super) fn fetch(
    client: &Client,
    remote: &Remote,
    dest: &Path,
    manners: &Manners<'_>,
) -> Result<Fetched, PullError> {
    if let Some(fetched) = already(remote, dest)? {
        return Ok(fetched);
    }
    let fetched = manners.persist(|| attempt(client, remote, dest, manners))?;
    (manners.progress)(Event::Finished { file: &remote.path });
    Ok(fetched)
}

/// What an earlier process finished and had no time to put in place.
fn already(remote: &Remote, dest: &Path) -> Result<Option<Fetched>, PullError> {
    let Ok(metadata) = dest.metadata() else { return Ok(None) };
    if let Some(expected) = &remote.sha256 {
        let sha256 = hash_of_file(dest).map_err(PullError::io("read", dest))?;
        if sha256 == *expected {
            return Ok(Some(Fetched { bytes: metadata.len(), sha256 }));
        }
    }
    fs::remove_file(dest).map_err(PullError::io("remove", dest))?;
    Ok(None)
}

fn attempt(client: &Client, remote: &Remote, dest: &Path, manners: &Manners<'_>) -> Result<Fetched, PullError> {
    let mut part = Part::open(dest, &remote.identity)?;
    if !part.is_whole(remote) {
        let rest = part.rest(remote)?;
        receive(client, remote, &mut part, rest.as_ref(), manners)?;
    }
    part.finish(dest)
}

/// Asks for the file or the rest of it, and writes what comes behind what is there.
fn receive(
    client: &Client,
    remote: &Remote,
    part: &mut Part,
    rest: Option<&Rest>,
    manners: &Manners<'_>,
) -> Result<(), PullError> {
    let reply = client.get(&remote.url, rest)?;
    match reply.response.status().as_u16() {
        // Also the answer of a server that knows no ranges, or has another version by now.
        200 => part.restart(strong_etag(&reply))?,
        206 if rest.is_some() && range_start(&reply) == Some(part.bytes) => {}
        206 | 416 => {
            part.restart(None)?;
            return Err(PullError::WrongRange { file: remote.path.clone() });
        }
        _ => {}
    }
    if let Some(refusal) = reply.refusal() {
        return Err(refusal);
    }
    let resumed = part.bytes > 0;
    let expected = Expected {
        file: &remote.path,
        url: reply.url.clone(),
        // The catalogue's word counts before the hub's.
        sha256: remote.sha256.clone().or(reply.linked.sha256.clone()),
        bytes: remote.bytes.or(reply.linked.bytes),
        announced: reply.response.body().content_length().map(|rest| rest.saturating_add(part.bytes)),
        bytes_max: remote.bytes_max,
        is_page: reply.header(CONTENT_TYPE).is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/html")),
    };
    let mut body = reply.response.into_body().into_reader();
    let poured = pour(&mut body, part, &expected, manners).and_then(|()| expected.check_hash(part.sha256()));
    match poured {
        Ok(()) => Ok(()),
        Err(error) if error.passes() => Err(error),
        Err(PullError::WrongHash { file, .. }) if resumed => {
            // Either half may be the wrong one. The next try begins anew.
            part.restart(None)?;
            Err(PullError::WrongRange { file })
        }
        Err(error) => {
            part.discard();
            Err(error)
        }
    }
}

/// What a body has to be.
struct Expected<'a> {
    file: &'a str,
    url: String,
    sha256: Option<String>,
    bytes: Option<u64>,
    /// The size of the whole file, as the answer has it.
    announced: Option<u64>,
    bytes_max: u64,
    is_page: bool,
}

impl Expected<'_> {
    fn total(&self) -> Option<u64> {
        self.bytes.or(self.announced)
    }

    /// Looks at the first bytes, before sizes are compared: what they are explains why a size is wrong.
    fn inspect(&self, head: &[u8]) -> Result<(), PullError> {
        let (file, url) = (self.file.to_owned(), self.url.clone());
        let start = head.trim_ascii_start();
        let begins = |text: &[u8]| start.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text));
        if head.starts_with(LFS_POINTER) {
            return Err(PullError::LfsPointer { file, url });
        }
        if self.is_page || begins(b"<!doctype html") || begins(b"<html") {
            return Err(PullError::WebPage { file, url });
        }
        Ok(())
    }

    fn check_hash(&self, found: String) -> Result<(), PullError> {
        match &self.sha256 {
            Some(expected) if *expected != found => {
                let (file, url, expected) = (self.file.to_owned(), self.url.clone(), expected.clone());
                Err(PullError::WrongHash { file, url, found, expected })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_size(&self) -> Result<(), PullError> {
        let (file, url) = (self.file.to_owned(), self.url.clone());
        match (self.announced, self.bytes) {
            (Some(announced), Some(expected)) if announced != expected => {
                Err(PullError::SizeMismatch { file, url, announced, expected })
            }
            _ if self.total().is_some_and(|total| total > self.bytes_max) => {
                Err(PullError::TooLong { file, url, bytes_max: self.bytes_max })
            }
            _ => Ok(()),
        }
    }
}

/// Writes a body behind what is there, never more than was expected.
fn pour(
    body: &mut impl Read,
    part: &mut Part,
    expected: &Expected<'_>,
    manners: &Manners<'_>,
) -> Result<(), PullError> {
    let total = expected.total();
    let bytes_max = total.unwrap_or(u64::MAX).min(expected.bytes_max);
    let mut block = vec![0; BLOCK_BYTES];
    let mut begun = false;
    loop {
        let len = match body.read(&mut block) {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(interrupted(expected.file, part.bytes, total, error, manners.patience)),
        };
        if !begun {
            begun = true;
            if part.bytes == 0 {
                expected.inspect(&block[..len])?;
            }
            expected.check_size()?;
            part.check_space(total)?;
            (manners.progress)(Event::Begun { file: expected.file, from: part.bytes, bytes: total });
        }
        if len == 0 {
            return match total {
                Some(total) if part.bytes < total => {
                    Err(PullError::Cut { file: expected.file.to_owned(), got: part.bytes, bytes: Some(total) })
                }
                Some(_) | None => Ok(()),
            };
        }
        if part.bytes + len as u64 > bytes_max {
            let (file, url) = (expected.file.to_owned(), expected.url.clone());
            return Err(PullError::TooLong { file, url, bytes_max });
        }
        part.append(&block[..len], total)?;
        (manners.progress)(Event::Advanced { bytes: part.bytes });
    }
}

fn interrupted(file: &str, got: u64, bytes: Option<u64>, error: io::Error, patience: &Patience) -> PullError {
    let file = file.to_owned();
    match ureq::Error::from(error) {
        ureq::Error::Timeout(_) => PullError::Stalled { file, got, after: patience.stall },
        _ => PullError::Cut { file, got, bytes },
    }
}

/// A tag that stands for these very bytes. A weak one may not be used to go on.
fn strong_etag(reply: &Reply) -> Option<String> {
    reply.header(ETAG).filter(|tag| tag.starts_with('"')).map(str::to_owned)
}

/// Where the range of a 206 begins: `Content-Range: bytes 5-9/10`.
fn range_start(reply: &Reply) -> Option<u64> {
    let range = reply.header(CONTENT_RANGE)?.trim().strip_prefix("bytes")?.trim_start();
    range.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_disk_that_fills_up_is_named_with_what_is_missing() {
        let mut full = Part::full();
        let expected = Expected {
            file: "m.onnx",
            url: "u".to_owned(),
            sha256: None,
            bytes: Some(3_000_000),
            announced: None,
            bytes_max: u64::MAX,
            is_page: false,
        };
        let patience = Patience::default();
        let manners = Manners { progress: &|_| {}, pause: &|_| {}, patience: &patience };
        let error = pour(&mut io::repeat(1), &mut full, &expected, &manners).unwrap_err();
        assert!(matches!(error, PullError::DiskFull { needed: 3_000_000, free: None, .. }), "{error}");
        assert!(error.to_string().contains("the disk is full: at least 2.9 MiB more are needed; free some"), "{error}");
    }
}
