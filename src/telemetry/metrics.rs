//! Prometheus metrics, in base units (seconds, bytes, images). The names and labels are documented in `docs/METRICS.md`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus::core::{Collector as _, MetricVec, MetricVecBuilder};
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use super::tally::{Counts, Tally};
use super::timing::{Stage, StageTimes};

/// From 10 microseconds to 49 seconds in steps of 1.5: fine enough for a 1 ms ResNet-20 and wide enough for a queue that
/// is full. Start and step are those of Text Embeddings Inference, so dashboards compare.
const SECONDS_START: f64 = 10e-6;
const SECONDS_FACTOR: f64 = 1.5;
const SECONDS_BUCKETS: usize = 39;
/// Powers of two, as batch limits usually are.
const BATCH_BUCKETS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// All metric families of one server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    images: IntCounterVec,
    stage_seconds: HistogramVec,
    batch_images: HistogramVec,
    runs: IntCounterVec,
    queue_images: IntGaugeVec,
    model_info: GaugeVec,
    connections_refused: IntCounterVec,
    tls_expiry: IntGaugeVec,
    /// Requests that are being answered now.
    pub requests_in_flight: IntGauge,
    /// Open client connections.
    pub connections: IntGauge,
    /// Bytes of uploads held in memory now.
    pub upload_memory_bytes: IntGauge,
    /// Bytes that decodes have reserved now.
    pub decode_memory_bytes: IntGauge,
}

impl Metrics {
    /// Creates and registers every family.
    ///
    /// # Panics
    /// Never in a running program: names and labels are constants, checked by the first test that starts a server.
    #[must_use]
    pub fn new() -> Self {
        let seconds = prometheus::exponential_buckets(SECONDS_START, SECONDS_FACTOR, SECONDS_BUCKETS)
            .expect("bucket constants are positive and growing");
        let registry = Registry::new();
        let histogram = |name: &str, help: &str, buckets: Vec<f64>, labels: &[&str]| {
            let family = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels);
            register(&registry, family.expect("metric names are constants"))
        };
        let counter = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), labels).expect("metric names are constants"))
        };
        let gauge = |name: &str, help: &str| {
            register(&registry, IntGauge::new(name, help).expect("metric names are constants"))
        };
        let build_info =
            GaugeVec::new(Opts::new("residual_build_info", "The version of Residual; always 1."), &["version"]);
        register(&registry, build_info.expect("metric names are constants"))
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1.0);
        Self {
            requests: counter(
                "residual_requests_total",
                "Requests answered, by route, model and outcome (ok or the error code).",
                &["route", "model", "outcome"],
            ),
            request_seconds: histogram(
                "residual_request_duration_seconds",
                "Time from the end of the request's head to its answer.",
                seconds.clone(),
                &["route"],
            ),
            images: counter(
                "residual_images_total",
                "Images answered, by model, version and outcome (ok or the error code).",
                &["model", "version", "outcome"],
            ),
            stage_seconds: histogram(
                "residual_stage_duration_seconds",
                "Time one image spent in one stage.",
                seconds,
                &["model", "version", "stage"],
            ),
            batch_images: histogram(
                "residual_batch_images",
                "Images in one batch given to the model.",
                BATCH_BUCKETS.to_vec(),
                &["model", "version"],
            ),
            runs: counter(
                "residual_runs_total",
                "Runs of the model, by version and the cores that each took.",
                &["model", "version", "cores"],
            ),
            queue_images: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new("residual_queue_images", "Prepared images waiting for a worker now."),
                    &["model", "version"],
                )
                .expect("metric names are constants"),
            ),
            model_info: register(
                &registry,
                GaugeVec::new(
                    Opts::new("residual_model_info", "A model that is served; always 1."),
                    &["model", "version", "provider", "precision", "sha256"],
                )
                .expect("metric names are constants"),
            ),
            connections_refused: counter(
                "residual_connections_refused_total",
                "Connections that ended before their first request, by reason: client_full, handshake.",
                &["reason"],
            ),
            // Without a series until there is a certificate: 0 would be one that expired long ago.
            tls_expiry: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new(
                        "residual_tls_certificate_expiry_seconds",
                        "When the first of the server's certificates expires, in Unix time.",
                    ),
                    &[],
                )
                .expect("metric names are constants"),
            ),
            requests_in_flight: gauge("residual_requests_in_flight", "Requests that are being answered now."),
            connections: gauge("residual_connections", "Open client connections."),
            upload_memory_bytes: gauge("residual_upload_memory_bytes", "Bytes of uploads held in memory now."),
            decode_memory_bytes: gauge("residual_decode_memory_bytes", "Bytes that image decodes have reserved now."),
            registry,
        }
    }

    /// Counts one answered request. `outcome` is `ok` or the stable error code.
    pub fn request(&self, route: &str, model: &str, outcome: &str, duration: Duration) {
        self.requests.with_label_values(&[route, model, outcome]).inc();
        self.request_seconds.with_label_values(&[route]).observe(duration.as_secs_f64());
    }

    /// Counts a connection that was closed before its first request: `client_full` or `handshake`.
    pub fn connection_refused(&self, reason: &str) {
        self.connections_refused.with_label_values(&[reason]).inc();
    }

    /// Tells when the server's certificate expires, in Unix time.
    pub fn tls_expires(&self, unix_seconds: i64) {
        self.tls_expiry.with_label_values::<&str>(&[]).set(unix_seconds);
    }

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
            tally: Arc::default(),
            model: model.to_owned(),
            version: version.to_owned(),
        }
    }

    /// Announces a served model.
    pub fn model_info(&self, info: ModelInfo<'_>) {
        self.model_info.with_label_values(&info.labels()).set(1.0);
    }

    /// Takes back the announcement of an engine that serves no longer; `gone` if no other serves this version of the model.
    /// Its counters stay: a counter that vanishes reads as a restart.
    pub fn forget_model(&self, info: ModelInfo<'_>, gone: bool) {
        // Removing what was never set is no harm.
        let _ = self.model_info.remove_label_values(&info.labels());
        if gone {
            let _ = self.queue_images.remove_label_values(&[info.model, info.version]);
        }
    }

    /// Takes every series of a model off the page: one that a client added and removed again. Names that clients choose would
    /// fill the page otherwise.
    pub fn forget_series(&self, model: &str) {
        fn forget<T: MetricVecBuilder>(family: &MetricVec<T>, model: &str) {
            let of_model = |metric: &&prometheus::proto::Metric| {
                metric.get_label().iter().any(|label| label.name() == "model" && label.value() == model)
            };
            for gathered in family.collect() {
                for metric in gathered.get_metric().iter().filter(of_model) {
                    let labels: HashMap<&str, &str> =
                        metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
                    // Nobody else removes series, and one that is gone is no harm.
                    let _ = family.remove(&labels);
                }
            }
        }
        forget(&self.requests, model);
        forget(&self.images, model);
        forget(&self.stage_seconds, model);
        forget(&self.batch_images, model);
        forget(&self.runs, model);
        forget(&self.queue_images, model);
        forget(&self.model_info, model);
    }

    /// All families in the Prometheus text format, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        // Writing to a string cannot fail, and families gathered from a registry are never empty.
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "failed to encode the metrics");
        }
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn register<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    registry.register(Box::new(collector.clone())).expect("every metric name is registered once");
    collector
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
    tally: Arc<Tally>,
}

impl ModelMetrics {
    /// Counts one request, of one image or many, that was answered or failed after `took`.
    pub fn request(&self, ok: bool, took: Duration) {
        self.tally.request(ok, took);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_was_removed_leaves_no_series() {
        let metrics = Metrics::new();
        let before = metrics.render().len();
        for n in 0..50 {
            let name = format!("client-{n}");
            let model = metrics.model(&name, "1");
            model.image_ok(&StageTimes::default());
            model.image_failed("broken_image");
            model.run(1, 2, Duration::ZERO);
            metrics.request("/invocations", &name, "ok", Duration::ZERO);
            metrics.forget_series(&name);
        }
        let text = metrics.render();
        assert!(!text.contains("client-"), "{text}");
        // The time of a route has no model, and one route has been asked.
        assert!(text.len() < before + 8 * 1024, "{text}");
    }

    #[test]
    fn an_image_shows_in_every_stage_once() {
        let metrics = Metrics::new();
        let mut times = StageTimes::default();
        times.set(Stage::Infer, Duration::from_millis(3));
        let model = metrics.model("m", "2");
        model.image_ok(&times);
        model.image_failed("broken_image");
        metrics.request("/api/v1/classify", "m", "ok", Duration::from_millis(4));
        let text = metrics.render();
        for line in [
            "residual_stage_duration_seconds_count{model=\"m\",stage=\"infer\",version=\"2\"} 1",
            "residual_stage_duration_seconds_sum{model=\"m\",stage=\"infer\",version=\"2\"} 0.003",
            "residual_images_total{model=\"m\",outcome=\"ok\",version=\"2\"} 1",
            "residual_images_total{model=\"m\",outcome=\"broken_image\",version=\"2\"} 1",
            "residual_requests_total{model=\"m\",outcome=\"ok\",route=\"/api/v1/classify\"} 1",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
    }
}
