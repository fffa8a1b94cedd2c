//! One worker: takes a batch, runs the model, answers every caller exactly once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::BatchError;
use super::pulse::Pulse;
use super::queue::{Queue, Taken, Waiting};
use super::reply::Reply;
use crate::pipeline::infer::{Batch, Infer, InferError, RawScores, Reading};
use crate::pipeline::postprocess::Labels;
use crate::pipeline::types::Sample;
use crate::telemetry::{ModelMetrics, Stage, StageTimes};

/// One image on its way to a worker.
#[derive(Debug)]
pub struct Job {
    /// The prepared image.
    pub sample: Sample,
    /// Stage times so far.
    pub times: StageTimes,
    /// When the answer is too late.
    pub deadline: Instant,
    /// The caller.
    pub reply: Reply,
}

impl Waiting for Job {
    fn caller_left(&self) -> bool {
        self.reply.caller_left()
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

/// What a worker tells about its runs.
#[derive(Debug, Clone, Copy)]
pub struct Telling<'a> {
    /// To those who read metrics,
    pub metrics: &'a ModelMetrics,
    /// and to the watchdog.
    pub pulse: &'a Pulse,
    /// The number of the worker in `pulse`.
    pub worker: usize,
}

/// Serves `queue` until it is closed and empty.
pub fn work<M: Infer + Send + 'static>(
    queue: &Queue<Job, Box<Lane<M>>>,
    answering: Answering<'_>,
    telling: Telling<'_>,
) {
    let mut taken = Taken::default();
    while let Some(mut run) = queue.take(&mut taken) {
        for job in taken.late.drain(..) {
            job.reply.fail(BatchError::Late.into());
        }
        let (images, cores) = (taken.batch.len(), run.cores);
        if images == 0 {
            queue.give_back(run);
            continue;
        }
        let lane = &mut *run.instance;
        let outcome = telling.run(&taken.batch, lane, cores);
        // One image that the runtime fails on must not fail those that came with it. A run that was stopped is not begun
        // again: it has cost its callers their time already.
        if outcome.scores.is_err() && images > 1 && !outcome.stopped {
            let started = Instant::now();
            for alone in taken.batch.drain(..) {
                let outcome = telling.run(std::slice::from_ref(&alone), lane, cores);
                telling.pulse.answered(answer(vec![alone], outcome, answering));
            }
            queue.finish(run, images, outcome.took + started.elapsed());
        } else {
            // Others may compute while this thread hands out the answers.
            queue.finish(run, images, outcome.took);
            telling.pulse.answered(answer(taken.batch.drain(..), outcome, answering));
        }
    }
}

/// What became of a run.
struct Outcome {
    scores: Result<RawScores, InferError>,
    began: Instant,
    took: Duration,
    /// By the watchdog.
    stopped: bool,
}

impl Telling<'_> {
    /// Runs the images, and tells of it.
    fn run<M: Infer>(&self, jobs: &[(Job, Duration)], lane: &mut Lane<M>, cores: usize) -> Outcome {
        let Self { metrics, pulse, worker } = *self;
        let Lane { model, batch } = lane;
        let began = Instant::now();
        pulse.begin(worker, model.brake());
        let scores = infer(jobs, model, batch);
        let stopped = pulse.end(worker);
        let took = began.elapsed();
        metrics.run(jobs.len(), cores, took);
        let scores = match scores {
            Err(_) if stopped => Err(InferError::Stopped { batch_len: jobs.len(), seconds: took.as_secs() }),
            scores => scores,
        };
        Outcome { scores, began, took, stopped }
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

/// Answers every caller. Tells whether any got more than an error.
fn answer(
    jobs: impl IntoIterator<Item = (Job, Duration), IntoIter: ExactSizeIterator>,
    Outcome { scores, began, took, .. }: Outcome,
    answering: Answering<'_>,
) -> bool {
    let jobs = jobs.into_iter();
    let batch_len = jobs.len();
    let scores = match scores {
        Ok(scores) => scores,
        Err(error) => {
            // Each caller logs it under its own request id.
            jobs.for_each(|(job, _)| job.reply.fail(error.clone().into()));
            return false;
        }
    };
    let mut any = false;
    for (index, (job, queued)) in jobs.enumerate() {
        let Job { mut times, reply, .. } = job;
        // It left the queue just before the run.
        times.set(Stage::Queue, began.checked_sub(queued).unwrap_or(began), queued);
        times.set(Stage::Infer, began, took);
        times.batch_len = batch_len;
        match scores.row(index) {
            Ok(row) => {
                any = true;
                reply.answer(row, answering, times);
            }
            Err(error) => reply.fail(error.into()),
        }
    }
    any
}

#[cfg(test)]
mod tests;
