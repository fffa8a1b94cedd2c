//! How a model is: whether its runs end, whether its images are taken, whether they bring answers.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Engine;
use crate::pipeline::batch::{Job, Reply, RowOf};
use crate::pipeline::error::ClassifyError;
use crate::pipeline::types::Sample;
use crate::telemetry::StageTimes;

/// After so many failed runs in a row the model is asked about a picture of its own: clients may have sent what no model
/// could answer, and none of them should take the server down for the others.
const FAILURES_MAX: u32 = 8;
/// Between the moment in which the runtime is asked to end a run and the one in which it should have.
const STOP_TIME: Duration = Duration::from_secs(1);
/// How long the answer about a picture of its own is waited for: meanwhile nobody looks at the other models.
const PROBE_TIME: Duration = Duration::from_secs(2);

/// What keeps a model from answering.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ailment {
    /// The runtime does not come back.
    #[error("a run has not ended for {seconds} s, though it was asked to")]
    Hangs {
        /// Since its begin.
        seconds: u64,
    },
    /// Nobody computes.
    #[error("images have waited for {seconds} s, and no worker takes them")]
    Unattended {
        /// Since the oldest came.
        seconds: u64,
    },
    /// The runtime comes back with errors.
    #[error("its last {runs} runs failed, and so does one with a picture of the server's own")]
    Fails {
        /// Without an answer in between.
        runs: u32,
        /// What the last one says, for the log.
        cause: String,
    },
}

/// What a picture of the server's own says.
enum Probe {
    Answered,
    Failed(ClassifyError),
    /// The queue is full, or the time was too short.
    Open,
}

impl Engine {
    /// What was found at the last [`Engine::check_up`].
    #[must_use]
    pub fn ailment(&self) -> Option<Ailment> {
        self.ailment.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops runs that have taken longer than `limit`, looks how the model is, and remembers it. To be called every second
    /// or so.
    pub async fn check_up(&self, limit: Duration) -> Option<Ailment> {
        self.check_up_at(Instant::now(), limit).await
    }

    async fn check_up_at(&self, now: Instant, limit: Duration) -> Option<Ailment> {
        let stopped = self.pulse.stop_longer(now, limit);
        if stopped > 0 {
            let model = self.spec.name.as_str();
            tracing::error!(model, stopped, "stopping {stopped} run(s) of {model}: longer than {limit:?}");
        }
        let over = |time: Option<Duration>, limit: Duration| time.filter(|time| *time > limit);
        let found = if let Some(run) = self.pulse.hanging(now, STOP_TIME) {
            Some(Ailment::Hangs { seconds: run.as_secs() })
        } else if let Some(wait) = over(self.queue.oldest(now), limit) {
            Some(Ailment::Unattended { seconds: wait.as_secs() })
        } else if self.pulse.failures() >= FAILURES_MAX {
            match self.probe(now + limit.min(PROBE_TIME)).await {
                Probe::Answered => None,
                Probe::Failed(error) => Some(Ailment::Fails { runs: self.pulse.failures(), cause: error.to_string() }),
                Probe::Open => self.ailment(),
            }
        } else {
            None
        };
        self.metrics.healthy(found.is_none());
        self.ailment.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&found);
        found
    }

    /// Asks the runtime to end the runs that go on.
    pub fn stop_runs(&self) {
        self.pulse.stop_longer(Instant::now(), Duration::ZERO);
    }

    /// Runs the sample that the model was warmed up with. It counts as a run, and as no image of anybody.
    async fn probe(&self, deadline: Instant) -> Probe {
        let Ok(mut places) = self.queue.reserve(1) else { return Probe::Open };
        let Some(place) = places.pop() else { return Probe::Open };
        let shape = self.spec.sample_shape;
        let sample = Sample::new(shape, vec![0.0; shape.len()]);
        let (to, answer) = oneshot::channel();
        let reply = Reply::Row { of: RowOf::Output, top_k: 1, to };
        if self.queue.push(place, Job { sample, times: StageTimes::default(), deadline, reply }).is_err() {
            return Probe::Open;
        }
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(Ok(Ok(_row))) => Probe::Answered,
            Ok(Ok(Err(error @ ClassifyError::Infer(_)))) => Probe::Failed(error),
            _ => Probe::Open,
        }
    }
}

#[cfg(test)]
mod tests;
