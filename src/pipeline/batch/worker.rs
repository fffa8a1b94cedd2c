//! One worker: takes a batch, runs the model, answers every caller exactly once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::BatchError;
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

/// One run of the model.
#[derive(Debug, Clone, Copy)]
struct Ran {
    began: Instant,
    took: Duration,
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
            job.reply.fail(BatchError::Late.into());
        }
        if !taken.batch.is_empty() {
            let Lane { model, batch } = &mut *run.instance;
            let started = Instant::now();
            let scores = infer(&taken.batch, model, batch);
            let ran = Ran { began: started, took: started.elapsed() };
            metrics.run(taken.batch.len(), run.cores, ran.took);
            // Others may compute while this thread hands out the answers.
            queue.give_back(run);
            answer(&mut taken.batch, scores, ran, answering);
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
fn answer(jobs: &mut Vec<(Job, Duration)>, scores: Result<RawScores, InferError>, ran: Ran, answering: Answering<'_>) {
    let batch_len = jobs.len();
    let scores = match scores {
        Ok(scores) => scores,
        Err(error) => {
            // Each caller logs it under its own request id.
            for (job, _) in jobs.drain(..) {
                job.reply.fail(error.clone().into());
            }
            return;
        }
    };
    for (index, (job, queued)) in jobs.drain(..).enumerate() {
        let Job { mut times, reply, .. } = job;
        // It left the queue just before the run.
        times.set(Stage::Queue, ran.began.checked_sub(queued).unwrap_or(ran.began), queued);
        times.set(Stage::Infer, ran.began, ran.took);
        times.batch_len = batch_len;
        match scores.row(index) {
            Ok(row) => reply.answer(row, answering, times),
            Err(error) => reply.fail(error.into()),
        }
    }
}

#[cfg(test)]
mod tests;
