//! When and how long an image was in each stage, and the `Server-Timing` header that tells the client.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

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

/// Times of one image (or, of a request with several, of all of them) and the size of its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StageTimes {
    stages: [Option<Passed>; Stage::ALL.len()],
    /// Images in the batch this image was computed with; 0 when it never reached one.
    pub batch_len: usize,
}

/// One stage that was passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// How long one image was in it, the longest where there are several.
    pub longest: Duration,
    /// When the first image came to it.
    pub began: Instant,
    /// When the last one left it.
    pub ended: Instant,
}

impl StageTimes {
    /// The time spent in `stage`; none where it was left out, as decoding is for a tensor.
    #[must_use]
    pub fn get(&self, stage: Stage) -> Option<Duration> {
        self.passed_stage(stage).map(|passed| passed.longest)
    }

    /// The stages that were passed, with the time spent in each.
    pub fn passed(&self) -> impl Iterator<Item = (Stage, Duration)> {
        Stage::ALL.into_iter().filter_map(|stage| Some((stage, self.get(stage)?)))
    }

    /// When the images were in `stage`; none where it was left out.
    #[must_use]
    pub fn passed_stage(&self, stage: Stage) -> Option<Passed> {
        self.stages[stage as usize]
    }

    /// Records the time spent in `stage`.
    pub fn set(&mut self, stage: Stage, began: Instant, took: Duration) {
        self.stages[stage as usize] = Some(Passed { longest: took, began, ended: began + took });
    }

    /// The times of both: of every stage the longer one, from when the first image came to when the last one left. Images of
    /// one request run side by side, so their sum would exceed the request's own duration.
    #[must_use]
    pub fn max(mut self, other: Self) -> Self {
        for (mine, theirs) in self.stages.iter_mut().zip(other.stages) {
            *mine = match (*mine, theirs) {
                (Some(mine), Some(theirs)) => Some(mine.with(theirs)),
                (one, other) => one.or(other),
            };
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

impl Passed {
    fn with(self, other: Self) -> Self {
        Self {
            longest: self.longest.max(other.longest),
            began: self.began.min(other.began),
            ended: self.ended.max(other.ended),
        }
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
        let now = Instant::now();
        for (index, stage) in Stage::ALL.into_iter().enumerate() {
            times.set(stage, now, Duration::from_micros(1500 * (index as u64 + 1)));
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
        let (now, ms) = (Instant::now(), Duration::from_millis);
        a.set(Stage::Decode, now, ms(5));
        b.set(Stage::Decode, now + ms(4), ms(3));
        b.set(Stage::Infer, now, ms(7));
        b.batch_len = 2;
        let both = a.max(b);
        assert_eq!(both.get(Stage::Decode), Some(Duration::from_millis(5)));
        assert_eq!(both.get(Stage::Infer), Some(Duration::from_millis(7)));
        assert_eq!(both.get(Stage::Queue), None);
        let decode = both.passed_stage(Stage::Decode).unwrap();
        assert_eq!((decode.began, decode.ended), (now, now + ms(7)));
        assert_eq!(b.max(a).passed_stage(Stage::Decode), Some(decode));
        assert_eq!(both.batch_len, 2);
    }
}
