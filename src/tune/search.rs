//! The search: which candidates are tried, in which order and for how long, on real engines.
//!
//! Providers and layouts first, then the batches of the best of them, then delays where batches help; all in short trials.
//! The best few are started once more and measured in turn until the time is up, the field halved twice on the way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::candidate::{self, Candidate, Threads};
use super::measure::measure;
use super::point::record;
use super::rank::{self, BOUND_FACTOR, Bound, Decision, Row, Verdict};
use crate::models::Starter;
use crate::pipeline::infer::{InferError, Provider};
use crate::pipeline::{ClassifyError, EngineOptions};
use crate::zoo::Opened;

/// When each part of the search is over, as parts of the whole time: what is left is for the finalists.
const LAYOUTS_UNTIL: f64 = 0.35;
const BATCHES_UNTIL: f64 = 0.55;
const DELAYS_UNTIL: f64 = 0.65;
/// Settings of threads whose batches are tried.
const LAYOUTS_KEPT: usize = 3;
/// One measurement, as a part of the whole time, and its bounds.
const SLICE: f64 = 1.0 / 60.0;
const SLICE_MIN: Duration = Duration::from_millis(50);
const SLICE_MAX: Duration = Duration::from_secs(1);

/// What is asked of a search.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How long it may take. A trial that has begun is finished.
    pub time: Duration,
    /// The latency bound, or none for one that follows from the default.
    pub p99: Option<Duration>,
    /// The largest batch that is tried; none leaves it to the provider.
    pub batch_images_max: Option<usize>,
}

/// What is known so far. Whole at every moment, so that a search that is broken off has a result.
#[derive(Debug, Default)]
pub struct Tuning {
    /// Every candidate that was tried, the default first.
    pub rows: Vec<Row>,
    /// The bound, once it is known.
    pub bound: Option<Bound>,
    /// Candidates for which there was no time.
    pub not_tried: usize,
    /// Rows that were measured beside each other; all of them until there are such.
    pub finalists: Vec<usize>,
}

/// Why a candidate could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// The model does not start.
    #[error(transparent)]
    Start(#[from] InferError),
    /// It fails while it runs.
    #[error("an image got no classes: {0}")]
    Run(#[from] ClassifyError),
    /// A library panicked.
    #[error("starting the model panicked; the message is in the log")]
    Panicked,
}

/// A model that is to be run in many ways.
#[derive(Debug)]
pub struct Tuner {
    pub(super) starter: Starter,
    pub(super) opened: Arc<Opened>,
    pub(super) uploads: Vec<Bytes>,
    plan: Plan,
    started: Instant,
}

impl Tuning {
    /// The latency bound; the search ends no trial before it is known.
    #[must_use]
    pub fn p99(&self) -> Duration {
        self.bound.map_or(Duration::MAX, |bound| bound.p99)
    }

    /// What is to be set, as far as is known.
    #[must_use]
    pub fn decide(&self) -> Decision {
        let all: Vec<usize> = (0..self.rows.len()).collect();
        rank::decide(&self.rows, if self.finalists.is_empty() { &all } else { &self.finalists }, self.p99())
    }

    /// The candidates of the best rows.
    fn best(&self, len: usize) -> Vec<Candidate> {
        let best = rank::ranked(&self.rows, self.p99()).into_iter().take(len);
        best.map(|index| self.rows[index].candidate).collect()
    }

    /// The most images a second that any candidate has reached.
    pub(super) fn known(&self) -> f64 {
        let best = rank::ranked(&self.rows, self.p99()).first().and_then(|&index| self.rows[index].best(self.p99()));
        best.map_or(0.0, super::Point::images_per_second)
    }
}

impl Tuner {
    /// Starts the clock. `uploads` are images that can be decoded, at least one.
    #[must_use]
    pub fn new(starter: Starter, opened: Opened, uploads: Vec<Bytes>, plan: Plan) -> Self {
        Self { starter, opened: Arc::new(opened), uploads, plan, started: Instant::now() }
    }

    /// What all candidates have in common.
    #[must_use]
    pub fn base(&self) -> &EngineOptions {
        &self.starter.options
    }

    /// Part of the time that is over, 0 to 1.
    #[must_use]
    pub fn progress(&self) -> f64 {
        (self.started.elapsed().as_secs_f64() / self.plan.time.as_secs_f64()).min(1.0)
    }

    /// How long one measurement takes.
    pub(super) fn slice(&self) -> Duration {
        self.plan.time.mul_f64(SLICE).clamp(SLICE_MIN, SLICE_MAX)
    }

    /// Tries everything into `tuning`. `tell` hears what is tried next. Dropping the future breaks the search off;
    /// only an engine that is being started is finished, and dropped.
    ///
    /// # Errors
    /// [`TuneError`] of the default: where it does not run, there is nothing to compare with.
    pub async fn run(&self, tuning: &mut Tuning, tell: &dyn Fn(&str)) -> Result<(), TuneError> {
        tell("the default");
        let (default, fixed) = self.default(tuning).await?;
        let batch_max = |provider: Provider| {
            let asked = self.plan.batch_images_max.unwrap_or_else(|| candidate::batch_images_max(provider));
            fixed.map_or(asked, |fixed| asked.min(fixed))
        };
        let cores = self.base().cores.total();
        let mut layouts = Vec::new();
        for (provider, precision) in self.providers(tuning, default, tell).await {
            let batch_images_max = batch_max(provider).min(provider.batch_images_max());
            let all = candidate::threads(cores, provider).into_iter();
            layouts.extend(all.map(|threads| Candidate { provider, precision, threads, batch_images_max, ..default }));
        }
        self.try_all(tuning, layouts, LAYOUTS_UNTIL, tell).await;

        let batches = tuning.best(LAYOUTS_KEPT).into_iter().flat_map(|kept| {
            let all = candidate::batches(batch_max(kept.provider)).into_iter();
            all.map(move |batch_images_max| Candidate { batch_images_max, ..kept })
        });
        self.try_all(tuning, batches.collect(), BATCHES_UNTIL, tell).await;

        let delays = tuning.best(1).into_iter().filter(|best| rank::batches_help(&tuning.rows, best, tuning.p99()));
        let delays: Vec<Candidate> = delays
            .flat_map(|best| candidate::DELAYS.map(|batch_delay| Candidate { batch_delay, ..best }))
            .filter(|candidate| candidate.batch_delay < tuning.p99())
            .collect();
        self.try_all(tuning, delays, DELAYS_UNTIL, tell).await;
        self.finals(tuning, tell).await;
        Ok(())
    }

    /// Measures what the server does when nothing is set, and takes the bound from it where none is given.
    /// Returns how it runs, and the size of its batches where the graph fixes one.
    async fn default(&self, tuning: &mut Tuning) -> Result<(Candidate, Option<usize>), TuneError> {
        let engine = self.engine(self.base().clone()).await?;
        let execution = engine.execution();
        let candidate = Candidate {
            provider: execution.provider,
            precision: self.base().precision,
            threads: Threads::Elastic,
            batch_images_max: execution.batch_images_max,
            batch_delay: self.base().batch_delay,
        };
        let mut row = Row { is_default: true, ..Row::new(candidate) };
        let alone = measure(&engine, &self.uploads, 1, self.slice()).await?;
        let bound = match self.plan.p99 {
            Some(p99) => Bound { p99, given: true },
            None => Bound { p99: alone.p50() * BOUND_FACTOR, given: false },
        };
        tuning.bound = Some(bound);
        record(&mut row.points, alone);
        self.load(&engine, &mut row, tuning.p99(), 0.0).await?;
        tuning.rows.push(row);
        let images_max = engine.contract().images_max(usize::MAX);
        Ok((candidate, (images_max < usize::MAX).then_some(images_max)))
    }

    /// Tries those that are new, until so much of the time is over.
    async fn try_all(&self, tuning: &mut Tuning, candidates: Vec<Candidate>, until: f64, tell: &dyn Fn(&str)) {
        for candidate in candidates {
            // What has a row was tried, is the default, or gives other classes.
            if tuning.rows.iter().any(|row| row.candidate == candidate) {
                continue;
            }
            if self.progress() >= until {
                tuning.not_tried += 1;
                continue;
            }
            tell(&candidate.to_string());
            let mut row = Row::new(candidate);
            if let Err(cause) = self.trial(&mut row, tuning).await {
                row.verdict = Verdict::Failed(cause.to_string());
            }
            tuning.rows.push(row);
        }
    }
}
