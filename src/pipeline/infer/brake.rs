//! Stops a run from outside of it.

use std::fmt;
use std::sync::Arc;

use ort::session::RunOptions;

/// Ends the run that a session is in, from another thread. The runtime looks at it between two nodes of the graph, and in
/// every round of a loop: a kernel that hangs by itself is not stopped.
#[derive(Clone)]
pub struct Brake(Arc<RunOptions>);

impl fmt::Debug for Brake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Brake")
    }
}

impl Brake {
    pub(super) fn new() -> Result<Self, ort::Error> {
        Ok(Self(Arc::new(RunOptions::new()?)))
    }

    pub(super) fn options(&self) -> &RunOptions {
        &self.0
    }

    /// Asks the runtime to end the run, and every later one until [`Brake::release`].
    pub fn pull(&self) {
        if let Err(error) = self.0.terminate() {
            tracing::error!(%error, "failed to stop a run of the model");
        }
    }

    /// Lets the session run again. For whoever owns the session, between two runs.
    pub fn release(&self) {
        if let Err(error) = self.0.unterminate() {
            tracing::error!(%error, "failed to let a stopped instance of the model run again");
        }
    }
}
