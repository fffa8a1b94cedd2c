use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::*;
use crate::pipeline::batch::{Answer, BatchLimits, Cores, Instances, Row, RowOf};
use crate::pipeline::error::ClassifyError;
use crate::pipeline::infer::{BatchForm, Element, RawScores, Rows, Scores, TensorLayout, Values};
use crate::pipeline::types::{ImageFormat, ImageInfo, SampleShape};
use crate::telemetry::Metrics;

const SHAPE: SampleShape = SampleShape { height: 1, width: 1 };

/// Returns for each sample the logits `[0, first value]`, or what the script says instead.
#[derive(Debug)]
struct Fake {
    script: Arc<Mutex<VecDeque<Step>>>,
    batches: Arc<Mutex<Vec<usize>>>,
}

#[derive(Debug)]
enum Step {
    Work,
    Fail(InferError),
    Panic,
    NanFor(usize),
}

impl Infer for Fake {
    fn infer(&mut self, batch: &Batch) -> Result<RawScores, InferError> {
        self.batches.lock().unwrap().push(batch.len());
        let Values::F32(samples) = batch.values() else { panic!("an f32 batch") };
        let mut values: Vec<f32> = samples.chunks(3).flat_map(|sample| [0.0, sample[0]]).collect();
        let step = self.script.lock().unwrap().pop_front();
        match step {
            None | Some(Step::Work) => {}
            Some(Step::Fail(error)) => return Err(error),
            Some(Step::Panic) => panic!("scripted"),
            Some(Step::NanFor(index)) => values[index * 2] = f32::NAN,
        }
        RawScores::new(&[i64::try_from(batch.rows()).unwrap(), 2], values, batch.rows(), 2)
    }
}

struct Bench {
    queue: Arc<Queue<Job, Box<Lane<Fake>>>>,
    script: Arc<Mutex<VecDeque<Step>>>,
    batches: Arc<Mutex<Vec<usize>>>,
    callers: Vec<oneshot::Receiver<Answer>>,
}

impl Bench {
    fn new(images_max: usize) -> Self {
        Self::with_rows(images_max, Rows::UpTo(images_max))
    }

    fn with_rows(images_max: usize, rows: Rows) -> Self {
        let limits = BatchLimits { images_max, delay: Duration::ZERO, fixed: false };
        let (script, batches) = (Arc::default(), Arc::default());
        let model = Fake { script: Arc::clone(&script), batches: Arc::clone(&batches) };
        let batch = Batch::new(BatchForm { sample: SHAPE, layout: TensorLayout::Nchw, element: Element::F32, rows });
        let lane = Box::new(Lane { model, batch });
        let queue = Queue::new(64, limits, &Cores::new(1), vec![Instances { cores: 1, all: vec![lane] }]);
        Self { queue, script, batches, callers: Vec::new() }
    }

    fn submit(&mut self, first_value: f32, deadline: Instant) {
        let (reply, caller) = oneshot::channel();
        let job = Job {
            sample: Sample::new(SHAPE, vec![first_value; 3]),
            times: StageTimes::default(),
            deadline,
            reply: Reply::Classes {
                top_k: 1,
                reading: None,
                image: ImageInfo { width: 1, height: 1, format: ImageFormat::Png },
                to: reply,
            },
        };
        let place = self.queue.reserve(1).unwrap().pop().unwrap();
        assert!(self.queue.push(place, job).is_ok());
        self.callers.push(caller);
    }

    /// Lets one worker answer everything, and returns the answers and the batch sizes.
    fn run(&mut self, script: impl IntoIterator<Item = Step>) -> (Vec<Result<Answer, TryRecvError>>, Vec<usize>) {
        self.queue.close();
        self.script.lock().unwrap().extend(script);
        let answering = Answering {
            reading: Reading { scores: Scores::Logits, background: false },
            labels: &Labels::new(["zero", "one"]),
        };
        let (metrics, pulse) = (Metrics::new().model("fake", "1"), Pulse::new(1));
        work(&self.queue, answering, Telling { metrics: &metrics, pulse: &pulse, worker: 0 });
        let batches = std::mem::take(&mut *self.batches.lock().unwrap());
        (self.callers.iter_mut().map(oneshot::Receiver::try_recv).collect(), batches)
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

#[test]
fn every_caller_gets_the_answer_to_its_own_image() {
    let mut bench = Bench::new(4);
    (0..10).for_each(|n| bench.submit(if n % 3 == 0 { 5.0 } else { -5.0 }, soon()));
    let (answers, batches) = bench.run([]);
    assert_eq!(batches, [4, 4, 2]);
    for (n, answer) in answers.into_iter().enumerate() {
        let scored = answer.unwrap().unwrap();
        assert_eq!(scored.classification.predictions[0].index, usize::from(n % 3 == 0), "image {n}");
        assert_eq!(scored.times.batch_len, if n < 8 { 4 } else { 2 });
    }
}

#[test]
fn a_fixed_batch_that_is_not_full_answers_those_who_asked() {
    let mut bench = Bench::with_rows(4, Rows::Exactly(4));
    (0..5).for_each(|n| bench.submit(if n == 4 { 5.0 } else { -5.0 }, soon()));
    let (answers, batches) = bench.run([]);
    assert_eq!(batches, [4, 1]);
    let last = answers.into_iter().next_back().unwrap().unwrap().unwrap();
    assert_eq!((last.classification.predictions[0].index, last.times.batch_len), (1, 1));
}

#[test]
fn a_late_image_is_answered_and_not_computed() {
    let mut bench = Bench::new(4);
    bench.submit(1.0, Instant::now());
    bench.submit(1.0, soon());
    let (answers, batches) = bench.run([]);
    assert_eq!(answers[0], Ok(Err(ClassifyError::Late)));
    assert!(answers[1].as_ref().unwrap().is_ok());
    assert_eq!(batches, [1]);
}

#[test]
fn a_caller_that_left_costs_no_inference() {
    let mut bench = Bench::new(4);
    bench.submit(1.0, soon());
    bench.submit(1.0, soon());
    bench.callers.remove(0);
    let (answers, batches) = bench.run([]);
    assert_eq!((answers.len(), batches), (1, vec![1]));
    assert!(answers[0].as_ref().unwrap().is_ok());
}

#[test]
fn an_image_that_the_runtime_fails_on_costs_its_neighbours_a_second_run_and_no_answer() {
    let mut bench = Bench::new(3);
    (0..6).for_each(|n| bench.submit(if n == 2 { 5.0 } else { -5.0 }, soon()));
    let error = |batch_len| InferError::Run { batch_len, cause: "scripted".to_owned() };
    let (answers, batches) =
        bench.run([Step::Fail(error(3)), Step::Work, Step::Fail(error(1)), Step::Work, Step::Work]);
    assert_eq!(batches, [3, 1, 1, 1, 3]);
    assert_eq!(answers[1], Ok(Err(ClassifyError::Infer(error(1)))));
    for n in [0, 2, 3, 4, 5] {
        let scored = answers[n].as_ref().unwrap().as_ref().unwrap();
        assert_eq!(scored.classification.predictions[0].index, usize::from(n == 2), "image {n}");
        assert_eq!(scored.times.batch_len, if n < 3 { 1 } else { 3 });
    }
}

#[test]
fn a_runtime_that_fails_on_everything_tells_each_caller_and_the_next_batch_goes_on() {
    let mut bench = Bench::new(2);
    (0..4).for_each(|_| bench.submit(1.0, soon()));
    let error = InferError::Run { batch_len: 2, cause: "scripted".to_owned() };
    let (answers, batches) = bench.run([0; 3].map(|_| Step::Fail(error.clone())));
    assert_eq!(batches, [2, 1, 1, 2]);
    assert_eq!(answers[0], Ok(Err(ClassifyError::Infer(error.clone()))));
    assert_eq!(answers[1], Ok(Err(ClassifyError::Infer(error))));
    assert!(answers[2].as_ref().unwrap().is_ok() && answers[3].as_ref().unwrap().is_ok());
}

#[test]
fn a_panic_in_the_runtime_costs_one_batch() {
    let mut bench = Bench::new(1);
    (0..2).for_each(|_| bench.submit(1.0, soon()));
    let (answers, _) = bench.run([Step::Panic]);
    assert_eq!(answers[0], Ok(Err(ClassifyError::Infer(InferError::Panicked))));
    assert!(answers[1].as_ref().unwrap().is_ok());
}

#[test]
fn a_nan_is_an_error_for_its_own_image_and_never_an_answer() {
    let mut bench = Bench::new(2);
    (0..2).for_each(|_| bench.submit(1.0, soon()));
    let (answers, _) = bench.run([Step::NanFor(1)]);
    assert!(answers[0].as_ref().unwrap().is_ok());
    let error = answers[1].as_ref().unwrap().as_ref().unwrap_err();
    assert!(matches!(error, ClassifyError::Infer(InferError::NotFinite { class: 0, .. })), "{error}");
}

#[test]
fn a_caller_gets_all_values_as_the_graph_gives_them_or_as_probabilities() {
    let bench = Bench::new(2);
    let mut callers = Vec::new();
    for of in [RowOf::Output, RowOf::Probabilities] {
        let (to, caller) = oneshot::channel();
        let sample = Sample::new(SHAPE, vec![3.0_f32.ln(); 3]);
        let job =
            Job { sample, times: StageTimes::default(), deadline: soon(), reply: Reply::Row { of, top_k: 1, to } };
        assert!(bench.queue.push(bench.queue.reserve(1).unwrap().pop().unwrap(), job).is_ok());
        callers.push(caller);
    }
    let mut bench = bench;
    bench.run([]);
    let rows: Vec<Row> = callers.iter_mut().map(|caller| caller.try_recv().unwrap().unwrap()).collect();
    assert!(rows.iter().all(|row| row.best == [1]), "{rows:?}");
    assert_eq!(rows[0].values, [0.0, 3.0_f32.ln()]);
    assert!((rows[1].values[0] - 0.25).abs() < 1e-6 && (rows[1].values[1] - 0.75).abs() < 1e-6, "{rows:?}");
}
