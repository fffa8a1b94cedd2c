//! From a name to a model directory: which files it takes, whether they are there already, fetching them, and putting
//! them in place whole.
//!
//! Nothing here prints; what goes on is told as [`Event`]s.

mod client;
mod error;
mod external;
mod fetch;
mod hub;
mod manners;
mod part;
mod proxy;
mod receipt;
mod recipe;
mod repository;
mod staging;
mod wanted;

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use error::{HubDetail, PullError, Token};
pub use hub::{DEFAULT_HUB, Hub};
pub use manners::{Event, Patience};
pub use proxy::Proxies;
pub use receipt::{Receipt, Record};
pub use wanted::Wanted;

use super::catalog::Pinned;
use client::Client;
use fetch::Remote;
use manners::Manners;
use staging::Staging;

/// Files of a model directory.
const MODEL_FILE: &str = "model.onnx";
const CONFIG_FILE: &str = "config.json";
const PREPROCESSOR_FILE: &str = "preprocessor_config.json";
const RECIPE_FILE: &str = "residual.toml";

/// Turns weights, with their configuration if there is one, into a model directory: `(weights, config, folder)`.
pub type Convert<'a> = dyn Fn(&Path, Option<&Path>, &Path) -> Result<(), Box<dyn StdError + Send + Sync>> + 'a;

/// How to pull.
pub struct Options<'a> {
    /// Where from.
    pub hub: Hub,
    /// For repositories that are not open to all. Only ever sent to the hub itself.
    pub token: Option<String>,
    /// How to get there.
    pub proxies: Proxies,
    /// How long to try.
    pub patience: Patience,
    /// Never use the network: what is there is checked, and what is not is an error.
    pub offline: bool,
    /// Fetch again what is there.
    pub force: bool,
    /// Is told what goes on.
    pub progress: &'a dyn Fn(Event<'_>),
    /// Waits. A parameter, so that tests need not.
    pub pause: &'a dyn Fn(Duration),
    /// Makes a graph of weights alone.
    pub convert: &'a Convert<'a>,
}

/// A model that is in its folder, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The folder, absolute: what `--model` takes.
    pub folder: PathBuf,
    /// What is in it.
    pub receipt: Receipt,
    /// Whether this call brought it; otherwise it was there.
    pub fetched: bool,
}

/// Brings what is wanted into `folder`, unless it is there undamaged.
///
/// # Errors
/// [`PullError`]. The folder is then as it was.
pub fn pull(wanted: &Wanted, folder: &Path, options: &Options<'_>) -> Result<Pulled, PullError> {
    let folder = std::path::absolute(folder).map_err(PullError::io("find", folder))?;
    let present = |receipt: Receipt| Pulled { folder: folder.clone(), receipt, fetched: false };
    // One file with a known hash cannot have changed since, and offline nobody could say so.
    let settled = |receipt: &Receipt| {
        let unchanging = wanted.pinned().is_some_and(|pinned| pinned.sha256 == receipt.sha256);
        unchanging && !options.force || options.offline
    };
    if let Some(receipt) = existing(wanted, &folder)?.filter(|receipt| settled(receipt) && receipt.holds(&folder)) {
        return Ok(present(receipt));
    }
    if options.offline {
        return Err(PullError::Offline { name: wanted.to_string(), folder });
    }
    let client = Client::new(options.hub.clone(), options.token.clone(), options.proxies.clone(), &options.patience)?;
    let mut staging = Staging::open(&folder, options.patience.lock, || (options.progress)(Event::Waiting))?;
    // Another process may have brought it while this one waited.
    let there = existing(wanted, &folder)?.filter(|receipt| !options.force && receipt.holds(&folder));
    let order = Order { wanted, client: &client, manners: manners(options), convert: options.convert, there };
    let receipt = match wanted.pinned() {
        Some(pinned) => order.pull_pinned(pinned, &staging),
        None => order.pull_repository(&staging),
    };
    if matches!(receipt, Err(PullError::GaveUp { .. })) {
        staging.keep();
    }
    receipt.map(|(receipt, fetched)| Pulled { folder, receipt, fetched })
}

fn manners<'a>(options: &'a Options<'_>) -> Manners<'a> {
    Manners { progress: options.progress, pause: options.pause, patience: &options.patience }
}

/// What is wanted, and all it takes to bring it.
struct Order<'a> {
    wanted: &'a Wanted,
    client: &'a Client,
    manners: Manners<'a>,
    convert: &'a Convert<'a>,
    /// What is there already, undamaged.
    there: Option<Receipt>,
}

impl Order<'_> {
    /// One file of the catalogue, with the recipe that goes with it.
    fn pull_pinned(self, pinned: &Pinned, staging: &Staging) -> Result<(Receipt, bool), PullError> {
        let Wanted { repository, revision, .. } = self.wanted;
        if let Some(receipt) = self.there.filter(|receipt| receipt.sha256 == pinned.sha256) {
            return Ok((receipt, false));
        }
        let remote = Remote {
            url: self.client.hub().file(repository, revision, &pinned.file),
            path: pinned.file.clone(),
            identity: pinned.sha256.clone(),
            sha256: Some(pinned.sha256.clone()),
            bytes: Some(pinned.bytes),
            bytes_max: pinned.bytes,
        };
        let part = staging.part(MODEL_FILE);
        let fetched = fetch::fetch(self.client, &remote, &part, &self.manners)?;
        let receipt = Receipt {
            repository: repository.clone(),
            revision: revision.clone(),
            commit: None,
            source: pinned.file.clone(),
            sha256: fetched.sha256.clone(),
            licence: self.wanted.entry.and_then(|entry| entry.licence.clone()),
            files: vec![Record { path: MODEL_FILE.to_owned(), bytes: fetched.bytes, sha256: fetched.sha256 }],
        };
        let recipe = recipe::text(self.wanted, &receipt);
        staging.publish(&[(MODEL_FILE.to_owned(), part)], Some(&recipe), &receipt)?;
        Ok((receipt, true))
    }
}

/// The receipt of what is in `folder`, if it is what is wanted; nothing if nothing is there.
fn existing(wanted: &Wanted, folder: &Path) -> Result<Option<Receipt>, PullError> {
    let occupied = |holds: String| Err(PullError::Occupied { folder: folder.to_path_buf(), holds });
    match folder.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(PullError::io("read", folder)(why)),
        Ok(metadata) if !metadata.is_dir() => return occupied("a file of that name".to_owned()),
        Ok(_) => {}
    }
    match Receipt::read(folder) {
        None if staging::is_empty(folder)? => Ok(None),
        None => occupied("files that were not pulled".to_owned()),
        Some(receipt) if wanted.is_in(&receipt) => Ok(Some(receipt)),
        Some(Receipt { repository, revision, source, .. }) => {
            occupied(format!("{source} of {repository} at {revision}"))
        }
    }
}
