//! Upload bytes -> [`Sample`]: decode and preprocess, on blocking threads, under a permit and a memory budget.
//!
//! Async threads never compute; how many images are prepared at once and how much memory they hold together are bounds
//! of this pool, shared by all models.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};

use super::buffers::{SamplePool, Workspace, Workspaces};
use super::decode::budget::MemoryBudget;
use super::decode::{self, DecodeError, DecodeOptions, Pending};
use super::error::ClassifyError;
use super::preprocess::{self, Recipe};
use super::types::{ImageInfo, Sample, SampleShape};
use crate::telemetry::{Stage, StageTimes};

/// The bounded pool that prepares images. Cheap to clone; clones share the bounds.
#[derive(Debug, Clone)]
pub struct PreparePool {
    permits: Arc<Semaphore>,
    memory: Arc<MemoryBudget>,
    options: DecodeOptions,
    workspaces: Arc<Workspaces>,
    samples: SamplePool,
}

/// One image that is ready for its model.
#[derive(Debug)]
pub struct Prepared {
    /// The model's input.
    pub sample: Sample,
    /// Size and format of the upload.
    pub image: ImageInfo,
    /// Decode and preprocess times.
    pub times: StageTimes,
}

impl PreparePool {
    /// A pool that prepares `threads` images at once.
    #[must_use]
    pub fn new(threads: usize, memory: Arc<MemoryBudget>, options: DecodeOptions) -> Self {
        let permits = Arc::new(Semaphore::new(threads));
        Self { permits, memory, options, workspaces: Arc::default(), samples: SamplePool::default() }
    }

    /// Runs `work` on a blocking thread once a permit is free. Returns when the work has begun or the deadline has
    /// passed; what the work makes travels by its own way.
    ///
    /// # Errors
    /// [`ClassifyError::Late`] if no permit came in time; then `work` never ran.
    pub async fn start(&self, deadline: Instant, work: impl FnOnce() + Send + 'static) -> Result<(), ClassifyError> {
        let permit = Arc::clone(&self.permits).acquire_owned();
        let permit = match tokio::time::timeout_at(deadline.into(), permit).await {
            Ok(Ok(permit)) => permit,
            // The semaphore is never closed, so only the deadline is left.
            Ok(Err(_)) | Err(_) => return Err(ClassifyError::Late),
        };
        // Nobody joins this task: it ends by itself after one image, its panic shows as a dropped reply channel, and the
        // runtime waits for it at shutdown.
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work();
        });
        Ok(())
    }

    /// Computes something in the pool: what takes longer than a moment must not hold up an async thread.
    ///
    /// # Errors
    /// [`ClassifyError::Late`] if no permit came in time, [`ClassifyError::Lost`] if `compute` panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        deadline: Instant,
        compute: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ClassifyError> {
        let (reply, answer) = oneshot::channel();
        let work = move || {
            // The caller may have left meanwhile.
            if !reply.is_closed() {
                let _ = reply.send(compute());
            }
        };
        self.start(deadline, work).await?;
        answer.await.map_err(|_| ClassifyError::Lost)
    }

    /// Decodes and preprocesses one upload on the calling thread. `started` is when the image began to wait for it.
    ///
    /// # Errors
    /// Whatever is wrong with the upload, or [`ClassifyError::Late`] if no decode memory came free in time.
    pub fn prepare(
        &self,
        upload: &Bytes,
        recipe: &Recipe,
        started: Instant,
        deadline: Instant,
    ) -> Result<Prepared, ClassifyError> {
        let pending = open_for(upload, &self.options, recipe)?;
        let ImageInfo { width, height, .. } = pending.info();
        // Before any pixel is decoded: a picture that the recipe cannot take should cost nothing.
        let shape = preprocess::sample_shape(width, height, recipe)?;
        let reservation = self.memory.reserve(pending.memory_bytes(), deadline)?;
        let mut workspace = self.workspaces.lend();
        let Workspace { canvas, scratch } = &mut *workspace;
        let image = pending.decode_into(canvas)?;
        let decoded = Instant::now();
        let mut values = self.samples.lend(shape.len());
        preprocess::preprocess_into(&image, recipe, scratch, &mut values)?;
        let mut times = StageTimes::default();
        times.set(Stage::Decode, started, decoded - started);
        times.set(Stage::Preprocess, decoded, decoded.elapsed());
        let info = image.info();
        canvas.take_back(image);
        drop((workspace, reservation));
        Ok(Prepared { sample: Sample::lent(shape, values), image: info, times })
    }

    /// A sample whose values somebody else has: `fill` writes all of them, `[3,H,W]`.
    ///
    /// # Errors
    /// Those of `fill`.
    pub(super) fn sample<E>(
        &self,
        shape: SampleShape,
        fill: impl FnOnce(&mut [f32]) -> Result<(), E>,
    ) -> Result<Sample, E> {
        let mut values = self.samples.lend(shape.len());
        fill(&mut values)?;
        Ok(Sample::lent(shape, values))
    }

    /// Bytes that decodes have reserved now.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.memory.used()
    }
}

/// Opens an image for `recipe`: as [`decode::open`], and a large photo that the recipe shrinks is decoded smaller, where the
/// options allow it.
///
/// # Errors
/// As [`decode::open`].
pub fn open_for<'a>(upload: &'a [u8], options: &DecodeOptions, recipe: &Recipe) -> Result<Pending<'a>, DecodeError> {
    let mut pending = decode::open(upload, options)?;
    let ImageInfo { width, height, .. } = pending.info();
    // Where the recipe cannot take the picture, preprocessing says why.
    if let Ok(Some(resized)) = preprocess::resized_size(width, height, recipe) {
        pending.shrink_for(resized);
    }
    Ok(pending)
}

#[cfg(test)]
mod tests;
