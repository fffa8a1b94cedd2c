//! What can go wrong between a name and a model directory, and which of it passes by waiting.
//!
//! The texts are whole: a cause is quoted inside, not chained behind, where the advice would come before the reason.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;

use super::super::catalog::CatalogError;

/// Why a model was not pulled. The target is then as it was.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The name is not in the catalogue.
    #[error(transparent)]
    Unknown(#[from] CatalogError),

    /// What follows `hf:` is no repository.
    #[error("read {given:?}: {why}; write hf:organisation/name, or hf:organisation/name@revision")]
    BadRepository {
        /// What was given.
        given: String,
        /// What is wrong with it.
        why: &'static str,
    },

    /// The hub's address is none.
    #[error("use {given:?} as the hub: {why}; give an address like https://hub.example, with --hub-url or HF_ENDPOINT")]
    BadHub {
        /// What was given.
        given: String,
        /// What is wrong with it.
        why: String,
    },

    /// A proxy variable holds no address.
    #[error("use the proxy in {variable}: not an address this program understands; set it to http://host:port")]
    BadProxy {
        /// The variable.
        variable: &'static str,
    },

    /// The token is none.
    #[error("use the token in HF_TOKEN: it holds characters that no token has; copy it again")]
    BadToken,

    /// It would have to be fetched, and that is forbidden.
    #[error(
        "pull {name} into {}: it is not there whole, and offline mode forbids fetching it; leave out --offline, unset \
         RESIDUAL_OFFLINE, or copy the folder from a machine that has it", folder.display()
    )]
    Offline {
        /// What was asked for.
        name: String,
        /// Where it would be.
        folder: PathBuf,
    },

    /// The target holds something that was not pulled, or something else that was.
    #[error("pull into {}: the folder holds {holds}; remove it, or choose another with --output", folder.display())]
    Occupied {
        /// The target.
        folder: PathBuf,
        /// What is in it.
        holds: String,
    },

    /// The target has no name that a folder could have.
    #[error("pull into {}: not a folder's name; choose another with --output", folder.display())]
    BadTarget {
        /// The target.
        folder: PathBuf,
    },

    /// Another process pulls into the same folder.
    #[error("lock {}: another process has been pulling into this folder for {} s; wait for it, or end it and try again",
        lock.display(), waited.as_secs())]
    Locked {
        /// The lock file.
        lock: PathBuf,
        /// How long this process waited.
        waited: Duration,
    },

    /// No connection, or one that broke before an answer.
    #[error("reach {url}: {why}; check the network and the proxy variables, or name a mirror with --hub-url")]
    Unreachable {
        /// What was asked.
        url: String,
        /// What the client said.
        why: String,
    },

    /// No trust in the other side.
    #[error(
        "reach {url} securely: {why}; check the clock and the system's CA certificates (Debian: apt install \
         ca-certificates), or name a bundle of them in SSL_CERT_FILE"
    )]
    Tls {
        /// What was asked.
        url: String,
        /// What the client said.
        why: String,
    },

    /// The answer does not follow the protocol.
    #[error("read the answer of {url}: {why}; check that --hub-url names a Hugging Face hub or a mirror of one")]
    BadAnswer {
        /// What was asked.
        url: String,
        /// What is wrong with it.
        why: String,
    },

    /// Too many redirects.
    #[error("follow {url}: more than {limit} redirects; check --hub-url and the proxy")]
    RedirectLoop {
        /// Where it began.
        url: String,
        /// The limit.
        limit: usize,
    },

    /// A redirect that must not be followed.
    #[error("follow the redirect of {url}: {why}; check --hub-url")]
    BadRedirect {
        /// Who sent it.
        url: String,
        /// What is wrong with it.
        why: String,
    },

    /// There is no such thing.
    #[error("fetch {url}: not found (404{}); check the name, the revision and the file; a mirror may not hold it", detail.suffix())]
    NotFound {
        /// What was asked.
        url: String,
        /// What the hub said.
        detail: HubDetail,
    },

    /// It may not be had.
    #[error("fetch {url}: refused ({status}{}); {}", detail.suffix(), denied(*token))]
    Denied {
        /// What was asked.
        url: String,
        /// 401 or 403.
        status: u16,
        /// What the hub said.
        detail: HubDetail,
        /// Whether a token went along.
        token: Token,
    },

    /// The server cannot or will not, for now.
    #[error("fetch {url}: the server says {status}{}", retry_after.map_or(String::new(), |after| format!(
        " and asks to wait {} s", after.as_secs())))]
    Unavailable {
        /// What was asked.
        url: String,
        /// 408, 429 or 5xx.
        status: u16,
        /// How long to wait, as the server says.
        retry_after: Option<Duration>,
    },

    /// An answer that means nothing here.
    #[error("fetch {url}: unexpected status {status}{}; check --hub-url", detail.suffix())]
    Status {
        /// What was asked.
        url: String,
        /// The status.
        status: u16,
        /// What the hub said.
        detail: HubDetail,
    },

    /// The body ended early.
    #[error("fetch {file}: the connection was cut after {} of {}", ByteSize(*got), bytes.map_or("an unknown number of bytes".to_owned(), |bytes| ByteSize(bytes).to_string()))]
    Cut {
        /// The file.
        file: String,
        /// What arrived.
        got: u64,
        /// What was announced.
        bytes: Option<u64>,
    },

    /// The body stopped coming.
    #[error("fetch {file}: nothing came for {} s after {got} bytes", after.as_secs_f32())]
    Stalled {
        /// The file.
        file: String,
        /// What arrived.
        got: u64,
        /// How long it was waited for.
        after: Duration,
    },

    /// The server answered another range than was asked for.
    #[error("go on with {file}: the server sent the wrong part of it")]
    WrongRange {
        /// The file.
        file: String,
    },

    /// A Git LFS pointer in place of the file.
    #[error(
        "fetch {file} from {url}: got a Git LFS pointer, not the file it points to; the server does not serve large \
         files: use another with --hub-url"
    )]
    LfsPointer {
        /// The file.
        file: String,
        /// Where it came from.
        url: String,
    },

    /// A web page in place of the file.
    #[error(
        "fetch {file} from {url}: got a web page, not a model; a login page of the network or a proxy may be in \
         between: open the address in a browser, or use another hub with --hub-url"
    )]
    WebPage {
        /// The file.
        file: String,
        /// Where it came from.
        url: String,
    },

    /// Announced with another size than the file has.
    #[error(
        "fetch {file} from {url}: the server announces {announced} bytes, expected {expected}; it holds another version \
         of the file: use another hub with --hub-url"
    )]
    SizeMismatch {
        /// The file.
        file: String,
        /// Where it came from.
        url: String,
        /// By the server.
        announced: u64,
        /// By the catalogue or the hub.
        expected: u64,
    },

    /// More bytes than the file has, or may have.
    #[error(
        "fetch {file} from {url}: more than {bytes_max} bytes came, and no more were expected; use another hub with --hub-url"
    )]
    TooLong {
        /// The file.
        file: String,
        /// Where it came from.
        url: String,
        /// The bound.
        bytes_max: u64,
    },

    /// Other bytes than they should be.
    #[error(
        "check {file} from {url}: its sha256 is {found}, expected {expected}; it was thrown away: try again, and if it \
         repeats use another hub with --hub-url"
    )]
    WrongHash {
        /// The file.
        file: String,
        /// Where it came from.
        url: String,
        /// Of what arrived.
        found: String,
        /// Of the catalogue or the hub.
        expected: String,
    },

    /// Waiting did not help.
    #[error("{cause}; gave up at try {tries}; the same command goes on where this one stopped")]
    GaveUp {
        /// How often.
        tries: u32,
        /// The last failure.
        cause: Box<PullError>,
    },

    /// No room for it.
    #[error("write {}: the disk is full: at least {} more are needed{}; free some, or choose another folder with --output",
        path.display(), ByteSize(*needed), free.map_or(String::new(), |free| format!(", {} are free", ByteSize(free))))]
    DiskFull {
        /// What was to be written.
        path: PathBuf,
        /// What is still missing of the file, in bytes.
        needed: u64,
        /// What the file system says, in bytes, if it was asked.
        free: Option<u64>,
    },

    /// The system refused something.
    #[error("{action} {}: {why}; check that the folder may be written to, or choose another with --output", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },

    /// The repository has no model that can be served.
    #[error("find a model in {repository}: {why}; {advice}")]
    NoModel {
        /// The repository.
        repository: String,
        /// What it holds instead.
        why: String,
        /// What to do.
        advice: String,
    },

    /// The file is no ONNX model that could be served.
    #[error("read {file}: {why}")]
    NotOnnx {
        /// The file.
        file: String,
        /// What the reader said.
        why: String,
    },

    /// A name that would be written outside of the folder, or onto a file that means something in it.
    #[error(
        "read {file}: it names {name:?} for its weights, which is not a plain path below its own folder to a file of \
         weights; do not use this model"
    )]
    UnsafePath {
        /// The model.
        file: String,
        /// The name.
        name: String,
    },

    /// Weights could not be turned into a model.
    #[error("convert {file}: {why}")]
    Convert {
        /// The weights.
        file: String,
        /// What the converter said.
        why: Box<dyn StdError + Send + Sync>,
    },
}

/// Whether a request carried the user's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// There is none.
    Unset,
    /// It did.
    Sent,
    /// There is one, and it was kept back: others could read it on the way.
    Withheld,
}

fn denied(token: Token) -> &'static str {
    match token {
        Token::Unset => {
            "the repository does not exist, is private or asks for its terms to be accepted: check the name, and set \
             HF_TOKEN to a token that may read it"
        }
        Token::Sent => {
            "the token in HF_TOKEN does not open it: accept the repository's terms on its page, and check that the \
             token is valid and may read it"
        }
        Token::Withheld => {
            "HF_TOKEN was not sent, since the hub's address is not https, and over plain http it only goes to this machine \
             and through no proxy: use an https address, or name this machine's in NO_PROXY"
        }
    }
}

/// What the hub says beside a status, in `x-error-code` and `x-error-message`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HubDetail(pub Option<String>);

impl HubDetail {
    fn suffix(&self) -> String {
        self.0.as_ref().map_or(String::new(), |said| format!(", {said}"))
    }
}

impl PullError {
    /// Names the action and the path of a system error, for `map_err`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |why| Self::Io { action, path, why }
    }

    /// Whether the same request may well succeed later.
    pub(super) fn passes(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Unavailable { .. }
                | Self::Cut { .. }
                | Self::Stalled { .. }
                | Self::WrongRange { .. }
        )
    }

    /// How long the server asked to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
