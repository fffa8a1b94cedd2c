//! A hold on a running engine, and the place where engines stop.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::machine::heap;
use crate::pipeline::Engine;

/// Keeps an engine running. The request that lets go of the last one does not wait for the engine to stop: that happens
/// on a thread of its own.
#[derive(Clone)]
pub struct Handle {
    /// `None` only while it is dropped.
    engine: Option<Arc<Engine>>,
    retired: Retired,
}

/// Engines that are stopping, each on a thread that ends with it. Clones share the list.
#[derive(Debug, Clone, Default)]
pub(super) struct Retired(Arc<Mutex<Vec<JoinHandle<()>>>>);

impl Handle {
    pub(super) fn new(engine: Engine, retired: Retired) -> Self {
        Self { engine: Some(Arc::new(engine)), retired }
    }

    /// Both hold the same engine.
    pub(super) fn is(&self, other: &Self) -> bool {
        matches!((&self.engine, &other.engine), (Some(one), Some(other)) if Arc::ptr_eq(one, other))
    }
}

impl Deref for Handle {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        self.engine.as_deref().expect("a handle holds its engine until it is dropped")
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.take().and_then(Arc::into_inner) {
            self.retired.stop(engine);
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.spec().name).finish()
    }
}

impl Retired {
    /// Stops `engine` beside the caller: its workers may still compute for callers that left, and freeing the weights
    /// takes a while.
    fn stop(&self, engine: Engine) {
        // Ends when the workers have ended, which the closed queue makes them do.
        let stopping = std::thread::Builder::new().name("retire".to_owned()).spawn(move || {
            drop(engine);
            heap::trim();
        });
        let mut threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| !thread.is_finished());
        // Without a thread the closure, and with it the engine, was dropped right here.
        threads.extend(stopping);
    }

    /// Waits for all that are stopping.
    pub(super) fn join(&self) {
        let threads = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A panic there has been printed; there is nothing left to stop.
            let _ = thread.join();
        }
    }
}
