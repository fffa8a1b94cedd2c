//! Models that compute nothing, for tests and fuzzing of what stands before a model. Small, so that a tensor is a short text.

use std::sync::Arc;
use std::time::Duration;

use super::handle::Retired;
use super::roster::{Entry, Roster};
use super::{Handle, Models};
use crate::pipeline::batch::{Cores, Instances};
use crate::pipeline::infer::{
    Batch, BatchSupport, Contract, Element, Infer, InferError, LayoutRequest, Precision, Provider, RawScores,
    TensorLayout, layout,
};
use crate::pipeline::preprocess::{Recipe, RecipeSteps, Resize};
use crate::pipeline::{Engine, Execution, Loaded, Model, PreparePool, SampleShape};
use crate::telemetry::Metrics;
use crate::zoo::{self, Choices, Version, Wanted};

/// Height and width of what they take.
pub(crate) const SHAPE: SampleShape = SampleShape { height: 2, width: 3 };

/// Returns the same scores for every image.
#[derive(Debug)]
struct Nothing {
    classes: usize,
}

impl Infer for Nothing {
    fn infer(&mut self, batch: &Batch) -> Result<RawScores, InferError> {
        let rows = batch.rows();
        let shape = [rows, self.classes].map(|size| i64::try_from(size).expect("a batch is small"));
        RawScores::new(&shape, vec![0.5; rows * self.classes], rows, self.classes)
    }
}

/// Two models: `floats` takes `[N,3,2,3]` f32, and is the default; `bytes` takes `[N,2,3,3]` u8.
pub(crate) fn models(pool: &PreparePool, metrics: &Metrics) -> Models {
    let models = Models::default();
    let mut roster = Roster { default: Some("floats".to_owned()), begun: true, ..Roster::default() };
    for (name, element, layout) in
        [("floats", Element::F32, TensorLayout::Nchw), ("bytes", Element::U8, TensorLayout::Nhwc)]
    {
        let handle = Handle::new(engine(name, element, layout, pool.clone(), metrics), models.0.retired.clone());
        *roster.entry(name, &Version::first()) = Entry { handle: Some(handle), ..Entry::default() };
    }
    models.publish(|now| *now = roster);
    models
}

/// One engine, alone.
pub(crate) fn handle(element: Element, layout: TensorLayout, pool: PreparePool) -> Handle {
    Handle::new(engine("model", element, layout, pool, &Metrics::new()), Retired::default())
}

fn engine(name: &str, element: Element, order: TensorLayout, pool: PreparePool, metrics: &Metrics) -> Engine {
    let mut spec = zoo::open_newest(&Wanted::builtin(), &Choices::default()).expect("the built-in model").spec;
    let SampleShape { height, width } = SHAPE;
    let steps = RecipeSteps { resize: Resize::Exact { width, height }, crop: None, ..spec.recipe.steps().clone() };
    spec.name = name.to_owned();
    spec.recipe = Recipe::new(steps).expect("a published recipe at another size");
    spec.sample_shape = SHAPE;
    let [height, width] = [height, width].map(i64::from);
    spec.signature.input.shape = match order {
        TensorLayout::Nchw => [-1, 3, height, width],
        TensorLayout::Nhwc => [-1, height, width, 3],
    };
    (spec.signature.input.layout, spec.signature.input.element) = (order, element);
    let layout = layout(1, Provider::Cpu, LayoutRequest::default());
    let model: Model = Box::new(Nothing { classes: spec.labels.len() });
    let execution = Execution {
        provider: Provider::Cpu,
        provider_reason: "there is no other".to_owned(),
        precision: Precision::F32,
        agreement: None,
        placement: None,
        layout,
        one_image: Vec::new(),
        shared_weights: false,
        batch_images_max: 4,
        batch_delay_ms: 0.0,
        queue_delay_max_ms: None,
        queue_images_max: 16,
    };
    let contract =
        Contract { signature: spec.signature.clone(), batch: BatchSupport::Free, buckets: false, mixes: false };
    let loaded = Loaded {
        spec: Arc::new(spec),
        contract,
        execution,
        groups: vec![Instances { cores: 1, all: vec![model] }],
        cores: Cores::new(1),
        batch_delay: Duration::ZERO,
    };
    Engine::assemble(loaded, pool, metrics.model(name, "1")).expect("the system gives a thread")
}
