//! Memory that serves one image after another: what a preparing thread works in, and the values of samples.
//!
//! Both pools lend and take back; both are bounded, so that one huge upload or one burst does not hold memory for ever.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::decode::Canvas;
use super::preprocess::Scratch;

/// Bytes that all idle workspaces of a pool keep together. A workspace that has seen a phone photo holds 6 MiB.
const WORKSPACE_BYTES_KEPT: usize = 64 << 20;
/// Bytes of samples that are kept idle: 27 of 224x224. A batch on its way and one in the making are below that.
const SAMPLE_BYTES_KEPT: usize = 16 << 20;
/// Samples that are kept idle. It bounds the search through them.
const SAMPLES_KEPT: usize = 64;

/// What preparing one image needs beside the upload and the sample.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    /// Where the picture is decoded to.
    pub(super) canvas: Canvas,
    /// Where it is resized.
    pub(super) scratch: Scratch,
}

impl Workspace {
    fn bytes(&self) -> usize {
        self.canvas.bytes() + self.scratch.bytes()
    }
}

/// The workspaces that nobody works in. As many as there were images prepared at once, within the bound in bytes.
#[derive(Debug, Default)]
pub(super) struct Workspaces {
    idle: Mutex<Vec<Workspace>>,
}

/// A workspace in use. Dropping it gives it back, also when decoding failed or panicked: whatever a workspace holds is
/// overwritten by the next picture.
#[derive(Debug)]
pub(super) struct WorkspaceLease<'a> {
    workspace: Workspace,
    pool: &'a Workspaces,
}

impl Workspaces {
    /// A workspace that was used before, the one used last if there are several, or a new one.
    pub(super) fn lend(&self) -> WorkspaceLease<'_> {
        let workspace = lock(&self.idle).pop().unwrap_or_default();
        WorkspaceLease { workspace, pool: self }
    }

    fn take_back(&self, workspace: Workspace) {
        let mut idle = lock(&self.idle);
        let kept: usize = idle.iter().map(Workspace::bytes).sum();
        if kept + workspace.bytes() <= WORKSPACE_BYTES_KEPT {
            idle.push(workspace);
        }
    }
}

impl Deref for WorkspaceLease<'_> {
    type Target = Workspace;

    fn deref(&self) -> &Workspace {
        &self.workspace
    }
}

impl DerefMut for WorkspaceLease<'_> {
    fn deref_mut(&mut self) -> &mut Workspace {
        &mut self.workspace
    }
}

impl Drop for WorkspaceLease<'_> {
    fn drop(&mut self) {
        self.pool.take_back(std::mem::take(&mut self.workspace));
    }
}

/// The values of samples that are done with. Cheap to clone; clones share the pool.
#[derive(Debug, Clone, Default)]
pub(super) struct SamplePool {
    idle: Arc<Mutex<IdleSamples>>,
}

#[derive(Debug, Default)]
struct IdleSamples {
    values: Vec<Vec<f32>>,
    bytes: usize,
}

impl SamplePool {
    /// `len` values that hold whatever the last sample left there.
    pub(super) fn lend(&self, len: usize) -> SampleValues {
        let mut idle = lock(&self.idle);
        // Models with samples of different sizes share the pool, so only what fits exactly is taken: a small sample in a
        // large buffer would hold more memory than it is counted for. From the back: what was used last is in the cache.
        let used = idle.values.iter().rposition(|values| values.len() == len).map(|at| idle.values.remove(at));
        if let Some(values) = &used {
            idle.bytes -= size_of_val(values.as_slice());
        }
        drop(idle);
        SampleValues { values: used.unwrap_or_else(|| vec![0.0; len]), pool: Some(self.clone()) }
    }

    fn take_back(&self, values: Vec<f32>) {
        let bytes = size_of_val(values.as_slice());
        if bytes > SAMPLE_BYTES_KEPT {
            return;
        }
        let mut idle = lock(&self.idle);
        idle.values.push(values);
        idle.bytes += bytes;
        // Those that waited longest make room: their model may have been unloaded.
        while idle.bytes > SAMPLE_BYTES_KEPT || idle.values.len() > SAMPLES_KEPT {
            let oldest = idle.values.remove(0);
            idle.bytes -= size_of_val(oldest.as_slice());
        }
    }
}

/// The numbers of one sample. Those that a pool lent go back to it when they are dropped.
#[derive(Debug)]
pub(super) struct SampleValues {
    values: Vec<f32>,
    pool: Option<SamplePool>,
}

impl From<Vec<f32>> for SampleValues {
    fn from(values: Vec<f32>) -> Self {
        Self { values, pool: None }
    }
}

impl Deref for SampleValues {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values
    }
}

impl DerefMut for SampleValues {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }
}

/// A copy belongs to no pool.
impl Clone for SampleValues {
    fn clone(&self) -> Self {
        self.values.clone().into()
    }
}

impl PartialEq for SampleValues {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values
    }
}

impl Drop for SampleValues {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.take_back(std::mem::take(&mut self.values));
        }
    }
}

/// A panic elsewhere leaves both pools right: they are only ever changed in steps that cannot panic half way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(pool: &SamplePool) -> (usize, usize) {
        let idle = lock(&pool.idle);
        (idle.values.len(), idle.bytes)
    }

    #[test]
    fn a_dropped_sample_serves_the_next_one_of_its_size() {
        let pool = SamplePool::default();
        let mut first = pool.lend(12);
        first.fill(7.0);
        let place = first.as_ptr();
        drop(first);
        let other_size = pool.lend(13);
        assert_eq!((&*other_size, idle(&pool)), (&[0.0; 13][..], (1, 48)));
        let again = pool.lend(12);
        assert_eq!((again.as_ptr(), &*again, idle(&pool)), (place, &[7.0; 12][..], (0, 0)));
    }

    #[test]
    fn a_copy_of_a_sample_stays_with_its_owner() {
        let pool = SamplePool::default();
        let lent = pool.lend(3);
        let copy = lent.clone();
        drop(lent);
        assert_eq!(copy, SampleValues::from(vec![0.0; 3]));
        drop(copy);
        assert_eq!(idle(&pool), (1, 12));
    }

    #[test]
    fn a_burst_of_samples_leaves_no_more_than_the_bounds() {
        let pool = SamplePool::default();
        drop((0..=SAMPLES_KEPT).map(|_| pool.lend(1)).collect::<Vec<_>>());
        assert_eq!(idle(&pool), (SAMPLES_KEPT, SAMPLES_KEPT * 4));
        let len = SAMPLE_BYTES_KEPT / 4 / 4;
        drop((0..5).map(|_| pool.lend(len)).collect::<Vec<_>>());
        assert_eq!(idle(&pool), (4, SAMPLE_BYTES_KEPT));
        drop(pool.lend(SAMPLE_BYTES_KEPT / 4 + 1));
        assert_eq!(idle(&pool), (4, SAMPLE_BYTES_KEPT), "one that is too large drives out no other");
    }

    #[test]
    fn workspaces_come_back_and_are_as_many_as_worked_at_once() {
        let pool = Workspaces::default();
        drop((pool.lend(), pool.lend()));
        drop(pool.lend());
        assert_eq!(lock(&pool.idle).len(), 2);
    }

    #[test]
    fn workspaces_keep_no_more_than_the_bound_together() {
        let pool = Workspaces::default();
        let mut leases: Vec<_> = (0..20).map(|_| pool.lend()).collect();
        for lease in &mut leases {
            let pixels = lease.canvas.take(4 << 20);
            lease.canvas.keep(pixels);
        }
        drop(leases);
        let bytes: usize = lock(&pool.idle).iter().map(Workspace::bytes).sum();
        assert_eq!(bytes, WORKSPACE_BYTES_KEPT);
    }
}
