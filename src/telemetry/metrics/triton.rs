//! The counters of Triton, by its names and in its units, out of our own counts: dashboards and autoscalers made for it work
//! as they are.

use std::time::Duration;

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use super::register;
use crate::telemetry::tally::{Counts, Ended};
use crate::telemetry::timing::Stage;

/// One version of one model, as it is now.
#[derive(Debug, Clone)]
pub struct WorkDone<'a> {
    /// Its name.
    pub model: &'a str,
    /// Its version.
    pub version: &'a str,
    /// What was counted since it was loaded.
    pub counts: Counts,
    /// Prepared images that wait for a worker.
    pub pending: usize,
}

const LABELS: [&str; 2] = ["model", "version"];

/// Registers the counters of `models`. Triton's counters have no `_total` at their ends.
pub(super) fn register_counts<'a>(registry: &Registry, models: impl Iterator<Item = WorkDone<'a>>) {
    let counter = |name: &str, help: &str| {
        register(registry, IntCounterVec::new(Opts::new(name, help), &LABELS).expect("metric names are constants"))
    };
    let success = counter("nv_inference_request_success", "Requests that were answered.");
    let failure = IntCounterVec::new(
        Opts::new("nv_inference_request_failure", "Requests that were not answered, by why."),
        &["model", "version", "reason"],
    );
    let failure = register(registry, failure.expect("metric names are constants"));
    let images = counter("nv_inference_count", "Images that were computed.");
    let runs = counter("nv_inference_exec_count", "Runs of the model.");
    let request = counter("nv_inference_request_duration_us", "Time of the requests that were answered.");
    let queue = counter("nv_inference_queue_duration_us", "Time that images waited for a worker.");
    let input = counter("nv_inference_compute_input_duration_us", "Time that images were decoded and resized.");
    let infer = counter("nv_inference_compute_infer_duration_us", "Time that images were in a run.");
    let output = counter("nv_inference_compute_output_duration_us", "Time that images were turned into scores.");
    let pending = IntGaugeVec::new(
        Opts::new("nv_inference_pending_request_count", "Prepared images waiting for a worker now."),
        &LABELS,
    );
    let pending = register(registry, pending.expect("metric names are constants"));
    for WorkDone { model, version, counts, pending: waiting } in models {
        let labels = [model, version];
        let count = |family: &IntCounterVec, value: u64| family.with_label_values(&labels).inc_by(value);
        count(&success, counts.ok.count);
        for why in Ended::FAILURES {
            failure.with_label_values(&[model, version, reason(why)]).inc_by(counts.failed_by(why));
        }
        count(&images, counts.images());
        count(&runs, counts.runs.values().map(|runs| runs.count).sum());
        let time = |stage| counts.stage(stage).time;
        count(&request, micros(counts.ok.time));
        count(&queue, micros(time(Stage::Queue)));
        count(&input, micros(time(Stage::Decode) + time(Stage::Preprocess)));
        count(&infer, micros(time(Stage::Infer)));
        count(&output, micros(time(Stage::Postprocess)));
        pending.with_label_values(&labels).set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }
}

/// Why a request was not answered, in Triton's words.
fn reason(ended: Ended) -> &'static str {
    match ended {
        Ended::Rejected => "REJECTED",
        Ended::Left => "CANCELED",
        Ended::ModelFailed => "BACKEND",
        Ended::Answered | Ended::Refused => "OTHER",
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
