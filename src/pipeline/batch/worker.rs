//! One worker: takes a batch, runs the model, answers every caller exactly once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::BatchError;
use super::queue::{Queue, Taken, Waiting};
use crate::pipeline::error::ClassifyError;
use crate::pipeline::infer::{Batch, Infer, InferError, RawScores, Reading};
use crate::pipeline::postprocess::{self, Labels};
use crate::pipeline::types::{Classification, ImageInfo, Sample};
use crate::telemetry::{ModelMetrics, Stage, StageTimes};

/// What a caller gets for one image.
pub type Answer = Result<Scored, ClassifyError>;

/// One classified image.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// The best classes.
    pub classification: Classification,
    /// Size and format of the upload.
    pub image: ImageInfo,
    /// Where the time went.
    pub times: StageTimes,
}

/// One image on its way to a worker.
#[derive(Debug)]
pub struct Job {
    /// The prepared image.
    pub sample: Sample,
    /// Classes wanted.
    pub top_k: usize,
    /// Size and format of the upload, for the answer.
    pub image: ImageInfo,
    /// Stage times so far.
    pub times: StageTimes,
    /// When the answer is too late.
    pub deadline: Instant,
    /// The caller. A closed channel means that it left.
    pub reply: oneshot::Sender<Answer>,
}

impl Waiting for Job {
    fn caller_left(&self) -> bool {
        self.reply.is_closed()
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }
}

/// How a worker turns a row of scores into an answer.
#[derive(Debug, Clone, Copy)]
pub struct Answering<'a> {
    /// What the scores mean.
    pub reading: Reading,
    /// The classes' names.
    pub labels: &'a Labels,
}

/// One instance of the model with the batch that it computes. The batch keeps its memory.
#[derive(Debug)]
pub struct Lane<M> {
    /// What computes.
    pub model: M,
    /// Its input.
    pub batch: Batch,
}

/// Serves `queue` until it is closed and empty.
pub fn work<M: Infer + Send + 'static>(
    queue: &Queue<Job, Box<Lane<M>>>,
    answering: Answering<'_>,
    metrics: &ModelMetrics,
) {
    let mut taken = Taken::default();
    while let Some(mut run) = queue.take(&mut taken) {
        for job in taken.late.drain(..) {
            reply(job.reply, Err(BatchError::Late.into()));
        }
        if !taken.batch.is_empty() {
            metrics.run(taken.batch.len(), run.cores);
            let Lane { model, batch } = &mut *run.instance;
            let started = Instant::now();
            let scores = infer(&taken.batch, model, batch);
            let took = started.elapsed();
            // Others may compute while this thread hands out the answers.
            queue.give_back(run);
            answer(&mut taken.batch, scores, took, answering);
        } else {
            queue.give_back(run);
        }
    }
}

fn infer(jobs: &[(Job, Duration)], model: &mut dyn Infer, batch: &mut Batch) -> Result<RawScores, InferError> {
    let run = || {
        batch.clear();
        for (job, _) in jobs {
            batch.push(&job.sample);
        }
        model.infer(batch)
    };
    // A panic in the runtime's binding must cost one batch, not the worker and with it an instance and its cores.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(Err(InferError::Panicked))
}

/// Answers every caller.
fn answer(
    jobs: &mut Vec<(Job, Duration)>,
    scores: Result<RawScores, InferError>,
    infer: Duration,
    Answering { reading, labels }: Answering<'_>,
) {
    let batch_len = jobs.len();
    let scores = match scores {
        Ok(scores) => scores,
        Err(error) => {
            // Each caller logs it under its own request id.
            for (job, _) in jobs.drain(..) {
                reply(job.reply, Err(error.clone().into()));
            }
            return;
        }
    };
    for (index, (job, queued)) in jobs.drain(..).enumerate() {
        let Job { top_k, image, mut times, reply: caller, .. } = job;
        let started = Instant::now();
        let answer = scores.row(index).map(|row| {
            let classification = postprocess::classify(row, reading, labels, top_k);
            times.set(Stage::Queue, queued);
            times.set(Stage::Infer, infer);
            times.set(Stage::Postprocess, started.elapsed());
            times.batch_len = batch_len;
            Scored { classification, image, times }
        });
        reply(caller, answer.map_err(Into::into));
    }
}

fn reply(caller: oneshot::Sender<Answer>, answer: Answer) {
    // The caller may have left meanwhile; then nobody misses the answer.
    let _ = caller.send(answer);
}

#[cfg(test)]
mod tests;
