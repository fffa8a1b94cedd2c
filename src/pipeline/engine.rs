//! One served model: its pool of preparers, its queue, its workers. The stages know nothing of each other; this file
//! strings them together.

mod ask;
mod health;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

pub use ask::{Ask, Counted};
pub use health::Ailment;

use super::batch::{self, Answering, BatchError, BatchLimits, Cores, Job, Lane, Place, Places, Pulse, Queue, Telling};
use super::choose::{Chooser, Chosen};
use super::infer::{
    Batch, BatchForm, BatchSupport, Contract, Element, Environment, GpuOptions, Infer, InferError, InstanceGroup,
    Instances, Layout, LayoutRequest, ModelSource, OneImage, Placement, Precision, PrecisionChoice, Provider,
    ProviderChoice, Session, Signature,
};
use super::postprocess::Labels;
use super::prepare::PreparePool;
use super::preprocess::{Recipe, RecipeSteps};
use super::proof::{self, Agreement};
use super::types::{Sample, SampleShape};
use crate::graph::Summary;
use crate::telemetry::{Counts, ModelMetrics, ServedModel, WorkDone};

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

/// How models are run.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The execution provider.
    pub provider: ProviderChoice,
    /// What it multiplies in.
    pub precision: PrecisionChoice,
    /// Settings of GPUs.
    pub gpu: GpuOptions,
    /// Cores for the layout of each model; all models share them.
    pub cores: Cores,
    /// What the settings say about instances and threads.
    pub layout: LayoutRequest,
    /// Images in one batch, at most; none leaves it to the provider.
    pub batch_images_max: Option<usize>,
    /// How long an image waits for company while cores are free.
    pub batch_delay: Duration,
    /// Places in the queue.
    pub queue_images_max: usize,
    /// How much work may wait, as time; none where nobody waits for an answer in time.
    pub queue_delay_max: Option<Duration>,
}

/// A running model. Dropping it closes the queue, lets the workers answer what waits, and joins them.
#[derive(Debug)]
pub struct Engine {
    spec: Arc<ModelSpec>,
    contract: Contract,
    execution: Execution,
    pool: PreparePool,
    queue: Arc<ModelQueue>,
    metrics: ModelMetrics,
    pulse: Arc<Pulse>,
    ailment: Mutex<Option<Ailment>>,
    served: Arc<ServedModel>,
    workers: Vec<JoinHandle<()>>,
}

/// The images of one model and the instances that compute them.
type ModelQueue = Queue<Job, Box<Lane<Model>>>;

/// Whatever computes scores: a session, or what a bench puts in its place.
pub type Model = Box<dyn Infer + Send>;

/// A model that is loaded and warm, with all that was decided about it.
pub struct Loaded {
    /// What is known about the model.
    pub spec: Arc<ModelSpec>,
    /// What it takes and returns.
    pub contract: Contract,
    /// How it runs.
    pub execution: Execution,
    /// Its instances, from the most cores to the fewest.
    pub groups: Vec<batch::Instances<Model>>,
    /// The cores that their runs take.
    pub cores: Cores,
    /// How long an image waits for company while cores are free.
    pub batch_delay: Duration,
}

/// The way a model runs, as the runtime tells it and as metadata shows it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Execution {
    /// The execution provider in use.
    pub provider: Provider,
    /// Why this one.
    pub provider_reason: String,
    /// What it multiplies in.
    pub precision: Precision,
    /// How its answers compare with those of the CPU provider in f32, where nobody named the provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<Agreement>,
    /// Nodes of the graph by the provider that computes them, as the runtime tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Instances and threads of each stage.
    #[serde(flatten)]
    pub layout: Layout,
    /// How long one image took with each number of threads, where the layout was chosen by it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub one_image: Vec<OneImage>,
    /// The instances use one copy of the weights.
    pub shared_weights: bool,
    /// Images in one batch, at most.
    pub batch_images_max: usize,
    /// How long an image waits for company while cores are free, in milliseconds.
    pub batch_delay_ms: f64,
    /// Images that may wait.
    pub queue_images_max: usize,
    /// As much as is done in this time may wait, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_delay_max_ms: Option<f64>,
}

impl Engine {
    /// Chooses the provider, loads the model into its instances, runs each once with every size of batch that it will
    /// have to be fast at, and returns when all are warm. Blocks; call it where blocking is allowed.
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
        options: &EngineOptions,
        pool: PreparePool,
        metrics: ModelMetrics,
    ) -> Result<Self, InferError> {
        if takes_pixels(&mut spec) {
            tracing::info!(
                model = spec.name,
                "the graph takes bytes: rescale, mean and std of its recipe are left out"
            );
        }
        let spec = Arc::new(spec);
        let chosen = Chooser::new(environment, &spec, source, options).choose()?;
        let Chosen { provider, precision, why, agreement, layout, images_max, contract, instances } = chosen;
        let form = contract.batch_form(spec.sample_shape, images_max);
        let Instances { mut groups, one_image, placement, shared_weights } = instances;
        warm_up(&mut groups, form, provider)?;
        let cores = cores_for(provider, &layout, options);
        let execution = Execution {
            provider,
            provider_reason: why,
            precision,
            agreement,
            placement,
            layout,
            one_image,
            shared_weights,
            batch_images_max: images_max,
            batch_delay_ms: options.batch_delay.as_secs_f64() * 1e3,
            queue_images_max: options.queue_images_max,
            queue_delay_max_ms: options.queue_delay_max.map(|delay| delay.as_secs_f64() * 1e3),
        };
        let boxed = |session: Session| -> Model { Box::new(session) };
        let groups = groups
            .into_iter()
            .map(|(group, sessions)| batch::Instances {
                cores: group.intra_op_threads,
                all: sessions.into_iter().map(boxed).collect(),
            })
            .collect();
        Self::assemble(
            Loaded { spec, contract, execution, groups, cores, batch_delay: options.batch_delay },
            pool,
            metrics,
        )
    }

    /// Puts a queue before a loaded model and workers behind it.
    ///
    /// # Errors
    /// [`InferError::Thread`] if the system gives no thread.
    pub fn assemble(loaded: Loaded, pool: PreparePool, metrics: ModelMetrics) -> Result<Self, InferError> {
        let Loaded { spec, contract, execution, groups, cores, batch_delay } = loaded;
        let images_max = execution.batch_images_max;
        let form = contract.batch_form(spec.sample_shape, images_max);
        let lane = |model: Model| Box::new(Lane { model, batch: Batch::new(form) });
        let groups: Vec<_> = groups
            .into_iter()
            .map(|group| batch::Instances {
                cores: group.cores,
                all: group.all.into_iter().map(lane).collect::<Vec<_>>(),
            })
            .collect();
        let runs_max = groups.iter().map(|group| group.all.len()).max().unwrap_or(1);
        let fixed = matches!(contract.batch, BatchSupport::Fixed { .. });
        let limits = BatchLimits { images_max, delay: batch_delay, fixed };
        let places = Places {
            images_max: execution.queue_images_max,
            delay_max: execution.queue_delay_max_ms.map(|delay| Duration::from_secs_f64(delay / 1e3)),
            rate: fastest(&execution.one_image, cores.total()),
            prepared_at_once: execution.layout.decode_threads,
        };
        let queue = Queue::new(places, limits, &cores, groups);
        // Made before its workers, so that whatever goes wrong below closes the queue and with it stops those that run.
        let pulse = Arc::new(Pulse::new(runs_max));
        let served = Arc::new(ServedModel {
            name: spec.name.clone(),
            version: spec.version.clone(),
            provider: execution.provider.name(),
        });
        let (ailment, workers) = (Mutex::default(), Vec::new());
        let mut engine = Self { spec, contract, execution, pool, queue, metrics, served, pulse, ailment, workers };
        for index in 0..runs_max {
            engine.start_worker(index)?;
        }
        Ok(engine)
    }

    /// How the answers of `provider` compare with those of the CPU provider in f32, for a model that is not started for it.
    /// Loads one instance on each in turn. Blocks.
    ///
    /// # Errors
    /// [`InferError`] if one of the two cannot run the model.
    pub fn agreement(
        environment: &Environment,
        mut spec: ModelSpec,
        source: &ModelSource,
        options: &EngineOptions,
        provider: Provider,
    ) -> Result<Agreement, InferError> {
        takes_pixels(&mut spec);
        let judge = EngineOptions { precision: PrecisionChoice::Auto, ..options.clone() };
        let judge = Chooser::new(environment, &spec, source, &judge).answers(Provider::Cpu)?;
        let answers = Chooser::new(environment, &spec, source, options).answers(provider)?;
        Ok(proof::compare(&judge, &answers))
    }

    /// Starts one worker, which serves the queue until that is closed.
    fn start_worker(&mut self, index: usize) -> Result<(), InferError> {
        let (queue, spec, metrics) = (Arc::clone(&self.queue), Arc::clone(&self.spec), self.metrics.clone());
        let pulse = Arc::clone(&self.pulse);
        let reading = self.contract.signature.output.reading();
        // Joined when the engine is dropped; the closed queue is its stop.
        let worker = std::thread::Builder::new()
            .name(format!("infer-{index}"))
            .spawn(move || {
                let answering = Answering { reading, labels: &spec.labels };
                let telling = Telling { metrics: &metrics, pulse: &pulse, worker: index };
                // Runs have a net of their own. Whatever else panics costs the images at hand, and never the worker.
                while catch_unwind(AssertUnwindSafe(|| batch::work(&queue, answering, telling))).is_err() {
                    tracing::error!(model = spec.name, "a worker panicked, which is a bug; it goes on");
                }
            })
            .map_err(InferError::thread)?;
        self.workers.push(worker);
        Ok(())
    }

    /// What is known about the model.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// What reports name it.
    #[must_use]
    pub fn served(&self) -> &Arc<ServedModel> {
        &self.served
    }

    /// What the graph takes and returns.
    #[must_use]
    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    /// How the model runs.
    #[must_use]
    pub fn execution(&self) -> &Execution {
        &self.execution
    }

    /// What was counted since the model was loaded.
    #[must_use]
    pub fn tally(&self) -> Counts {
        self.metrics.tally()
    }

    /// The same, with the model's name and how much waits.
    #[must_use]
    pub fn work_done(&self) -> WorkDone<'_> {
        let ModelSpec { name, version, .. } = &*self.spec;
        WorkDone { model: name, version, counts: self.tally(), pending: self.queue.len() }
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

/// Leaves of the recipe what is left to do for a graph that takes bytes. True if it is one.
fn takes_pixels(spec: &mut ModelSpec) -> bool {
    let takes = spec.signature.input.element == Element::U8;
    if takes {
        spec.recipe = pixels_as_they_are(&spec.recipe);
    }
    takes
}

/// The same geometry, and every pixel value as it is.
fn pixels_as_they_are(recipe: &Recipe) -> Recipe {
    let steps = RecipeSteps { rescale: 1.0, mean: [0.0; 3], std: [1.0; 3], ..recipe.steps().clone() };
    Recipe::new(steps).expect("the geometry was checked before, and these numbers are valid")
}

/// Images a second of one on each core, or of one on all, as the clock found them at the start.
#[expect(clippy::cast_precision_loss, reason = "cores are few")]
fn fastest(one_image: &[OneImage], cores: usize) -> Option<f64> {
    let rate = |one: &OneImage| cores as f64 / one.intra_op_threads as f64 / (one.milliseconds / 1e3);
    one_image.iter().map(rate).filter(|rate| rate.is_finite()).max_by(f64::total_cmp)
}

/// The cores that a model's runs take. Models share those of the machine; runs on a GPU take none of them, and whoever sets
/// instances or threads by hand has divided the machine already.
fn cores_for(provider: Provider, layout: &Layout, options: &EngineOptions) -> Cores {
    if options.layout.is_elastic() && !provider.is_gpu() {
        return options.cores.clone();
    }
    let taken = layout.instance_groups.iter().map(|group| group.instances * group.intra_op_threads);
    Cores::new(taken.max().unwrap_or(1))
}

/// Runs every instance with the sizes of batch that it must know, the instances of a group beside each other, so that the
/// first request pays for no allocation and no choice of a kernel.
fn warm_up(
    groups: &mut [(InstanceGroup, Vec<Session>)],
    form: BatchForm,
    provider: Provider,
) -> Result<(), InferError> {
    let warm = |session: &mut Session| {
        let mut batch = Batch::new(form);
        let sample = Sample::new(form.sample, vec![0.0; form.sample.len()]);
        for len in form.rows.sizes(provider) {
            batch.clear();
            (0..len).for_each(|_| batch.push(&sample));
            session.infer(&batch)?.row(0)?;
        }
        Ok(())
    };
    groups.iter_mut().try_for_each(|(_, sessions)| {
        std::thread::scope(|scope| {
            let spawn = |session| std::thread::Builder::new().spawn_scoped(scope, move || warm(session));
            let threads = sessions.iter_mut().map(spawn).collect::<Result<Vec<_>, _>>().map_err(InferError::thread)?;
            threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Err(InferError::Panicked)))
        })
    })
}
