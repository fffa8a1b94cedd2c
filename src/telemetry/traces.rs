//! Traces: whose trace a request belongs to, whether it is exported, and what is kept of it until it is. Spans are built after
//! the fact, by the thread that exports them: a request costs nothing while it runs that a stage time does not cost anyway.

mod context;
mod exporter;
mod otlp;
mod settings;
mod spans;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::http::HeaderMap;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};
use uuid::Uuid;

pub use settings::{TraceError, TraceSettings};
pub use spans::{Exchange, Wire};

use super::Metrics;
use context::Parent;
use exporter::Exporter;

/// Decides which requests are traced, and takes them when they have ended. Cheap to clone; without a collector it does nothing.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<Arc<Parts>>);

#[derive(Debug)]
struct Parts {
    exporter: Exporter,
    /// The last eight bytes of a new trace id must be below this, half of their range being all.
    ids_below: u64,
    ids: Mutex<Ids>,
}

/// The trace of one request, as far as it has one.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// What the client said of its own.
    parent: Option<Parent>,
    /// What is kept if the request is exported.
    sampled: Option<Sampled>,
}

/// A request that is exported.
#[derive(Debug, Clone, Copy)]
struct Sampled {
    trace_id: TraceId,
    span_id: SpanId,
    /// The same moment on both clocks: durations are measured on the first, and collectors read the second.
    started: (Instant, SystemTime),
}

/// Sixteen bytes that are not all zero. Shows as in W3C Trace Context: 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId(u128);

/// Eight bytes that are not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanId(u64);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Tracer {
    /// Exports traces as `settings` say.
    ///
    /// # Errors
    /// [`TraceError`] if the system gives no thread for it.
    pub fn start(settings: TraceSettings, metrics: &Metrics) -> Result<Self, TraceError> {
        let ids_below = ids_below(settings.ratio);
        let exporter = Exporter::start(settings, metrics)?;
        Ok(Self(Some(Arc::new(Parts { exporter, ids_below, ids: Mutex::new(Ids::new()) }))))
    }

    /// The trace of a request that began at `started`: the client's, if its headers name one, else a new one, if there is a
    /// collector and the ratio lets it through.
    #[must_use]
    pub fn begin(&self, headers: &HeaderMap, started: Instant) -> Trace {
        let parent = Parent::read(headers);
        let sampled = self.0.as_ref().and_then(|parts| parts.sample(parent.as_ref(), started));
        Trace { parent, sampled }
    }

    /// Takes a request that has ended. Never waits; where the collector takes too little, it is lost and counted.
    pub fn end(&self, trace: Trace, exchange: impl FnOnce() -> Exchange) {
        if let (Some(parts), Trace { parent, sampled: Some(sampled) }) = (&self.0, trace) {
            parts.exporter.push(spans::Ended { parent, sampled, exchange: exchange(), ended: Instant::now() });
        }
    }

    /// Exports what there is, and ends. Waits for it, but not longer than this. Blocks.
    pub fn stop(&self, limit: Duration) {
        if let Some(parts) = &self.0 {
            parts.exporter.stop(limit);
        }
    }
}

impl Trace {
    /// The id that its log lines have.
    #[must_use]
    pub fn trace_id(&self) -> Option<TraceId> {
        let parents = || self.parent.as_ref().map(|parent| parent.trace_id);
        self.sampled.map(|sampled| sampled.trace_id).or_else(parents)
    }

    /// The id of the request's own span, where it is exported.
    #[must_use]
    pub fn span_id(&self) -> Option<SpanId> {
        self.sampled.map(|sampled| sampled.span_id)
    }
}

impl Parts {
    fn sample(&self, parent: Option<&Parent>, started: Instant) -> Option<Sampled> {
        if parent.is_some_and(|parent| !parent.sampled) || (parent.is_none() && self.ids_below == 0) {
            return None;
        }
        let (trace_id, span_id) = {
            let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
            (parent.map_or_else(|| ids.trace(), |parent| parent.trace_id), ids.span())
        };
        // As OpenTelemetry's TraceIdRatioBased: services with the same ratio keep the same traces.
        #[expect(clippy::cast_possible_truncation, reason = "the last eight bytes are meant")]
        let last = (trace_id.0 as u64) >> 1;
        let sampled = parent.is_some() || last < self.ids_below;
        sampled.then(|| Sampled { trace_id, span_id, started: (started, wall_clock(started)) })
    }
}

/// `ratio` of half the range of eight bytes.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a ratio is from 0 to 1")]
fn ids_below(ratio: f64) -> u64 {
    const HALF: u64 = 1 << 63;
    if ratio >= 1.0 { HALF } else { (ratio.max(0.0) * HALF as f64) as u64 }
}

/// What the clock on the wall showed at `then`.
fn wall_clock(then: Instant) -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(then.elapsed()).unwrap_or(now)
}

/// Random ids. Not secret, but different in every process.
#[derive(Debug)]
struct Ids(Xoshiro256PlusPlus);

impl Ids {
    fn new() -> Self {
        let mut seed = [0; 32];
        seed[..16].copy_from_slice(Uuid::new_v4().as_bytes());
        seed[16..].copy_from_slice(Uuid::new_v4().as_bytes());
        Self(Xoshiro256PlusPlus::from_seed(seed))
    }

    fn trace(&mut self) -> TraceId {
        TraceId(u128::from(self.word()) << 64 | u128::from(self.word()))
    }

    fn span(&mut self) -> SpanId {
        SpanId(self.word())
    }

    /// Not zero, which stands for no id.
    fn word(&mut self) -> u64 {
        loop {
            let word = self.0.next_u64();
            if word != 0 {
                return word;
            }
        }
    }
}

#[cfg(test)]
mod tests;
