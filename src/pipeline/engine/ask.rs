//! What can be asked of a running model: the classes of a photo, all scores of a photo, the output for a tensor.
//!
//! Dropping the future of a question is how a caller leaves: whatever stage its image is in, the next one does not begin.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Engine;
use crate::pipeline::batch::{Answer, BatchError, Job, Place, Reply, Row, RowOf, Scored};
use crate::pipeline::error::ClassifyError;
use crate::pipeline::infer::{Reading, TensorError, read_sample};
use crate::pipeline::types::{ImageInfo, Sample};
use crate::telemetry::{Ended, StageTimes};

/// What one request wants of one image.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// Classes wanted, 1 up to the model's number of classes.
    pub top_k: usize,
    /// How the output is read, where not as the model means it.
    pub reading: Option<Reading>,
    /// When the answer is too late to be of use.
    pub deadline: Instant,
}

impl Ask {
    /// The best classes, scored as the model means it.
    #[must_use]
    pub fn new(top_k: usize, deadline: Instant) -> Self {
        Self { top_k, reading: None, deadline }
    }
}

impl Engine {
    /// Classifies one upload.
    ///
    /// # Errors
    /// [`ClassifyError`] of the stage that failed.
    pub async fn classify(&self, place: Place, upload: Bytes, ask: Ask) -> Answer {
        let Ask { top_k, reading, deadline } = ask;
        let reply = move |image, to| Reply::Classes { top_k, reading, image, to };
        self.prepare_and_ask(place, upload, deadline, reply, |scored: &Scored| &scored.times).await
    }

    /// All values of one upload, and the indices of the `top_k` largest.
    ///
    /// # Errors
    /// [`ClassifyError`] of the stage that failed.
    pub async fn row(&self, place: Place, upload: Bytes, of: RowOf, top_k: usize, deadline: Instant) -> Answer<Row> {
        let reply = move |_, to| Reply::Row { of, top_k, to };
        self.prepare_and_ask(place, upload, deadline, reply, |row: &Row| &row.times).await
    }

    /// One image of a tensor in the form in which the graph takes it: `[3,H,W]` or `[H,W,3]` as its layout says, in its
    /// element type, little-endian.
    ///
    /// # Errors
    /// [`TensorError`] if there are too few or too many bytes, or a value is not finite.
    pub fn sample(&self, raw: &[u8]) -> Result<Sample, TensorError> {
        let input = &self.contract.signature.input;
        self.pool.sample(self.spec.sample_shape, |values| read_sample(raw, input.element, input.layout, values))
    }

    /// What the graph returns for a sample that a client prepared: one row of the output, a background included,
    /// and the indices of the `top_k` largest values.
    ///
    /// # Errors
    /// [`ClassifyError`] of the stage that failed.
    pub async fn infer(&self, place: Place, sample: Sample, top_k: usize, deadline: Instant) -> Answer<Row> {
        let (to, answer) = oneshot::channel();
        let reply = Reply::Row { of: RowOf::Output, top_k, to };
        let answer = match self.queue.push(place, Job { sample, times: StageTimes::default(), deadline, reply }) {
            Ok(()) => within(deadline, answer).await,
            Err(_refused) => Err(BatchError::Closed.into()),
        };
        self.count(answer.as_ref().map(|row| &row.times));
        answer
    }

    /// Prepares an upload in the pool, queues it and waits for what `reply` brings.
    async fn prepare_and_ask<T: Send + 'static>(
        &self,
        place: Place,
        upload: Bytes,
        deadline: Instant,
        reply: impl FnOnce(ImageInfo, oneshot::Sender<Answer<T>>) -> Reply + Send + 'static,
        times: impl Fn(&T) -> &StageTimes,
    ) -> Answer<T> {
        let (to, answer) = oneshot::channel();
        let started = Instant::now();
        let (pool, queue) = (self.pool.clone(), Arc::clone(&self.queue));
        let spec = Arc::clone(&self.spec);
        // One channel for both outcomes: the preparer answers if the image fails there, else the job carries the
        // channel on to a worker. That is one wake-up of the caller instead of two.
        let prepare = move || {
            if to.is_closed() {
                return;
            }
            let prepared = match pool.prepare(&upload, &spec.recipe, started, deadline) {
                Ok(prepared) => prepared,
                Err(error) => return drop(to.send(Err(error))),
            };
            drop(upload);
            let reply = reply(prepared.image, to);
            let job = Job { sample: prepared.sample, times: prepared.times, deadline, reply };
            if let Err(job) = queue.push(place, job) {
                job.reply.fail(BatchError::Closed.into());
            }
        };
        let answer = match self.pool.start(deadline, prepare).await {
            Ok(()) => within(deadline, answer).await,
            Err(error) => Err(error),
        };
        self.count(answer.as_ref().map(times));
        answer
    }

    /// Counts a request, which may bring many images, by how it [ended](Counted::ended); as left by its client if it is dropped
    /// before.
    #[must_use]
    pub fn counted(&self) -> Counted<'_> {
        Counted { engine: self, started: Instant::now(), ended: Ended::Left }
    }

    fn count(&self, outcome: Result<&StageTimes, &ClassifyError>) {
        match outcome {
            Ok(times) => self.metrics.image_ok(times),
            Err(error) => self.metrics.image_failed(error.code()),
        }
    }
}

/// A request in the statistics of its model.
#[derive(Debug)]
pub struct Counted<'a> {
    engine: &'a Engine,
    started: Instant,
    ended: Ended,
}

impl Counted<'_> {
    /// It ended so.
    pub fn ended(mut self, ended: Ended) {
        self.ended = ended;
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.engine.metrics.request(self.ended, self.started.elapsed());
    }
}

async fn within<T>(deadline: Instant, answer: oneshot::Receiver<Answer<T>>) -> Answer<T> {
    match tokio::time::timeout_at(deadline.into(), answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_dropped)) => Err(ClassifyError::Lost),
        Err(_elapsed) => Err(ClassifyError::Late),
    }
}
