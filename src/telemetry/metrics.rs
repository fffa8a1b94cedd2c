//! Prometheus metrics, in base units (seconds, bytes, images). The names and labels are documented in `docs/METRICS.md`.

mod model;
mod process;
mod triton;

use std::collections::HashMap;
use std::time::Duration;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

pub use model::{ModelInfo, ModelMetrics};
pub use triton::WorkDone;

use super::logging;

/// From 10 microseconds to 49 seconds in steps of 1.5: fine enough for a 1 ms ResNet-20 and wide enough for a queue that
/// is full. Start and step are those of Text Embeddings Inference, so dashboards compare.
const SECONDS_START: f64 = 10e-6;
const SECONDS_FACTOR: f64 = 1.5;
const SECONDS_BUCKETS: usize = 39;
/// Why a connection ends before its first request.
const REFUSALS: [&str; 2] = ["client_full", "handshake"];
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
    model_healthy: IntGaugeVec,
    queue_images_max: IntGaugeVec,
    model_info: GaugeVec,
    model_load_seconds: GaugeVec,
    /// Show Triton's names, too.
    triton: bool,
    connections_refused: IntCounterVec,
    tls_expiry: IntGaugeVec,
    /// Requests that are being answered now.
    pub requests_in_flight: IntGauge,
    /// Open client connections.
    pub connections: IntGauge,
    /// How many there may be.
    pub connections_max: IntGauge,
    /// Bytes of uploads held in memory now.
    pub upload_memory_bytes: IntGauge,
    /// How many there may be.
    pub upload_memory_max_bytes: IntGauge,
    /// Bytes that decodes have reserved now.
    pub decode_memory_bytes: IntGauge,
    /// How many there may be.
    pub decode_memory_max_bytes: IntGauge,
    /// 1 while the server says that it is ready.
    pub ready: IntGauge,
    /// Spans that a collector took.
    pub spans_exported: IntCounter,
    /// Spans that came while the queue was full.
    pub spans_not_queued: IntCounter,
    /// Spans that the collector did not take.
    pub spans_not_exported: IntCounter,
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
        let of_model = |name: &str, help: &str| {
            let family = IntGaugeVec::new(Opts::new(name, help), &["model", "version"]);
            register(&registry, family.expect("metric names are constants"))
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, GaugeVec::new(Opts::new(name, help), labels).expect("metric names are constants"))
        };
        let spans_dropped =
            counter("residual_spans_dropped_total", "Spans that no collector got, by why.", &["reason"]);
        let spans_exported = IntCounter::new("residual_spans_exported_total", "Spans that a collector took.");
        gauges("residual_build_info", "The version of Residual; always 1.", &["version"])
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1.0);
        let connections_refused = counter(
            "residual_connections_refused_total",
            "Connections that ended before their first request, by reason: client_full, handshake.",
            &["reason"],
        );
        // There from the start: a counter that begins with its first event hides it from a rate.
        REFUSALS.iter().for_each(|reason| drop(connections_refused.with_label_values(&[reason])));
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
            queue_images: of_model("residual_queue_images", "Prepared images waiting for a worker now."),
            queue_images_max: of_model(
                "residual_queue_images_max",
                "Images that may be in preparation or wait for a worker.",
            ),
            model_healthy: of_model(
                "residual_model_healthy",
                "1 while runs of the model end and bring answers, else 0.",
            ),
            model_info: gauges(
                "residual_model_info",
                "A model that is served; always 1.",
                &["model", "version", "provider", "precision", "sha256"],
            ),
            model_load_seconds: gauges(
                "residual_model_load_seconds",
                "How long the model took to load and warm up.",
                &["model", "version"],
            ),
            triton: false,
            connections_refused,
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
            connections_max: gauge("residual_connections_max", "Client connections that may be open."),
            upload_memory_bytes: gauge("residual_upload_memory_bytes", "Bytes of uploads held in memory now."),
            upload_memory_max_bytes: gauge("residual_upload_memory_max_bytes", "Bytes of uploads that may be held."),
            decode_memory_bytes: gauge("residual_decode_memory_bytes", "Bytes that image decodes have reserved now."),
            decode_memory_max_bytes: gauge("residual_decode_memory_max_bytes", "Bytes that decodes may reserve."),
            ready: gauge("residual_ready", "1 while the server says that it is ready."),
            spans_exported: register(&registry, spans_exported.expect("metric names are constants")),
            spans_not_queued: spans_dropped.with_label_values(&["queue_full"]),
            spans_not_exported: spans_dropped.with_label_values(&["export_failed"]),
            registry,
        }
    }

    /// The same families, and Triton's names beside them.
    #[must_use]
    pub fn with_triton(self, triton: bool) -> Self {
        Self { triton, ..self }
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
        forget(&self.model_healthy, model);
        forget(&self.queue_images_max, model);
        forget(&self.model_info, model);
        forget(&self.model_load_seconds, model);
    }

    /// All families in the Prometheus text format, version 0.0.4. `models` are those that are served; only Triton's names need
    /// them.
    #[must_use]
    pub fn render<'a>(&self, models: impl Iterator<Item = WorkDone<'a>>) -> String {
        // What is read at this moment and kept nowhere.
        let now = Registry::new();
        process::register_figures(&now);
        let lines = IntCounter::new("residual_log_lines_dropped_total", "Log lines that nobody read in time.");
        register(&now, lines.expect("metric names are constants")).inc_by(logging::dropped_lines());
        if self.triton {
            triton::register_counts(&now, models);
        }
        let mut text = String::with_capacity(16 * 1024);
        for registry in [&self.registry, &now] {
            // Writing to a string cannot fail, and families gathered from a registry are never empty.
            if let Err(error) = TextEncoder::new().encode_utf8(&registry.gather(), &mut text) {
                tracing::error!(%error, "failed to encode the metrics");
            }
        }
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    registry.register(Box::new(collector.clone())).expect("every metric name is registered once");
    collector
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::telemetry::timing::{Stage, StageTimes};

    #[test]
    fn a_model_that_was_removed_leaves_no_series() {
        let metrics = Metrics::new();
        let before = metrics.render(std::iter::empty()).len();
        for n in 0..50 {
            let name = format!("client-{n}");
            let model = metrics.model(&name, "1");
            model.image_ok(&StageTimes::default());
            model.image_failed("broken_image");
            model.run(1, 2, Duration::ZERO);
            metrics.request("/invocations", &name, "ok", Duration::ZERO);
            metrics.forget_series(&name);
        }
        let text = metrics.render(std::iter::empty());
        assert!(!text.contains("client-"), "{text}");
        // The time of a route has no model, and one route has been asked.
        assert!(text.len() < before + 8 * 1024, "{text}");
    }

    #[test]
    fn an_image_shows_in_every_stage_once() {
        let metrics = Metrics::new();
        let mut times = StageTimes::default();
        times.set(Stage::Infer, Instant::now(), Duration::from_millis(3));
        let model = metrics.model("m", "2");
        model.image_ok(&times);
        model.image_failed("broken_image");
        metrics.request("/api/v1/classify", "m", "ok", Duration::from_millis(4));
        let text = metrics.render(std::iter::empty());
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
