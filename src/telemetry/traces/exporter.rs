//! From requests that have ended to a collector: a bounded queue, and one thread that builds spans, sends them in batches,
//! and tries again with pauses. A collector that is down or slow costs lost spans, which are counted, and a line a minute.

mod collector;

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use prost::Message as _;

use self::collector::{Answer, Collector};
use super::Ids;
use super::otlp::{ExportTraceServiceRequest, KeyValue, Resource, ResourceSpans, Scope, ScopeSpans};
use super::settings::{TraceError, TraceSettings};
use super::spans::{Ended, SCHEMA_URL};
use crate::telemetry::Metrics;

/// Requests that wait to be exported. Each has up to six spans and holds about a kilobyte.
const WAITING_MAX: usize = 2048;
/// Requests in one export: some hundred kilobytes.
const BATCH_MAX: usize = 256;
/// How long a request waits for company.
const DELAY: Duration = Duration::from_secs(1);
/// How often a batch is sent before it is given up.
const TRIES: u32 = 5;
/// Pause after the first try; doubled after each further one.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause, whatever the collector asks for.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Between two lines about the same trouble.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// Takes requests and exports them on a thread of its own.
#[derive(Debug)]
pub(super) struct Exporter {
    queue: Arc<Queue>,
    not_queued: IntCounter,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Ended>,
    /// What waits is sent at once, and then the thread ends.
    stopping: bool,
    stopped: bool,
}

/// The thread's own.
struct Work {
    queue: Arc<Queue>,
    collector: Collector,
    resource: Resource,
    ids: Ids,
    exported: IntCounter,
    not_exported: IntCounter,
    trouble: Trouble,
}

impl Exporter {
    pub(super) fn start(settings: TraceSettings, metrics: &Metrics) -> Result<Self, TraceError> {
        let queue = Arc::<Queue>::default();
        let resource = settings.resource.iter().map(|(key, value)| KeyValue::text(key, value.as_str())).collect();
        let work = Work {
            queue: Arc::clone(&queue),
            resource: Resource { attributes: resource },
            collector: Collector::new(settings),
            ids: Ids::new(),
            exported: metrics.spans_exported.clone(),
            not_exported: metrics.spans_not_exported.clone(),
            trouble: Trouble::default(),
        };
        // Ends when the queue is told to stop, which the exporter does at the latest when it is dropped.
        let thread = std::thread::Builder::new().name("traces".to_owned());
        thread.spawn(move || work.run()).map_err(TraceError::Thread)?;
        Ok(Self { queue, not_queued: metrics.spans_not_queued.clone() })
    }

    /// Queues a request, or counts its spans as lost.
    pub(super) fn push(&self, ended: Ended) {
        let mut state = self.queue.lock();
        if state.waiting.len() >= WAITING_MAX || state.stopping {
            self.not_queued.inc_by(ended.len() as u64);
            return;
        }
        state.waiting.push_back(ended);
        let is_batch = state.waiting.len() == BATCH_MAX;
        drop(state);
        if is_batch {
            self.queue.changed.notify_all();
        }
    }

    /// Has everything sent once and waits for it, but not longer than this.
    pub(super) fn stop(&self, limit: Duration) {
        let mut state = self.queue.lock();
        state.stopping = true;
        self.queue.changed.notify_all();
        // Whatever is left then is lost with the process.
        let _ = self.queue.changed.wait_timeout_while(state, limit, |state| !state.stopped);
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.queue.lock().stopping = true;
        self.queue.changed.notify_all();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next requests to send, once there are enough of them or they have waited long enough; none when it is time to end.
    fn take(&self) -> Option<Vec<Ended>> {
        loop {
            let enough = |state: &mut State| !state.stopping && state.waiting.len() < BATCH_MAX;
            let waited = self.changed.wait_timeout_while(self.lock(), DELAY, enough);
            let (mut state, _timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if state.waiting.is_empty() && state.stopping {
                return None;
            }
            let len = state.waiting.len().min(BATCH_MAX);
            if len > 0 {
                return Some(state.waiting.drain(..len).collect());
            }
        }
    }

    /// Waits before the next try. False if it is time to end.
    fn pause(&self, pause: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), pause, |state| !state.stopping);
        !waited.unwrap_or_else(PoisonError::into_inner).0.stopping
    }
}

impl Work {
    fn run(mut self) {
        while let Some(batch) = self.queue.take() {
            let (message, spans) = self.message(&batch);
            drop(batch);
            self.send(&message, spans);
        }
        self.queue.lock().stopped = true;
        self.queue.changed.notify_all();
    }

    /// The message about these requests, and how many spans it has.
    fn message(&mut self, batch: &[Ended]) -> (Vec<u8>, u64) {
        let mut spans = Vec::with_capacity(batch.iter().map(Ended::len).sum());
        batch.iter().for_each(|ended| ended.spans(&mut self.ids, &mut spans));
        let len = spans.len() as u64;
        let scope = Scope { name: "residual".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let scope_spans = ScopeSpans { scope: Some(scope), spans, schema_url: SCHEMA_URL.to_owned() };
        let resource_spans = ResourceSpans {
            resource: Some(self.resource.clone()),
            scope_spans: vec![scope_spans],
            schema_url: SCHEMA_URL.to_owned(),
        };
        (ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec(), len)
    }

    /// Sends one batch, until it is taken or given up.
    fn send(&mut self, message: &[u8], spans: u64) {
        for attempt in 1..=TRIES {
            match self.collector.send(message) {
                Answer::Taken { rejected: 0, .. } => {
                    self.exported.inc_by(spans);
                    self.trouble.over();
                    return;
                }
                Answer::Taken { rejected, why } => {
                    let rejected = rejected.min(spans);
                    self.exported.inc_by(spans - rejected);
                    return self.lose(rejected, &why);
                }
                Answer::Refused { why } => return self.lose(spans, &why),
                Answer::TryAgain { why, after } => {
                    let pause = after.unwrap_or(PAUSE * 2_u32.pow(attempt - 1)).min(PAUSE_MAX);
                    self.trouble.note(0, &why);
                    if attempt == TRIES || !self.queue.pause(pause) {
                        return self.lose(spans, &why);
                    }
                }
            }
        }
    }

    fn lose(&mut self, spans: u64, why: &str) {
        self.not_exported.inc_by(spans);
        self.trouble.note(spans, why);
    }
}

/// Tells the operator that spans do not arrive, at most once a minute.
#[derive(Debug, Default)]
struct Trouble {
    lost: u64,
    logged: Option<Instant>,
}

impl Trouble {
    fn note(&mut self, lost: u64, why: &str) {
        if let Some(lost) = self.count(lost, Instant::now()) {
            tracing::warn!(
                lost,
                "the collector takes no traces: {why}; {lost} span(s) were lost since the last such line"
            );
        }
    }

    /// Counts lost spans; returns the number to log if it is time to.
    fn count(&mut self, lost: u64, now: Instant) -> Option<u64> {
        self.lost += lost;
        let due = self.logged.is_none_or(|logged| now.duration_since(logged) >= LOG_PAUSE);
        due.then(|| {
            self.logged = Some(now);
            std::mem::take(&mut self.lost)
        })
    }

    fn over(&mut self) {
        if self.logged.take().is_some() {
            let lost = std::mem::take(&mut self.lost);
            tracing::info!(lost, "the collector takes traces again; {lost} more span(s) were lost");
        }
    }
}

#[cfg(test)]
mod tests;
