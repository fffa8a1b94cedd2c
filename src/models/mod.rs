//! Which models are served: loaded, replaced and unloaded while requests are in flight.
//!
//! Requests see a [`Roster`] that is swapped whole, and hold the engine that they were given to their end. One change runs
//! at a time; what it cannot load changes nothing.

mod added;
#[cfg(any(test, fuzzing))]
pub(crate) mod fakes;
mod handle;
mod load;
mod roster;
mod source;
mod work;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

pub use added::AddError;
pub use handle::Handle;
pub use load::LoadError;
pub use roster::{NotServed, Row, State};
pub use source::{Source, Starter};
pub use work::Changes;

use crate::zoo::Version;
use handle::Retired;
use roster::Roster;
use work::{Scope, Work};

/// The models of one server. Cheap to clone; clones see the same models.
#[derive(Debug, Clone, Default)]
pub struct Models(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    roster: RwLock<Arc<Roster>>,
    retired: Retired,
    /// `None` until the first pass has begun.
    work: Mutex<Option<Work>>,
    /// No more changes: what is being loaded is not published.
    stopping: AtomicBool,
}

impl Models {
    /// The engine for a request: of the named model, or of the default one; of the named version, or of the newest that
    /// is ready.
    ///
    /// # Errors
    /// [`NotServed`] says what there is instead.
    pub fn get(&self, name: Option<&str>, version: Option<&str>) -> Result<Handle, NotServed> {
        self.roster().get(name, version)
    }

    /// Every version of every model with its state, by name and then from the oldest version to the newest.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        self.roster().rows()
    }

    /// Every version of every model that was unloaded by name and can be loaded again.
    #[must_use]
    pub fn unloaded(&self) -> Vec<(String, Version)> {
        let roster = self.roster();
        let each = roster.unloaded.iter();
        each.flat_map(|(name, versions)| versions.iter().map(|version| (name.clone(), version.clone()))).collect()
    }

    /// The engines that answer, in the same order.
    #[must_use]
    pub fn ready(&self) -> Vec<Handle> {
        self.roster().ready()
    }

    /// Finds, opens and starts all models of `source`, and publishes them together. `starter` is asked for only when
    /// every model could be opened: a mistyped path should not cost the fetch of a runtime. Blocks.
    ///
    /// # Errors
    /// [`LoadError`] of the first model that cannot be served; then none is.
    pub fn begin<E: From<LoadError>>(
        &self,
        source: Source,
        starter: impl FnOnce() -> Result<Starter, E>,
    ) -> Result<(), E> {
        let mut work = self.lock();
        *work = Some(Work::begin(self, source, starter)?);
        Ok(())
    }

    /// Looks at all places again: loads what is new, replaces what has changed or failed before, unloads what is gone.
    /// Whatever cannot be loaded leaves the old one serving. Blocks.
    pub fn reload(&self) -> Changes {
        self.lock().as_mut().map_or_else(Changes::default, |work| work.pass(self, &Scope::ChangedOrFailed))
    }

    /// Does what [`Models::reload`] does once files have changed and have been still since the last call: files that are
    /// just being copied are left alone. Blocks.
    pub fn watch(&self) -> Changes {
        self.lock().as_mut().map_or_else(Changes::default, |work| work.watch(self))
    }

    /// Loads the versions of one model from its place, also if nothing has changed or it was unloaded. Blocks.
    ///
    /// # Errors
    /// [`LoadError`]; what was served before is served on.
    pub fn load(&self, name: &str) -> Result<Changes, LoadError> {
        self.lock().as_mut().map_or_else(|| Err(LoadError::unknown(name)), |work| work.load(self, name))
    }

    /// Stops serving a model until it is loaded again. Requests in flight are answered. A model that was unloaded stays so.
    /// Blocks while another change runs.
    ///
    /// # Errors
    /// [`LoadError::Unknown`] if there is no such model.
    pub fn unload(&self, name: &str) -> Result<Changes, LoadError> {
        self.lock().as_mut().map_or_else(|| Err(LoadError::unknown(name)), |work| work.unload(self, name))
    }

    /// Lets go of every model, and waits until a change that is running has given up and the engines that no request holds
    /// any more have stopped: the process must not end beneath a thread that is inside the runtime. Blocks.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::Release);
        let work = self.lock();
        self.publish(|roster| *roster = Roster::default());
        drop(work);
        self.0.retired.join();
    }

    /// The server stops.
    fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Acquire)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Work>> {
        // A panic during a change has published whole rosters only.
        self.0.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.0.roster.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes what requests see, in one step.
    fn publish(&self, change: impl FnOnce(&mut Roster)) {
        let mut next = Roster::clone(&self.roster());
        change(&mut next);
        let next = Arc::new(next);
        let old = std::mem::replace(&mut *self.0.roster.write().unwrap_or_else(PoisonError::into_inner), next);
        // Outside the lock: it may hold the last handle of an engine.
        drop(old);
    }
}
