//! What a model has done since it was loaded.

use std::time::SystemTime;

use schemars::JsonSchema;
use serde::Serialize;

use super::describe::Empty;
use super::{Face, Oip, OipError, image_name};
use crate::models::Handle;
use crate::telemetry::tally::Sum;
use crate::telemetry::{Counts, Stage};

/// One version of one face of a model. Both faces show the work of the model behind them.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ModelStatistics {
    /// The face's name.
    pub name: String,
    /// The version.
    pub version: String,
    /// When the last run ended, in milliseconds since 1970; 0 if there was none.
    pub last_inference: u64,
    /// Images that were computed.
    pub inference_count: u64,
    /// Runs of the model. Images by runs is the mean batch.
    pub execution_count: u64,
    /// By outcome and by stage.
    pub inference_stats: InferenceStatistics,
    /// Of answers in parts, which there are none.
    pub response_stats: Empty,
    /// By the images in a run.
    pub batch_stats: Vec<BatchStatistics>,
    /// Memory by device; not told.
    pub memory_usage: [u8; 0],
}

/// Sums: over requests where it says how they ended, over images where it says where their time went.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct InferenceStatistics {
    /// Requests that were answered.
    pub success: Duration,
    /// Requests that got an error.
    pub fail: Duration,
    /// Images waited for a worker.
    pub queue: Duration,
    /// Images were decoded and resized.
    pub compute_input: Duration,
    /// Images were in a run; the time of the whole run counts for each of its images.
    pub compute_infer: Duration,
    /// Images were turned into scores.
    pub compute_output: Duration,
    /// Answers are never taken from a cache.
    pub cache_hit: Duration,
    /// As `cache_hit`.
    pub cache_miss: Duration,
}

/// Runs with so many images.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct BatchStatistics {
    /// Images of a run.
    pub batch_size: usize,
    /// Filling the batch is part of `compute_infer`.
    pub compute_input: Duration,
    /// The runs.
    pub compute_infer: Duration,
    /// Answering is not counted by batches.
    pub compute_output: Duration,
}

/// A number of events and their time.
#[derive(Debug, Clone, Copy, Default, Serialize, JsonSchema)]
pub struct Duration {
    /// How many.
    pub count: u64,
    /// How long together, in nanoseconds.
    pub ns: u64,
}

impl From<Sum> for Duration {
    fn from(Sum { count, time }: Sum) -> Self {
        Self { count, ns: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) }
    }
}

impl Oip {
    /// The statistics of one face, of all its versions, or of both faces of all models.
    ///
    /// # Errors
    /// [`OipError`] if the model that was named is not served.
    pub fn statistics(&self, name: Option<&str>, version: Option<&str>) -> Result<Vec<ModelStatistics>, OipError> {
        self.admit()?;
        let engines = self.models.ready();
        let faces = match (name, version.filter(|version| !version.is_empty())) {
            (Some(name), Some(version)) => vec![self.face(name, Some(version))?],
            (Some(name), None) => {
                // Every version of what the name means.
                let face = self.face(name, None)?;
                let same = engines.into_iter().filter(|engine| engine.spec().name == face.engine().spec().name);
                match face {
                    Face::Tensor(_) => same.map(Face::Tensor).collect(),
                    Face::Image(_) => same.map(Face::Image).collect(),
                }
            }
            (None, _) => {
                let taken = |name: &str| engines.iter().any(|engine| engine.spec().name == name);
                let both = |engine: &Handle| {
                    let image = (!taken(&image_name(&engine.spec().name))).then(|| Face::Image(engine.clone()));
                    [Some(Face::Tensor(engine.clone())), image]
                };
                engines.iter().flat_map(both).flatten().collect()
            }
        };
        Ok(faces.iter().map(ModelStatistics::of).collect())
    }
}

impl ModelStatistics {
    fn of(face: &Face) -> Self {
        let counts = face.engine().tally();
        let last = counts.last_run.and_then(|last| last.duration_since(SystemTime::UNIX_EPOCH).ok());
        Self {
            name: face.name(),
            version: face.engine().spec().version.clone(),
            last_inference: last.map_or(0, |last| u64::try_from(last.as_millis()).unwrap_or(u64::MAX)),
            inference_count: counts.images(),
            execution_count: counts.runs.values().map(|runs| runs.count).sum(),
            inference_stats: InferenceStatistics::of(&counts),
            response_stats: Empty {},
            batch_stats: counts.runs.iter().map(|(&images, &runs)| BatchStatistics::of(images, runs)).collect(),
            memory_usage: [],
        }
    }
}

impl InferenceStatistics {
    fn of(counts: &Counts) -> Self {
        let (decode, preprocess) = (counts.stage(Stage::Decode), counts.stage(Stage::Preprocess));
        Self {
            success: counts.ok.into(),
            fail: counts.failed.into(),
            queue: counts.stage(Stage::Queue).into(),
            // As many as were computed: a tensor passes this stage in no time.
            compute_input: Sum { count: counts.stage(Stage::Infer).count, time: decode.time + preprocess.time }.into(),
            compute_infer: counts.stage(Stage::Infer).into(),
            compute_output: counts.stage(Stage::Postprocess).into(),
            cache_hit: Duration::default(),
            cache_miss: Duration::default(),
        }
    }
}

impl BatchStatistics {
    fn of(batch_size: usize, runs: Sum) -> Self {
        let none = Duration { count: runs.count, ns: 0 };
        Self { batch_size, compute_input: none, compute_infer: runs.into(), compute_output: none }
    }
}
