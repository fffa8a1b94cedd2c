//! One served model: its pool of preparers, its queue, its workers. The stages know nothing of each other; this file
//! strings them together.

use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::oneshot;

use super::batch::{self, Answer, Answering, BatchError, BatchLimits, Job, Place, Queue};
use super::error::ClassifyError;
use super::infer::{
    Batch, BatchForm, Contract, Element, Environment, Infer as _, InferError, Layout, Load, ModelSource, Provider,
    Session, SessionOptions, Signature,
};
use super::postprocess::Labels;
use super::prepare::PreparePool;
use super::preprocess::{Recipe, RecipeSteps};
use super::types::{Sample, SampleShape};
use crate::graph::Summary;
use crate::telemetry::ModelMetrics;

/// Everything that is known about a model before it runs. Filled by `zoo`.
#[derive(Debug, Clone)]
pub struct ModelSpec {
    /// The name clients ask for.
    pub name: String,
    /// Version, as clients see it.
    pub version: String,
    /// What the graph takes and returns.
    pub signature: Signature,
    /// What network it is.
    pub summary: Arc<Summary>,
    /// Where the model comes from, for people: `built in`, or a path.
    pub origin: String,
    /// sha256 of the ONNX file, lower-case hex.
    pub sha256: String,
    /// How an image becomes a sample.
    pub recipe: Recipe,
    /// Shape of that sample.
    pub sample_shape: SampleShape,
    /// Where the recipe was read, for people: `preprocessor_config.json`.
    pub recipe_source: &'static str,
    /// The classes' names.
    pub labels: Labels,
    /// Where the names were read, for people: `config.json`, `imagenet-1k`, `index`.
    pub label_source: String,
    /// What had to be assumed, and may cost accuracy.
    pub warnings: Vec<String>,
    /// Who decided what: settings that replace what files say.
    pub notes: Vec<String>,
}

/// How a model is run.
#[derive(Debug, Clone, Copy)]
pub struct EngineOptions {
    /// The execution provider.
    pub provider: Provider,
    /// Threads of each stage.
    pub layout: Layout,
    /// Bounds of a batch.
    pub batch: BatchLimits,
    /// Places in the queue.
    pub queue_images_max: usize,
}

/// What one request wants of one image.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// Classes wanted, 1 up to the model's number of classes.
    pub top_k: usize,
    /// When the answer is too late to be of use.
    pub deadline: Instant,
}

/// A running model. Dropping it closes the queue, lets the workers answer what waits, and joins them.
#[derive(Debug)]
pub struct Engine {
    spec: Arc<ModelSpec>,
    contract: Contract,
    options: EngineOptions,
    pool: PreparePool,
    queue: Arc<Queue<Job>>,
    metrics: ModelMetrics,
    workers: Vec<JoinHandle<()>>,
}

/// How the warm-up of one worker went.
type Warmed = Result<(), InferError>;

/// The way a model runs, as metadata shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Execution {
    /// The execution provider in use.
    pub provider: Provider,
    /// Threads of each stage.
    #[serde(flatten)]
    pub layout: Layout,
    /// Images in one batch, at most.
    pub batch_images_max: usize,
    /// How long an image waits for company while a worker is idle, in milliseconds.
    pub batch_delay_ms: f64,
    /// Images that may wait.
    pub queue_images_max: usize,
}

impl Engine {
    /// Loads the model into one session a worker, runs each once with a single image and once with a full batch, and
    /// returns when all are warm. Blocks; call it where blocking is allowed.
    ///
    /// A graph that takes bytes normalises pixels itself, so of such a model's recipe only the geometry is kept: rescale,
    /// mean and std become those that change nothing.
    ///
    /// # Errors
    /// [`InferError`] if the provider or the model cannot be used, or the warm-up run fails.
    pub fn start(
        environment: &Environment,
        mut spec: ModelSpec,
        source: &ModelSource,
        mut options: EngineOptions,
        pool: PreparePool,
        metrics: ModelMetrics,
    ) -> Result<Self, InferError> {
        if spec.signature.input.element == Element::U8 {
            spec.recipe = pixels_as_they_are(&spec.recipe);
            tracing::info!(
                model = spec.name,
                "the graph takes bytes: rescale, mean and std of its recipe are left out"
            );
        }
        let spec = Arc::new(spec);
        let (contract, sessions) = Load {
            environment,
            model: &spec.name,
            source,
            signature: &spec.signature,
            sample: spec.sample_shape,
            options: SessionOptions { provider: options.provider, intra_op_threads: options.layout.intra_op_threads },
            images_max: options.batch.images_max,
            workers: options.layout.workers,
        }
        .sessions()?;
        options.batch.images_max = contract.images_max(options.batch.images_max);
        let queue = Arc::new(Queue::new(options.queue_images_max, options.batch));
        // Made before its workers, so that whatever goes wrong below closes the queue and with it stops those that run.
        let mut engine = Self { spec, contract, options, pool, queue, metrics, workers: Vec::new() };
        let (warm, warmed) = mpsc::channel();
        for (index, session) in sessions.into_iter().enumerate() {
            engine.start_worker(index, session, warm.clone())?;
        }
        drop(warm);
        for _ in 0..engine.workers.len() {
            // A worker that is gone without a word has panicked.
            warmed.recv().unwrap_or(Err(InferError::Panicked))?;
        }
        Ok(engine)
    }

    /// Starts one worker, which reports to `warm` and then serves the queue.
    fn start_worker(&mut self, index: usize, session: Session, warm: Sender<Warmed>) -> Result<(), InferError> {
        let (queue, spec, metrics) = (Arc::clone(&self.queue), Arc::clone(&self.spec), self.metrics.clone());
        let images_max = self.options.batch.images_max;
        let form = self.contract.batch_form(self.spec.sample_shape, images_max);
        let reading = self.contract.signature.output.reading();
        // Joined when the engine is dropped; the closed queue is its stop.
        let worker = std::thread::Builder::new()
            .name(format!("infer-{index}"))
            .spawn(move || {
                let answering = Answering { reading, labels: &spec.labels };
                run_worker(session, &queue, form, images_max, answering, &metrics, warm);
            })
            .map_err(|error| InferError::Model {
                model: self.spec.name.clone(),
                cause: format!("start a thread: {error}"),
            })?;
        self.workers.push(worker);
        Ok(())
    }

    /// What is known about the model.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// What the graph takes and returns.
    #[must_use]
    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    /// How the model runs.
    #[must_use]
    pub fn execution(&self) -> Execution {
        Execution {
            provider: self.options.provider,
            layout: self.options.layout,
            batch_images_max: self.options.batch.images_max,
            batch_delay_ms: self.options.batch.delay.as_secs_f64() * 1e3,
            queue_images_max: self.options.queue_images_max,
        }
    }

    /// Brings the gauges up to date. Called when metrics are asked for: workers and preparers would race to set them.
    pub fn refresh_metrics(&self) {
        self.metrics.queue_len(self.queue.len());
    }

    /// Reserves places for `n` images of one request, all or none.
    ///
    /// # Errors
    /// [`BatchError::Overloaded`].
    pub fn reserve(&self, n: usize) -> Result<Vec<Place>, BatchError> {
        self.queue.reserve(n)
    }

    /// Classifies one upload. Dropping the future is how a caller leaves: whatever stage its image is in, the next one
    /// does not begin.
    ///
    /// # Errors
    /// [`ClassifyError`] of the stage that failed.
    pub async fn classify(&self, place: Place, upload: Bytes, ask: Ask) -> Answer {
        let answer = self.run_stages(place, upload, ask).await;
        match &answer {
            Ok(scored) => self.metrics.image_ok(&scored.times),
            Err(error) => self.metrics.image_failed(error.code()),
        }
        answer
    }

    async fn run_stages(&self, place: Place, upload: Bytes, ask: Ask) -> Answer {
        let (reply, answer) = oneshot::channel();
        let started = Instant::now();
        let (pool, queue) = (self.pool.clone(), Arc::clone(&self.queue));
        let spec = Arc::clone(&self.spec);
        // One channel for both outcomes: the preparer answers if the image fails there, else the job carries the
        // channel on to a worker. That is one wake-up of the caller instead of two.
        let prepare = move || {
            if reply.is_closed() {
                return;
            }
            let prepared = match pool.prepare(&upload, &spec.recipe, started, ask.deadline) {
                Ok(prepared) => prepared,
                Err(error) => return drop(reply.send(Err(error))),
            };
            drop(upload);
            let job = Job {
                sample: prepared.sample,
                top_k: ask.top_k,
                image: prepared.image,
                times: prepared.times,
                deadline: ask.deadline,
                reply,
            };
            if let Err(job) = queue.push(place, job) {
                // Whether the caller is still there to hear it does not matter.
                let _ = job.reply.send(Err(BatchError::Closed.into()));
            }
        };
        self.pool.start(ask.deadline, prepare).await?;
        match tokio::time::timeout_at(ask.deadline.into(), answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_dropped)) => Err(ClassifyError::Lost),
            Err(_elapsed) => Err(ClassifyError::Late),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.queue.close();
        for worker in self.workers.drain(..) {
            // A worker that panicked has printed its panic; there is nothing left to stop.
            let _ = worker.join();
        }
    }
}

/// The same geometry, and every pixel value as it is.
fn pixels_as_they_are(recipe: &Recipe) -> Recipe {
    let steps = RecipeSteps { rescale: 1.0, mean: [0.0; 3], std: [1.0; 3], ..recipe.steps().clone() };
    Recipe::new(steps).expect("the geometry was checked before, and these numbers are valid")
}

fn run_worker(
    mut session: Session,
    queue: &Queue<Job>,
    form: BatchForm,
    images_max: usize,
    answering: Answering<'_>,
    metrics: &ModelMetrics,
    warm: Sender<Warmed>,
) {
    let mut batch = Batch::new(form);
    let result = warm_up(&mut session, &mut batch, form.sample, images_max);
    let failed = result.is_err();
    // The engine may have given up already; then the queue is closed and this thread ends below.
    let _ = warm.send(result);
    drop(warm);
    if !failed {
        batch::work(queue, &mut session, batch, answering, metrics);
    }
}

/// Runs a single image and a full batch, so that the first request pays for no allocation and no kernel choice.
fn warm_up(session: &mut Session, batch: &mut Batch, shape: SampleShape, images_max: usize) -> Warmed {
    let sample = Sample::new(shape, vec![0.0; shape.len()]);
    for len in [1, images_max] {
        batch.clear();
        (0..len).for_each(|_| batch.push(&sample));
        session.infer(batch)?.row(0)?;
    }
    Ok(())
}
