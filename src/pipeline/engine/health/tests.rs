use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;

use super::*;
use crate::pipeline::Model;
use crate::pipeline::batch::{Cores, Instances};
use crate::pipeline::decode::DecodeOptions;
use crate::pipeline::decode::budget::MemoryBudget;
use crate::pipeline::engine::{Execution, Loaded};
use crate::pipeline::infer::{
    Batch, BatchSupport, Contract, Infer, InferError, LayoutRequest, Precision, Provider, RawScores, Values, layout,
};
use crate::pipeline::prepare::PreparePool;
use crate::telemetry::Metrics;
use crate::zoo::{self, Choices, Wanted};

const LIMIT: Duration = Duration::from_secs(30);

/// What the model does with its runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Answers,
    Fails,
    /// Only for samples that are not the warm-up's.
    FailsForClients,
    Hangs,
}

#[derive(Debug)]
struct Shared {
    mode: Mutex<Mode>,
    changed: Condvar,
    /// A run has begun to hang.
    hanging: mpsc::Sender<()>,
}

impl Shared {
    fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
        self.changed.notify_all();
    }
}

#[derive(Debug)]
struct Fake(Arc<Shared>);

impl Infer for Fake {
    fn infer(&mut self, batch: &Batch) -> Result<RawScores, InferError> {
        let Values::F32(values) = batch.values() else { panic!("an f32 batch") };
        let mut mode = self.0.mode.lock().unwrap();
        if *mode == Mode::Hangs {
            self.0.hanging.send(()).unwrap();
        }
        while *mode == Mode::Hangs {
            mode = self.0.changed.wait(mode).unwrap();
        }
        match *mode {
            Mode::Fails => Err(InferError::Run { batch_len: batch.len(), cause: "scripted".to_owned() }),
            Mode::FailsForClients if values.iter().any(|value| *value != 0.0) => Err(InferError::Panicked),
            _ => RawScores::new(&[1, 10], vec![0.0; 10], 1, 10),
        }
    }
}

/// An engine with one instance of a fake model, and what tells that model what to do.
fn engine() -> (Arc<Engine>, Arc<Shared>, mpsc::Receiver<()>) {
    let (hanging, begun) = mpsc::channel();
    let shared = Arc::new(Shared { mode: Mutex::new(Mode::Answers), changed: Condvar::new(), hanging });
    let spec = zoo::open_newest(&Wanted::builtin(), &Choices::default()).unwrap().spec;
    let model: Model = Box::new(Fake(Arc::clone(&shared)));
    let loaded = Loaded {
        contract: Contract {
            signature: spec.signature.clone(),
            batch: BatchSupport::Free,
            buckets: false,
            mixes: false,
        },
        execution: Execution {
            provider: Provider::Cpu,
            provider_reason: "a test".to_owned(),
            precision: Precision::F32,
            agreement: None,
            placement: None,
            layout: layout(1, Provider::Cpu, LayoutRequest::default()),
            one_image: Vec::new(),
            shared_weights: false,
            batch_images_max: 1,
            batch_delay_ms: 0.0,
            queue_images_max: 16,
            queue_delay_max_ms: None,
        },
        groups: vec![Instances { cores: 1, all: vec![model] }],
        cores: Cores::new(1),
        batch_delay: Duration::ZERO,
        spec: Arc::new(spec),
    };
    let pool = PreparePool::new(1, Arc::new(MemoryBudget::new(1 << 20)), DecodeOptions::default());
    (Arc::new(Engine::assemble(loaded, pool, Metrics::new().model("fake", "1")).unwrap()), shared, begun)
}

/// Asks about a sample of ones.
async fn ask(engine: &Engine) -> Result<(), ClassifyError> {
    let values: Bytes = 1.0_f32.to_le_bytes().repeat(engine.spec().sample_shape.len()).into();
    let sample = engine.sample(&values).unwrap();
    let place = engine.reserve(1).unwrap().pop().unwrap();
    engine.infer(place, sample, 1, Instant::now() + LIMIT).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_fails_every_run_is_ill_until_it_answers_again() {
    let (engine, model, _) = engine();
    model.set(Mode::Fails);
    for _ in 1..FAILURES_MAX {
        assert!(ask(&engine).await.is_err());
        assert_eq!(engine.check_up(LIMIT).await, None);
    }
    assert!(ask(&engine).await.is_err());
    let found = engine.check_up(LIMIT).await;
    assert!(matches!(&found, Some(Ailment::Fails { cause, .. }) if cause.contains("scripted")), "{found:?}");
    assert_eq!(engine.ailment(), found);
    model.set(Mode::Answers);
    assert_eq!(engine.check_up(LIMIT).await, None);
    assert_eq!(engine.ailment(), None);
    assert_eq!(ask(&engine).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_send_what_no_model_could_answer_make_none_ill() {
    let (engine, model, _) = engine();
    model.set(Mode::FailsForClients);
    for _ in 0..3 * FAILURES_MAX {
        assert_eq!(ask(&engine).await, Err(ClassifyError::Infer(InferError::Panicked)));
    }
    assert_eq!(engine.check_up(LIMIT).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_does_not_end_makes_its_model_ill_until_it_does() {
    let (engine, model, begun) = engine();
    model.set(Mode::Hangs);
    let asked = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { ask(&engine).await }
    });
    tokio::task::spawn_blocking(move || begun.recv()).await.unwrap().unwrap();
    let now = Instant::now();
    assert_eq!(engine.check_up_at(now, LIMIT).await, None);
    // It is asked to end now, and has a moment to do so.
    assert_eq!(engine.check_up_at(now + LIMIT * 2, LIMIT).await, None);
    let found = engine.check_up_at(now + Duration::from_secs(3600), LIMIT).await;
    assert!(matches!(found, Some(Ailment::Hangs { seconds: 3600.. })), "{found:?}");
    model.set(Mode::Answers);
    // It came to an answer at last, and to nobody's harm.
    assert_eq!(asked.await.unwrap(), Ok(()));
    assert_eq!(engine.check_up(LIMIT).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_nobody_takes_make_their_model_ill() {
    let (engine, model, begun) = engine();
    model.set(Mode::Hangs);
    let ask = || {
        let engine = Arc::clone(&engine);
        tokio::spawn(async move { ask(&engine).await })
    };
    let first = ask();
    tokio::task::spawn_blocking(move || begun.recv()).await.unwrap().unwrap();
    let second = ask();
    while engine.queue.is_empty() {
        tokio::task::yield_now().await;
    }
    // As it is seen where the run itself is not: a worker that is gone leaves no trace of its run.
    assert!(!engine.pulse.end(0));
    let found = engine.check_up_at(Instant::now() + LIMIT * 2, LIMIT).await;
    assert!(matches!(found, Some(Ailment::Unattended { seconds: 30.. })), "{found:?}");
    model.set(Mode::Answers);
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (Ok(()), Ok(())));
    assert_eq!(engine.check_up(LIMIT).await, None);
}
