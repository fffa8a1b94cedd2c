//! Sums since a model was loaded, for those who ask a server for its statistics instead of reading its metrics.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::timing::{Stage, StageTimes};

/// A number of events and the time they took together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    /// How many.
    pub count: u64,
    /// How long, all together.
    pub time: Duration,
}

impl Sum {
    fn add(&mut self, time: Duration) {
        self.count += 1;
        self.time += time;
    }
}

/// How a request ended, whatever its answer was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was answered.
    Answered,
    /// It found no place in the queue, or none of the instances in time.
    Rejected,
    /// Its client left before the answer.
    Left,
    /// The model failed.
    ModelFailed,
    /// Anything else: a broken image, a tensor of the wrong shape.
    Refused,
}

impl Ended {
    /// The ways to end without an answer.
    pub const FAILURES: [Self; 4] = [Self::Rejected, Self::Left, Self::ModelFailed, Self::Refused];
}

/// What one engine has done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// Requests that got their answer, with the time from their admission to it. One request may bring many images.
    pub ok: Sum,
    /// Requests that got an error.
    pub failed: Sum,
    /// The same by why, in the order of [`Ended::FAILURES`].
    failures: [u64; Ended::FAILURES.len()],
    /// The images that passed each stage, in the order of [`Stage::ALL`]; of those that were answered.
    pub stages: [Sum; Stage::ALL.len()],
    /// Runs of the model by the images in each.
    pub runs: BTreeMap<usize, Sum>,
    /// When the last run ended.
    pub last_run: Option<SystemTime>,
}

impl Counts {
    /// The images that passed `stage`.
    #[must_use]
    pub fn stage(&self, stage: Stage) -> Sum {
        self.stages[stage as usize]
    }

    /// Requests that ended so, and were not answered.
    #[must_use]
    pub fn failed_by(&self, ended: Ended) -> u64 {
        let known = Ended::FAILURES.iter().zip(self.failures).find(|(failure, _)| **failure == ended);
        known.map_or(0, |(_, count)| count)
    }

    /// Images that were computed.
    #[must_use]
    pub fn images(&self) -> u64 {
        self.runs.iter().map(|(&images, runs)| images as u64 * runs.count).sum()
    }
}

/// The counts of one engine while they grow.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Counts>);

impl Tally {
    pub(super) fn image_ok(&self, times: &StageTimes) {
        self.change(|counts| {
            for (stage, time) in times.passed() {
                counts.stages[stage as usize].add(time);
            }
        });
    }

    pub(super) fn request(&self, ended: Ended, took: Duration) {
        self.change(|counts| match Ended::FAILURES.iter().position(|failure| *failure == ended) {
            None => counts.ok.add(took),
            Some(index) => {
                counts.failed.add(took);
                counts.failures[index] += 1;
            }
        });
    }

    pub(super) fn run(&self, images: usize, took: Duration) {
        self.change(|counts| {
            counts.runs.entry(images).or_default().add(took);
            counts.last_run = Some(SystemTime::now());
        });
    }

    pub(super) fn counts(&self) -> Counts {
        self.change(|counts| counts.clone())
    }

    fn change<T>(&self, change: impl FnOnce(&mut Counts) -> T) -> T {
        // Additions cannot panic half way, so that a poisoned lock still guards whole counts.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn images_runs_and_stages_add_up() {
        let tally = Tally::default();
        let mut times = StageTimes::default();
        times.set(Stage::Queue, Instant::now(), Duration::from_millis(2));
        tally.run(2, Duration::from_millis(8));
        tally.run(1, Duration::from_millis(5));
        tally.run(2, Duration::from_millis(8));
        for _ in 0..4 {
            tally.image_ok(&times);
        }
        tally.request(Ended::Answered, Duration::from_millis(40));
        tally.request(Ended::Left, Duration::from_millis(1));
        tally.request(Ended::Refused, Duration::from_millis(1));
        tally.request(Ended::Left, Duration::from_millis(1));
        let counts = tally.counts();
        assert_eq!(counts.images(), 5);
        assert_eq!(counts.runs[&2], Sum { count: 2, time: Duration::from_millis(16) });
        assert_eq!(counts.ok, Sum { count: 1, time: Duration::from_millis(40) });
        assert_eq!(counts.failed, Sum { count: 3, time: Duration::from_millis(3) });
        assert_eq!(Ended::FAILURES.map(|failure| counts.failed_by(failure)), [0, 2, 0, 1]);
        assert_eq!(counts.failed_by(Ended::Answered), 0);
        assert_eq!(counts.stage(Stage::Queue), Sum { count: 4, time: Duration::from_millis(8) });
        assert_eq!(counts.stage(Stage::Decode), Sum::default());
        assert!(counts.last_run.is_some());
    }
}
