//! One version on its way from files to an engine: opened, started, and checked that its files stayed as they were.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{Handle, Models, Source, Starter};
use crate::pipeline::Engine;
use crate::pipeline::infer::InferError;
use crate::telemetry::ModelInfo;
use crate::zoo::{self, Fingerprint, Found, Opened, ZooError};

/// Why a model is not served.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Its files cannot be found or read.
    #[error(transparent)]
    Zoo(#[from] ZooError),
    /// It cannot be run.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// No place has such a model.
    #[error("there is no model {name:?} in the places that are served")]
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// The default model is none of those that are served.
    #[error("the default model is {name:?}, but the models are {}", models.join(", "))]
    UnknownDefault {
        /// The name asked for.
        name: String,
        /// The models there are.
        models: Vec<String>,
    },
    /// A preset is for none of the models.
    #[error("a preset is set for the model {name:?}, but the models are {}", models.join(", "))]
    UnknownPresetModel {
        /// The name asked for.
        name: String,
        /// The models there are.
        models: Vec<String>,
    },
    /// Files were written while they were read, so that parts of two models may have been taken for one.
    #[error("its files changed while they were loaded; load it again when they are complete")]
    ChangedMeanwhile,
    /// A library panicked.
    #[error("loading it panicked; the message is in the log")]
    Panicked,
    /// The server stops.
    #[error("the server is shutting down")]
    Stopping,
    /// Some of its versions are served, others are not.
    #[error("{}", problems.join("; "))]
    Partly {
        /// What went wrong with each.
        problems: Vec<String>,
    },
}

impl LoadError {
    pub(super) fn unknown(name: &str) -> Self {
        Self::Unknown { name: name.to_owned() }
    }
}

/// The files of a version, as they were when it was loaded, or when that was tried.
#[derive(Debug, Clone, Default)]
pub(super) struct Tried {
    /// Files that only the open model names.
    pub(super) more: Vec<PathBuf>,
    pub(super) seen: Fingerprint,
    /// How long opening them took.
    pub(super) opening: Duration,
}

impl Tried {
    /// The same files now.
    pub(super) fn again(&self, found: &Found) -> Fingerprint {
        zoo::fingerprint(&found.files, &self.more)
    }
}

/// What settings say about models by name must be about models that are there.
pub(super) fn check_names(source: &Source, found: &[Found]) -> Result<(), LoadError> {
    let unknown = |name: &String| found.iter().all(|found| found.name != *name);
    let names = || {
        let mut names: Vec<String> = found.iter().map(|found| found.name.clone()).collect();
        names.dedup();
        names
    };
    if let Some(name) = source.default.clone().filter(unknown) {
        return Err(LoadError::UnknownDefault { name, models: names() });
    }
    match source.presets.iter().filter_map(|choice| choice.model.clone()).find(unknown) {
        Some(name) => Err(LoadError::UnknownPresetModel { name, models: names() }),
        None => Ok(()),
    }
}

/// Opens one version, and remembers how its files looked.
pub(super) fn open(source: &Source, found: &Found) -> Result<(Opened, Tried), LoadError> {
    let started = Instant::now();
    let before = zoo::fingerprint(&found.files, &[]);
    let opened = source.open(found)?;
    let more = opened.more_files.clone();
    let tried = Tried { seen: zoo::fingerprint(&found.files, &more), more, opening: started.elapsed() };
    if before == zoo::fingerprint(&found.files, &[]) { Ok((opened, tried)) } else { Err(LoadError::ChangedMeanwhile) }
}

/// Starts what was opened. Each session reads the file again, so it must still be the same one at the end.
pub(super) fn start(
    starter: &Starter,
    models: &Models,
    found: &Found,
    opened: Opened,
    tried: &Tried,
) -> Result<Handle, LoadError> {
    if models.is_stopping() {
        return Err(LoadError::Stopping);
    }
    let started = Instant::now();
    let engine = starter.start(opened)?;
    if tried.again(found) != tried.seen {
        return Err(LoadError::ChangedMeanwhile);
    }
    starter.metrics.model_info(info(&engine), tried.opening + started.elapsed());
    Ok(Handle::new(engine, models.0.retired.clone()))
}

/// What metrics announce of an engine.
pub(super) fn info(engine: &Engine) -> ModelInfo<'_> {
    let (spec, execution) = (engine.spec(), engine.execution());
    ModelInfo {
        model: &spec.name,
        version: &spec.version,
        provider: execution.provider.name(),
        precision: execution.precision.name(),
        sha256: &spec.sha256,
        queue_images_max: execution.queue_images_max,
    }
}
