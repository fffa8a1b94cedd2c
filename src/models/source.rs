//! What is to be served, and what it takes to start an engine for it.

use std::path::PathBuf;

use crate::pipeline::infer::{Environment, InferError};
use crate::pipeline::{Engine, EngineOptions, PreparePool};
use crate::telemetry::Metrics;
use crate::zoo::{self, Choices, Found, Listing, Opened, PresetChoice, Wanted, ZooError};

/// The places where models are looked for.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// A directory whose entries are models.
    pub repository: Option<PathBuf>,
    /// Models named one by one.
    pub wanted: Vec<Wanted>,
    /// The model of requests that name none.
    pub default: Option<String>,
    /// Recipes that were chosen by hand.
    pub presets: Vec<PresetChoice>,
}

/// Starts engines: the loaded runtime, the layout of the threads, and what all engines share.
#[derive(Debug, Clone)]
pub struct Starter {
    /// The loaded runtime.
    pub environment: Environment,
    /// How each model is run.
    pub options: EngineOptions,
    /// Where images are prepared.
    pub pool: PreparePool,
    /// Where engines count.
    pub metrics: Metrics,
}

impl Source {
    pub(super) fn find(&self) -> Result<Listing, ZooError> {
        zoo::find(self.repository.as_deref(), &self.wanted)
    }

    /// What was chosen for one model: the last word for it alone, else for all.
    fn choices(&self, name: &str) -> Choices {
        let own = self.presets.iter().rev().find(|choice| choice.model.as_deref() == Some(name));
        let all = || self.presets.iter().rev().find(|choice| choice.model.is_none());
        Choices { preset: own.or_else(all).map(|choice| choice.preset) }
    }

    /// Opens one of the models that were found.
    pub(super) fn open(&self, found: &Found) -> Result<Opened, ZooError> {
        zoo::open(found, &self.choices(&found.name))
    }
}

impl Starter {
    /// Loads and warms a model. Blocks.
    ///
    /// # Errors
    /// [`InferError`] if the model cannot be run.
    pub fn start(&self, Opened { spec, source, more_files: _ }: Opened) -> Result<Engine, InferError> {
        for warning in &spec.warnings {
            tracing::warn!("model {} version {}: {warning}", spec.name, spec.version);
        }
        for note in &spec.notes {
            tracing::info!("model {} version {}: {note}", spec.name, spec.version);
        }
        let metrics = self.metrics.model(&spec.name, &spec.version);
        Engine::start(&self.environment, spec, &source, &self.options, self.pool.clone(), metrics)
    }
}
