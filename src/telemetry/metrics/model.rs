//! What is counted of one model, and how its series come and go.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::Metrics;
use crate::telemetry::tally::{Counts, Ended, Tally};
use crate::telemetry::timing::{Stage, StageTimes};

impl Metrics {
    /// The series of one model, looked up once so that the per-image path touches no map.
    #[must_use]
    pub fn model(&self, model: &str, version: &str) -> ModelMetrics {
        ModelMetrics {
            images: self.images.clone(),
            images_ok: self.images.with_label_values(&[model, version, "ok"]),
            stage_seconds: Stage::ALL
                .map(|stage| self.stage_seconds.with_label_values(&[model, version, stage.name()])),
            batch_images: self.batch_images.with_label_values(&[model, version]),
            runs: self.runs.clone(),
            queue_images: self.queue_images.with_label_values(&[model, version]),
            healthy: self.model_healthy.clone(),
            tally: Arc::default(),
            model: model.to_owned(),
            version: version.to_owned(),
        }
    }

    /// Announces a served model, whose load took so long.
    pub fn model_info(&self, info: ModelInfo<'_>, load: Duration) {
        let model = [info.model, info.version];
        self.model_info.with_label_values(&info.labels()).set(1.0);
        // From here on, and not while it loads: it would page somebody.
        self.model_healthy.with_label_values(&model).set(1);
        self.model_load_seconds.with_label_values(&model).set(load.as_secs_f64());
        self.queue_images_max.with_label_values(&model).set(i64::try_from(info.queue_images_max).unwrap_or(i64::MAX));
    }

    /// Takes back the announcement of an engine that serves no longer; `gone` if no other serves this version of the model.
    /// Its counters stay: a counter that vanishes reads as a restart.
    pub fn forget_model(&self, info: ModelInfo<'_>, gone: bool) {
        // Removing what was never set is no harm.
        let _ = self.model_info.remove_label_values(&info.labels());
        if gone {
            let model = [info.model, info.version];
            let _ = self.queue_images.remove_label_values(&model);
            let _ = self.queue_images_max.remove_label_values(&model);
            let _ = self.model_healthy.remove_label_values(&model);
            let _ = self.model_load_seconds.remove_label_values(&model);
        }
    }
}

/// What is announced of a model that is served.
#[derive(Debug, Clone, Copy)]
pub struct ModelInfo<'a> {
    /// Its name.
    pub model: &'a str,
    /// Its version.
    pub version: &'a str,
    /// The execution provider in use.
    pub provider: &'a str,
    /// What that multiplies in.
    pub precision: &'a str,
    /// sha256 of its file.
    pub sha256: &'a str,
    /// Images that its queue has places for.
    pub queue_images_max: usize,
}

impl<'a> ModelInfo<'a> {
    fn labels(self) -> [&'a str; 5] {
        [self.model, self.version, self.provider, self.precision, self.sha256]
    }
}

/// The series of one model.
#[derive(Debug, Clone)]
pub struct ModelMetrics {
    model: String,
    version: String,
    images: IntCounterVec,
    images_ok: IntCounter,
    stage_seconds: [Histogram; Stage::ALL.len()],
    batch_images: Histogram,
    runs: IntCounterVec,
    queue_images: IntGauge,
    healthy: IntGaugeVec,
    tally: Arc<Tally>,
}

impl ModelMetrics {
    /// Counts one request, of one image or many, that ended so after `took`.
    pub fn request(&self, ended: Ended, took: Duration) {
        self.tally.request(ended, took);
    }

    /// Counts one image that got its answer, with its stage times.
    pub fn image_ok(&self, times: &StageTimes) {
        self.images_ok.inc();
        for (stage, duration) in times.passed() {
            self.stage_seconds[stage as usize].observe(duration.as_secs_f64());
        }
        self.tally.image_ok(times);
    }

    /// Counts one image that got an error with this stable code.
    pub fn image_failed(&self, code: &str) {
        self.images.with_label_values(&[self.model.as_str(), self.version.as_str(), code]).inc();
    }

    /// Shows how many prepared images wait for a worker now.
    pub fn queue_len(&self, len: usize) {
        self.queue_images.set(i64::try_from(len).unwrap_or(i64::MAX));
    }

    /// Shows whether runs of the model end and bring answers.
    pub fn healthy(&self, healthy: bool) {
        self.healthy.with_label_values(&[self.model.as_str(), self.version.as_str()]).set(i64::from(healthy));
    }

    /// What was counted since the model was loaded.
    #[must_use]
    pub fn tally(&self) -> Counts {
        self.tally.counts()
    }

    /// Counts one run of a batch of `len` images on so many cores.
    pub fn run(&self, len: usize, cores: usize, took: Duration) {
        self.tally.run(len, took);
        #[expect(clippy::cast_precision_loss, reason = "a batch has far fewer than 2^52 images")]
        self.batch_images.observe(len as f64);
        self.runs.with_label_values(&[self.model.as_str(), self.version.as_str(), &cores.to_string()]).inc();
    }
}
