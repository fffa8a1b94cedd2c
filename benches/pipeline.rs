//! What the server does around the model: the batching policy, the queue, the answers, and the whole way of an image with a
//! model that computes nothing, so that everything else is what is measured. `cargo bench --bench pipeline`.
//!
//! The last group runs the built-in model for real, in process: what the same images could be served at if HTTP were free.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::StreamExt as _;
use residual::pipeline::batch::{BatchLimits, Cores, Group, Instances, Queue, Room, Taken, Waiting, decide};
use residual::pipeline::decode::DecodeOptions;
use residual::pipeline::decode::budget::MemoryBudget;
use residual::pipeline::infer::{
    Batch, BatchSupport, Contract, Infer, InferError, LayoutRequest, Precision, Provider, RawScores, Reading, Scores,
    layout,
};
use residual::pipeline::postprocess::{self, Labels};
use residual::pipeline::{Ask, Engine, Execution, Loaded, Model, PreparePool};
use residual::telemetry::Metrics;
use residual::zoo::{self, Choices, Wanted};

/// Images that are under way at the same time.
const CALLERS: [usize; 2] = [1, 64];

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn policy(c: &mut Criterion) {
    let limits = BatchLimits { images_max: 8, delay: Duration::ZERO, fixed: false };
    let groups = [Group { cores: 16, idle: 1 }, Group { cores: 4, idle: 4 }, Group { cores: 1, idle: 16 }];
    c.bench_function("decide", |b| {
        b.iter(|| {
            for len in 0..32 {
                let room = Room { free: len % 17, total: 16 };
                black_box(decide(black_box(len), 0, Duration::ZERO, &limits, room, &groups));
            }
        });
    });
}

struct Item(Instant);

impl Waiting for Item {
    fn caller_left(&self) -> bool {
        false
    }

    fn deadline(&self) -> Instant {
        self.0
    }
}

/// Places, pushes and takes on one thread: what the queue itself costs an image, without waking anybody.
fn queue(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue");
    let far = Instant::now() + Duration::from_secs(3600);
    for images in [1, 8, 64] {
        group.throughput(Throughput::Elements(images));
        group.bench_with_input(BenchmarkId::from_parameter(images), &images, |b, &images| {
            let limits = BatchLimits { images_max: 8, delay: Duration::ZERO, fixed: false };
            let instances = vec![Instances { cores: 2, all: vec![()] }, Instances { cores: 1, all: vec![(), ()] }];
            let queue = Queue::new(64, limits, &Cores::new(2), instances);
            let mut taken = Taken::default();
            b.iter(|| {
                for place in queue.reserve(usize::try_from(images).expect("64 at most")).expect("an empty queue") {
                    assert!(queue.push(place, Item(far)).is_ok());
                }
                while !queue.is_empty() {
                    let run = queue.take(&mut taken).expect("an open queue");
                    queue.give_back(run);
                }
            });
        });
    }
    group.finish();
}

fn answers(c: &mut Criterion) {
    let mut group = c.benchmark_group("postprocess");
    for classes in [10u16, 1000, 21_843] {
        let row: Vec<f32> = (0..classes).map(|class| f32::from(class.wrapping_mul(7919) % 1000) / 100.0).collect();
        let labels = Labels::new((0..classes).map(|class| format!("class {class}")));
        let reading = Reading { scores: Scores::Logits, background: false };
        group.bench_function(format!("top 5 of {classes}"), |b| {
            b.iter(|| postprocess::classify(black_box(&row), reading, &labels, 5));
        });
    }
    group.finish();
}

/// Returns zeros at once.
#[derive(Debug)]
struct Nothing {
    classes: usize,
}

impl Infer for Nothing {
    fn infer(&mut self, batch: &Batch) -> Result<RawScores, InferError> {
        let shape = [batch.rows(), self.classes].map(|size| i64::try_from(size).expect("small"));
        RawScores::new(&shape, vec![0.0; batch.rows() * self.classes], batch.rows(), self.classes)
    }
}

fn pool() -> PreparePool {
    PreparePool::new(cores(), Arc::new(MemoryBudget::new(1 << 30)), DecodeOptions::default())
}

/// The built-in model's engine, with nothing in the model's place.
fn engine_of_nothing() -> Engine {
    let spec = zoo::open_newest(&Wanted::builtin(), &Choices::default()).expect("the built-in model").spec;
    let layout = layout(cores(), Provider::Cpu, LayoutRequest::default());
    let model = || -> Model { Box::new(Nothing { classes: spec.labels.len() }) };
    let groups = layout
        .instance_groups
        .iter()
        .map(|group| Instances { cores: group.intra_op_threads, all: (0..group.instances).map(|_| model()).collect() });
    let loaded = Loaded {
        contract: Contract {
            signature: spec.signature.clone(),
            batch: BatchSupport::Free,
            buckets: false,
            mixes: false,
        },
        groups: groups.collect(),
        execution: Execution {
            provider: Provider::Cpu,
            provider_reason: "a bench".to_owned(),
            precision: Precision::F32,
            agreement: None,
            placement: None,
            layout: layout.clone(),
            one_image: Vec::new(),
            shared_weights: false,
            batch_images_max: 8,
            batch_delay_ms: 0.0,
            queue_images_max: 256,
            queue_delay_max_ms: None,
        },
        cores: Cores::new(cores()),
        batch_delay: Duration::ZERO,
        spec: Arc::new(spec),
    };
    Engine::assemble(loaded, pool(), Metrics::new().model("nothing", "1")).expect("threads")
}

/// The built-in model as `residual serve` runs it by default.
fn engine_of_the_builtin_model() -> Engine {
    let settings = residual::config::Settings::defaults();
    residual::serve::engine(
        &Wanted::builtin(),
        &Choices::default(),
        &settings.runtime,
        &settings.batch,
        &settings.image,
    )
    .expect("the built-in model")
}

/// The committed photos.
fn uploads() -> [(&'static str, Bytes); 2] {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read =
        |path: &str| Bytes::from(std::fs::read(folder.join(path)).unwrap_or_else(|error| panic!("{path}: {error}")));
    [("451x300 JPEG", read("tests/golden/inputs/cat.jpg")), ("600x400 JPEG", read("tests/golden/inputs/coffee.jpg"))]
}

fn whole_way(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores())
        .max_blocking_threads(cores() + 2)
        .enable_all()
        .build()
        .expect("an async runtime");
    for (name, make) in [
        ("pipeline/no model", engine_of_nothing as fn() -> Engine),
        ("pipeline/built-in model", engine_of_the_builtin_model),
    ] {
        let mut group = c.benchmark_group(name);
        group.sample_size(20).measurement_time(Duration::from_secs(4));
        let engine = make();
        for (photo, upload) in uploads() {
            for callers in CALLERS {
                group.throughput(Throughput::Elements(callers as u64 * 4));
                group.bench_function(format!("{photo}, {callers} at once"), |b| {
                    b.to_async(&runtime).iter(|| run(&engine, &upload, callers * 4, callers));
                });
            }
        }
        group.finish();
    }
}

/// Classifies `images` of the same upload, `at_once` of them at the same time.
async fn run(engine: &Engine, upload: &Bytes, images: usize, at_once: usize) {
    let one = || async {
        let place = engine.reserve(1).expect("a free place").pop().expect("one place");
        let ask = Ask::new(5, Instant::now() + Duration::from_secs(60));
        engine.classify(place, upload.clone(), ask).await.expect("an answer")
    };
    futures_util::stream::iter(0..images).map(|_| one()).buffer_unordered(at_once).for_each(|_| async {}).await;
}

criterion_group!(benches, policy, queue, answers, whole_way);
criterion_main!(benches);
