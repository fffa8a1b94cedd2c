//! How long one image spent in each stage, and the `Server-Timing` header that tells the client.

use std::fmt::Write as _;
use std::time::Duration;

/// The stages an image passes, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Upload bytes to pixels, with the wait for a decode permit.
    Decode,
    /// Pixels to a sample.
    Preprocess,
    /// From entering the batch queue until a worker took it.
    Queue,
    /// The run of the whole batch the image was part of.
    Infer,
    /// Scores, top-k and labels of the image.
    Postprocess,
}

impl Stage {
    /// All stages, in the order an image passes them.
    pub const ALL: [Self; 5] = [Self::Decode, Self::Preprocess, Self::Queue, Self::Infer, Self::Postprocess];

    /// The name in metrics, logs and `Server-Timing`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Preprocess => "preprocess",
            Self::Queue => "queue",
            Self::Infer => "infer",
            Self::Postprocess => "postprocess",
        }
    }
}

/// Times of one image (or, of a request with several, the longest of each stage) and the size of its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StageTimes {
    durations: [Option<Duration>; Stage::ALL.len()],
    /// Images in the batch this image was computed with; 0 when it never reached one.
    pub batch_len: usize,
}

impl StageTimes {
    /// The time spent in `stage`; none where it was left out, as decoding is for a tensor.
    #[must_use]
    pub fn get(&self, stage: Stage) -> Option<Duration> {
        self.durations[stage as usize]
    }

    /// The stages that were passed, with the time spent in each.
    pub fn passed(&self) -> impl Iterator<Item = (Stage, Duration)> {
        Stage::ALL.into_iter().filter_map(|stage| Some((stage, self.get(stage)?)))
    }

    /// Records the time spent in `stage`.
    pub fn set(&mut self, stage: Stage, duration: Duration) {
        self.durations[stage as usize] = Some(duration);
    }

    /// The longer of both in every stage: images of one request run side by side, so their sum would exceed the
    /// request's own duration.
    #[must_use]
    pub fn max(mut self, other: Self) -> Self {
        for (mine, theirs) in self.durations.iter_mut().zip(other.durations) {
            *mine = (*mine).max(theirs);
        }
        self.batch_len = self.batch_len.max(other.batch_len);
        self
    }

    /// A `Server-Timing` value (W3C Server Timing): durations in milliseconds, with three decimals, then the batch
    /// size as the description of `batch`, then the request's `total`.
    #[must_use]
    pub fn server_timing(&self, total: Duration) -> String {
        let mut value = String::with_capacity(160);
        if self.batch_len > 0 {
            for (stage, duration) in self.passed() {
                push_metric(&mut value, stage.name(), duration);
            }
            let _ = write!(value, "batch;desc=\"{}\", ", self.batch_len);
        }
        push_metric(&mut value, "total", total);
        value.truncate(value.len() - 2);
        value
    }
}

fn push_metric(value: &mut String, name: &str, duration: Duration) {
    let _ = write!(value, "{name};dur={:.3}, ", duration.as_secs_f64() * 1e3);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_timing_lists_the_stages_in_order_with_batch_size_and_total() {
        let mut times = StageTimes { batch_len: 8, ..StageTimes::default() };
        for (index, stage) in Stage::ALL.into_iter().enumerate() {
            times.set(stage, Duration::from_micros(1500 * (index as u64 + 1)));
        }
        assert_eq!(
            times.server_timing(Duration::from_millis(30)),
            "decode;dur=1.500, preprocess;dur=3.000, queue;dur=4.500, infer;dur=6.000, postprocess;dur=7.500, \
             batch;desc=\"8\", total;dur=30.000"
        );
    }

    #[test]
    fn a_request_without_inference_reports_its_total_only() {
        assert_eq!(StageTimes::default().server_timing(Duration::from_micros(250)), "total;dur=0.250");
    }

    #[test]
    fn several_images_report_the_longest_of_each_stage() {
        let (mut a, mut b) = (StageTimes::default(), StageTimes::default());
        a.set(Stage::Decode, Duration::from_millis(5));
        b.set(Stage::Infer, Duration::from_millis(7));
        b.batch_len = 2;
        let both = a.max(b);
        assert_eq!(both.get(Stage::Decode), Some(Duration::from_millis(5)));
        assert_eq!(both.get(Stage::Infer), Some(Duration::from_millis(7)));
        assert_eq!(both.get(Stage::Queue), None);
        assert_eq!(both.batch_len, 2);
    }
}
