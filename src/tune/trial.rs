//! One candidate on a real engine: started, measured with a lone caller and with as many as the bound allows; the best few
//! once more beside each other.

use std::sync::Arc;
use std::time::Duration;

use super::candidate;
use super::measure::measure;
use super::point::{next_callers, record};
use super::rank::{self, Row, Verdict};
use super::search::{TuneError, Tuner, Tuning};
use crate::machine;
use crate::pipeline::{Engine, EngineOptions};

/// Candidates that are measured once more beside the default: at first, after a third of the time, after two.
const FINALISTS: [usize; 3] = [4, 2, 1];
/// Part of the whole time after which no more of them are started.
const STARTS_UNTIL: f64 = 0.8;
/// Measurements with several callers in one trial, at most: the first guess, and two corrections.
const LOADS: usize = 3;

/// A candidate that is measured once more.
struct Finalist {
    /// Its row.
    index: usize,
    engine: Engine,
    /// The callers that were best in its short trial; taken when it is measured again. What that trial said is forgotten
    /// then: the luckiest of many short trials is not the best.
    callers: Option<usize>,
}

/// Callers that `engine` can have, at most.
fn callers_max(engine: &Engine) -> usize {
    let execution = engine.execution();
    candidate::saturating(execution.layout.runs_max(), execution.batch_images_max, execution.queue_images_max)
}

impl Tuner {
    /// Starts the model. What the last engine held is given back first, so that memory is that of one.
    pub(super) async fn engine(&self, options: EngineOptions) -> Result<Engine, TuneError> {
        let (starter, opened) = (self.starter.clone(), Arc::clone(&self.opened));
        let start = move || {
            machine::heap::trim();
            let spec = opened.spec.clone();
            let metrics = starter.metrics.model(&spec.name, &spec.version);
            Engine::start(&starter.environment, spec, &opened.source, &options, starter.pool.clone(), metrics)
        };
        Ok(tokio::task::spawn_blocking(start).await.map_err(|_panicked| TuneError::Panicked)??)
    }

    /// Starts a candidate, measures a lone caller and then as many as the bound allows.
    pub(super) async fn trial(&self, row: &mut Row, tuning: &Tuning) -> Result<(), TuneError> {
        let engine = self.engine(row.candidate.options(self.base())).await?;
        record(&mut row.points, measure(&engine, &self.uploads, 1, self.slice() / 2).await?);
        self.load(&engine, row, tuning.p99(), tuning.known()).await
    }

    /// Looks for the number of callers that gets the most out of `engine`.
    pub(super) async fn load(
        &self,
        engine: &Engine,
        row: &mut Row,
        p99: Duration,
        known: f64,
    ) -> Result<(), TuneError> {
        row.precision = Some(engine.execution().precision);
        for _ in 0..LOADS {
            let callers = next_callers(&row.points, p99, callers_max(engine), known);
            if row.points.iter().any(|point| point.callers == callers) {
                break;
            }
            record(&mut row.points, measure(engine, &self.uploads, callers, self.slice()).await?);
        }
        // Later ones stand on what earlier ones left behind: OpenVINO and the allocator keep some of it.
        row.resident_bytes = machine::resident_bytes().filter(|_| row.is_default);
        Ok(())
    }

    /// Starts the best once more and measures them in turn, so that whatever else the machine does hits them all.
    pub(super) async fn finals(&self, tuning: &mut Tuning, tell: &dyn Fn(&str)) {
        let all: Vec<usize> = (0..tuning.rows.len()).collect();
        let mut field = Vec::new();
        for index in rank::finalists(&tuning.rows, &all, FINALISTS[0], tuning.p99()) {
            let (p99, row) = (tuning.p99(), &mut tuning.rows[index]);
            // The default and one beside it always fit.
            if field.len() >= 2 && self.progress() > STARTS_UNTIL {
                break;
            }
            let callers = row.shown(p99).map(|point| point.callers);
            // Of the default it is not known whether it may win.
            let (Some(callers), Verdict::Measured) = (callers, &row.verdict) else { continue };
            tell(&format!("again: {}", row.candidate));
            match self.engine(row.candidate.options(self.base())).await {
                Ok(engine) => field.push(Finalist { index, engine, callers: Some(callers) }),
                Err(error) => row.verdict = Verdict::Failed(error.to_string()),
            }
        }
        tuning.finalists = field.iter().map(|finalist| finalist.index).collect();
        let began = self.progress();
        for (round, len) in FINALISTS.into_iter().enumerate() {
            let until = began + (1.0 - began) * (round + 1) as f64 / FINALISTS.len() as f64;
            if round > 0 {
                let kept = rank::finalists(&tuning.rows, &tuning.finalists, len, tuning.p99());
                field.retain(|finalist| kept.contains(&finalist.index));
            }
            // Once, however late it is: without it there is nothing to compare.
            let mut unmeasured = round == 0;
            while unmeasured || (!field.is_empty() && self.progress() < until) {
                unmeasured = false;
                for finalist in &mut field {
                    tell(&format!("again: {}", tuning.rows[finalist.index].candidate));
                    if let Err(error) = self.again(finalist, tuning).await {
                        tuning.rows[finalist.index].verdict = Verdict::Failed(error.to_string());
                    }
                }
                field.retain(|finalist| tuning.rows[finalist.index].verdict == Verdict::Measured);
            }
        }
    }

    /// Measures a finalist once more.
    async fn again(&self, finalist: &mut Finalist, tuning: &mut Tuning) -> Result<(), TuneError> {
        let (p99, known, row) = (tuning.p99(), tuning.known(), &mut tuning.rows[finalist.index]);
        let forgets = finalist.callers.is_some();
        let next = || next_callers(&row.points, p99, callers_max(&finalist.engine), known);
        let callers = finalist.callers.take().unwrap_or_else(next);
        let alone = measure(&finalist.engine, &self.uploads, 1, self.slice() / 4).await?;
        let load = measure(&finalist.engine, &self.uploads, callers, self.slice()).await?;
        if forgets {
            row.points.clear();
        }
        record(&mut row.points, alone);
        record(&mut row.points, load);
        Ok(())
    }
}
