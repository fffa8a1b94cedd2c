//! A whole repository of the hub: its graph with the files that go with it, or weights that are turned into one.

use std::path::{Path, PathBuf};

use super::fetch::{self, Fetched, Remote};
use super::hub::{Listing, Sibling, Source, folder_of};
use super::manners::Event;
use super::receipt::{Receipt, Record, hash_of_file};
use super::staging::Staging;
use super::{CONFIG_FILE, MODEL_FILE, Order, PREPROCESSOR_FILE, PullError, RECIPE_FILE, Wanted, external, recipe};

/// A graph at most: no protobuf message may be larger. Weights beyond that lie in files of their own.
const GRAPH_BYTES_MAX: u64 = (1 << 31) - 1;
/// A file of weights at most; the largest ResNets that were published have 4 GB.
const WEIGHTS_BYTES_MAX: u64 = 16 << 30;
/// A configuration at most; those with the names of 21,000 classes have 3 MB.
const SIDECAR_BYTES_MAX: u64 = 64 << 20;

impl Order<'_> {
    /// Whatever the repository holds at its newest commit.
    pub(super) fn pull_repository(self, staging: &Staging) -> Result<(Receipt, bool), PullError> {
        let Wanted { repository, revision, file, .. } = self.wanted;
        let url = self.client.hub().listing(repository, revision);
        let listing = Listing::parse(&url, repository, &fetch::listing(self.client, &url, &self.manners)?)?;
        if let Some(receipt) = &self.there
            && receipt.commit.as_ref() == Some(&listing.commit)
        {
            return Ok((receipt.clone(), false));
        }
        let source = listing.model(file.as_deref())?;
        let mut collected = Collected { order: &self, listing: &listing, staging, files: Vec::new() };
        let (path, fetched, converted) = match source {
            Source::Onnx(path) => {
                let fetched = collected.graph(&path)?;
                collected.sidecars(&path)?;
                (path, fetched, None)
            }
            Source::Safetensors(path) => {
                let (fetched, recipe) = collected.weights(&path)?;
                (path, fetched, recipe)
            }
        };
        let files = collected.files;
        let receipt = Receipt {
            repository: repository.clone(),
            revision: revision.clone(),
            commit: Some(listing.commit.clone()),
            source: path,
            sha256: fetched.sha256,
            licence: listing.licence.clone(),
            files: files.iter().map(|(record, _)| record.clone()).collect(),
        };
        // What the catalogue knows stands above the repository's own files, since residual.toml does.
        let known = self.wanted.entry.is_some_and(|entry| entry.preset.is_some());
        let recipe = if known { Some(recipe::text(self.wanted, &receipt)) } else { converted };
        let moves: Vec<_> = files.into_iter().map(|(record, from)| (record.path, from)).collect();
        staging.publish(&moves, recipe.as_deref(), &receipt)?;
        Ok((receipt, true))
    }
}

/// Files that lie ready, each with its place in the folder and where it is now.
struct Collected<'a> {
    order: &'a Order<'a>,
    listing: &'a Listing,
    staging: &'a Staging,
    files: Vec<(Record, PathBuf)>,
}

impl Collected<'_> {
    /// The graph as `model.onnx`, and the files that it names for its weights.
    fn graph(&mut self, path: &str) -> Result<Fetched, PullError> {
        let sibling = self.listing.find(path).ok_or_else(|| self.missing(path))?;
        let (fetched, part) = self.fetch(sibling, MODEL_FILE, GRAPH_BYTES_MAX)?;
        let bytes = std::fs::read(&part).map_err(PullError::io("read", &part))?;
        let names = external::names(path, bytes.into())?;
        self.keep(MODEL_FILE, &fetched, part);
        for name in names {
            // Relative to the graph, there as here.
            let path = format!("{}{name}", folder_of(path));
            let sibling = self.listing.find(&path).ok_or_else(|| self.missing(&path))?;
            let (fetched, part) = self.fetch(sibling, &name, WEIGHTS_BYTES_MAX)?;
            self.keep(&name, &fetched, part);
        }
        Ok(fetched)
    }

    /// Labels and recipe, where they are.
    fn sidecars(&mut self, model: &str) -> Result<(), PullError> {
        for name in [CONFIG_FILE, PREPROCESSOR_FILE] {
            if let Some(sibling) = self.listing.beside(model, name) {
                let (fetched, part) = self.fetch(sibling, name, SIDECAR_BYTES_MAX)?;
                self.keep(name, &fetched, part);
            }
        }
        Ok(())
    }

    /// Weights, turned into a graph; the recipe that the converter wrote comes along.
    fn weights(&mut self, path: &str) -> Result<(Fetched, Option<String>), PullError> {
        let sibling = self.listing.find(path).ok_or_else(|| self.missing(path))?;
        let (fetched, weights) = self.fetch(sibling, "model.safetensors", WEIGHTS_BYTES_MAX)?;
        self.sidecars(path)?;
        let config = self.files.iter().find(|(record, _)| record.path == CONFIG_FILE).map(|(_, at)| at.clone());
        let folder = self.staging.empty("converted")?;
        (self.order.manners.progress)(Event::Converting { file: path });
        let failed = |why| PullError::Convert { file: path.to_owned(), why };
        (self.order.convert)(&weights, config.as_deref(), &folder).map_err(failed)?;
        let recipe = std::fs::read_to_string(folder.join(RECIPE_FILE)).ok();
        self.keep_converted(&folder)?;
        if !self.files.iter().any(|(record, _)| record.path == MODEL_FILE) {
            return Err(failed(format!("the converter left no {MODEL_FILE}").into()));
        }
        Ok((fetched, recipe))
    }

    /// The files of a folder, but for those that the repository itself brought.
    fn keep_converted(&mut self, folder: &Path) -> Result<(), PullError> {
        for entry in std::fs::read_dir(folder).map_err(PullError::io("read", folder))? {
            let path = entry.map_err(PullError::io("read", folder))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name == RECIPE_FILE || self.files.iter().any(|(record, _)| record.path == name) {
                continue;
            }
            let bytes = path.metadata().map_err(PullError::io("read", &path))?.len();
            let sha256 = hash_of_file(&path).map_err(PullError::io("read", &path))?;
            self.keep(&name, &Fetched { bytes, sha256 }, path);
        }
        Ok(())
    }

    fn keep(&mut self, path: &str, Fetched { bytes, sha256 }: &Fetched, at: PathBuf) {
        self.files.push((Record { path: path.to_owned(), bytes: *bytes, sha256: sha256.clone() }, at));
    }

    fn fetch(&self, file: &Sibling, name: &str, bytes_max: u64) -> Result<(Fetched, PathBuf), PullError> {
        let Order { wanted, client, manners, .. } = self.order;
        let Listing { commit, .. } = self.listing;
        let remote = Remote {
            // By commit, so that all files are of one.
            url: client.hub().file(&wanted.repository, commit, &file.path),
            path: file.path.clone(),
            identity: format!("{}@{commit}/{}", wanted.repository, file.path),
            sha256: file.sha256().map(str::to_ascii_lowercase),
            bytes: file.size,
            bytes_max,
        };
        let part = self.staging.part(name);
        Ok((fetch::fetch(client, &remote, &part, manners)?, part))
    }

    fn missing(&self, path: &str) -> PullError {
        PullError::NoModel {
            repository: self.listing.repository.clone(),
            why: format!("the model keeps weights in {path}, which is not there"),
            advice: "take another revision or repository".to_owned(),
        }
    }
}
