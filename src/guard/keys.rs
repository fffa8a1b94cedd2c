//! The keys that clients show: their file, and the search for one. What is kept of a key is its digest.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use crate::edge::{Looked, Reread, SmallFile};

/// Shorter keys can be guessed. 16 characters of base64 are 96 bits.
pub const KEY_LEN_MIN: usize = 16;
/// Longer ones are files that somebody took for a key.
pub const KEY_LEN_MAX: usize = 512;
/// Keys of one file. Every request is compared with all of them, which takes about 0.1 microseconds each.
pub const KEYS_MAX: usize = 1000;
/// Of the name of a key.
const NAME_LEN_MAX: usize = 64;

/// Why a file of keys is not taken. No text holds a key, or a part of one.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It cannot be read.
    #[error("--api-keys-file {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// It holds none.
    #[error("--api-keys-file {}: it has no key; write one a line, or start without --api-keys-file", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A line that is no key.
    #[error("--api-keys-file {}, line {line}: {cause}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From one.
        line: usize,
        /// What is wrong with it.
        cause: LineError,
    },
    /// More than are compared in good time.
    #[error("--api-keys-file {}: it has more than {KEYS_MAX} keys, which is the most that is allowed", path.display())]
    TooMany {
        /// The file.
        path: PathBuf,
    },
}

/// What is wrong with one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It could be guessed.
    #[error(
        "the key has {0} characters, at least {KEY_LEN_MIN} are needed; make one with: head -c 24 /dev/urandom | base64"
    )]
    TooShort(usize),
    /// It is something else.
    #[error("the key has {0} characters, at most {KEY_LEN_MAX} are allowed")]
    TooLong(usize),
    /// Clients could not send it.
    #[error("the key has a character that a header cannot carry as a key; letters, digits and -._~+/= are allowed")]
    Character,
    /// The name before the colon.
    #[error("the name before the key must have 1 to {NAME_LEN_MAX} letters, digits, '-', '_' or '.'")]
    Name,
    /// It stands there already.
    #[error("the same key stands in line {0} already")]
    Twice(usize),
    /// Its name does.
    #[error("the same name stands in line {0} already")]
    NameTwice(usize),
    /// Not text.
    #[error("it is not UTF-8")]
    Encoding,
}

/// All keys that are taken now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRing(Vec<Key>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    digest: [u8; 32],
    name: Option<String>,
    line: usize,
}

/// A key that was shown, by what may be told of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'a>(&'a Key);

impl Found<'_> {
    /// Tells keys apart; the log is told which it was.
    pub(super) fn told(self) -> super::Client {
        tracing::debug!(line = self.0.line, name = self.0.name, "a request came with a key of ours");
        let (head, _) = self.0.digest.split_first_chunk().expect("a digest has 32 bytes");
        super::Client::Keyed(*head)
    }
}

impl KeyRing {
    /// Reads `NAME: KEY` or `KEY`, one a line; lines that begin with `#` and empty ones are left out.
    ///
    /// # Errors
    /// [`KeysError`], which names `path` and the line.
    pub fn parse(path: &Path, contents: &[u8]) -> Result<Self, KeysError> {
        let of_line = |line: usize, cause| KeysError::Line { path: path.to_owned(), line, cause };
        let mut keys: Vec<Key> = Vec::new();
        for (index, bytes) in contents.split(|&byte| byte == b'\n').enumerate() {
            let line = index + 1;
            let text = std::str::from_utf8(bytes).map_err(|_| of_line(line, LineError::Encoding))?.trim();
            // An editor may have left a byte order mark.
            let text = text.trim_start_matches('\u{feff}');
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let key = Key::parse(text, line).map_err(|cause| of_line(line, cause))?;
            if let Some(known) = keys.iter().find(|known| known.digest == key.digest) {
                return Err(of_line(line, LineError::Twice(known.line)));
            }
            if let Some(known) = keys.iter().find(|known| known.name.is_some() && known.name == key.name) {
                return Err(of_line(line, LineError::NameTwice(known.line)));
            }
            if keys.len() == KEYS_MAX {
                return Err(KeysError::TooMany { path: path.to_owned() });
            }
            keys.push(key);
        }
        if keys.is_empty() { Err(KeysError::Empty { path: path.to_owned() }) } else { Ok(Self(keys)) }
    }

    /// The key that `shown` is. All keys are compared, each whole, whichever it is: the time tells nothing.
    pub(super) fn find(&self, shown: &[u8]) -> Option<Found<'_>> {
        let digest: [u8; 32] = Sha256::digest(shown).into();
        let mut found = 0u32;
        for (number, key) in (1u32..).zip(&self.0) {
            found.conditional_assign(&number, key.digest.ct_eq(&digest));
        }
        let index = usize::try_from(found).ok()?.checked_sub(1)?;
        self.0.get(index).map(Found)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// There are none; a ring that was read has at least one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Key {
    fn parse(text: &str, line: usize) -> Result<Self, LineError> {
        // No key has a colon in it: RFC 6750 has no such character.
        let (name, key) = match text.split_once(':') {
            Some((name, key)) => (Some(name.trim()), key.trim()),
            None => (None, text),
        };
        let of_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_some_and(|name| name.is_empty() || name.len() > NAME_LEN_MAX || !name.chars().all(of_name)) {
            return Err(LineError::Name);
        }
        if !key.chars().all(|c| c.is_ascii_alphanumeric() || "-._~+/=".contains(c)) {
            return Err(LineError::Character);
        }
        match key.len() {
            short if short < KEY_LEN_MIN => Err(LineError::TooShort(short)),
            long if long > KEY_LEN_MAX => Err(LineError::TooLong(long)),
            _ => Ok(Self { digest: Sha256::digest(key).into(), name: name.map(str::to_owned), line }),
        }
    }
}

/// The keys of a file, read again when it changes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Keys(Arc<Reread<KeyRing, KeysError>>);

impl Keys {
    /// Reads the file.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn open(path: PathBuf) -> Result<Self, KeysError> {
        Reread::open(vec![path], read).map(|reread| Self(Arc::new(reread)))
    }

    /// Reads the file again; the keys there were stay if it is broken now. `at_once` where somebody asked for it.
    #[must_use]
    pub fn look(&self, at_once: bool) -> Looked<KeyRing, KeysError> {
        self.0.look(at_once)
    }

    /// The keys now.
    #[must_use]
    pub fn ring(&self) -> Arc<KeyRing> {
        self.0.current()
    }
}

fn read(files: &[SmallFile]) -> Result<KeyRing, KeysError> {
    let [file] = files else { unreachable!("keys come from one file") };
    match &file.contents {
        Ok(contents) => KeyRing::parse(&file.path, contents),
        Err(cause) => Err(KeysError::Read { path: file.path.clone(), cause: cause.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaa";
    const B: &str = "bbbb+/bbbb.~_-==";

    fn parse(text: &str) -> Result<KeyRing, KeysError> {
        KeyRing::parse(Path::new("keys"), text.as_bytes())
    }

    #[test]
    fn one_key_a_line_with_or_without_a_name() {
        let ring = parse(&format!("# ours\r\n\n{A}\r\n  mobile-app: {B}  \n")).unwrap();
        assert_eq!(ring.len(), 2);
        assert_eq!(ring.find(A.as_bytes()).unwrap().0.line, 3);
        assert_eq!(ring.find(B.as_bytes()).unwrap().0.name.as_deref(), Some("mobile-app"));
        for wrong in ["", "aaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaab", "mobile-app", "# ours"] {
            assert!(ring.find(wrong.as_bytes()).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn a_line_that_is_no_key_is_told_by_its_number_and_never_shown() {
        for (text, line, says) in [
            ("# x\nsecretsecret123", 2, "15 characters"),
            ("app: secret secret secret", 1, "a character"),
            (":secretsecretsecret", 1, "1 to 64"),
            ("two words: secretsecretsecret", 1, "1 to 64"),
            ("secretsecretsecret\nsecretsecretsecret", 2, "in line 1 already"),
            ("a: secretsecretsecret\na: othersecretsecret", 2, "same name stands in line 1"),
            ("http://secretsecretsecret@x", 1, "a character"),
            (&"s".repeat(513), 1, "513 characters"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("keys, line {line}: ")) && error.contains(says), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(parse("# nothing\n\n").unwrap_err().to_string().contains("no key; write one a line"));
        let many: String = (0..=KEYS_MAX).map(|n| format!("{n:0>20}\n")).collect();
        assert!(matches!(parse(&many), Err(KeysError::TooMany { .. })));
        let most: String = (0..KEYS_MAX).map(|n| format!("{n:0>20}\n")).collect();
        assert_eq!(parse(&most).unwrap().len(), KEYS_MAX);
    }

    #[test]
    fn what_is_kept_shows_no_key() {
        assert!(!format!("{:?}", parse(A).unwrap()).contains(A));
    }
}
