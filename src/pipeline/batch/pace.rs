//! How fast images are answered, for the door: what waits longer than its caller does is better refused at once.
//!
//! Places alone bound memory and not time: 256 images wait 0.2 s for a small model and 25 s for a large one. Without this, a slow
//! model under overload answers only those who have just stopped waiting, and its goodput goes to nothing.

use std::time::{Duration, Instant};

/// What was measured counts for about so long: some batches of a slow model, and still a quick answer to a change.
const MEMORY: Duration = Duration::from_secs(3);
/// Older measurements say nothing about the machine of now.
const STALE: Duration = Duration::from_secs(30);
/// Less time than this was not enough to measure anything.
const ENOUGH: Duration = Duration::from_millis(100);

/// Images a second, measured while there is more to do than can be done at once; before that, reckoned from single runs.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Images that were done in `seconds` under load, older ones counting less.
    images: f64,
    seconds: f64,
    /// Since when the load has lasted, or the end of the last run within it.
    since: Option<Instant>,
    measured: Option<Instant>,
    /// What the last run would make a second if the cores were never idle.
    reckoned: Option<f64>,
}

/// One run that has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    pub(super) images: usize,
    pub(super) took: Duration,
    /// The part of all cores that it had, 0 to 1.
    pub(super) share: f64,
    /// There is more to do than can be done at once.
    pub(super) loaded: bool,
    /// There was a moment since the last run in which nothing was to do.
    pub(super) rested: bool,
}

impl Pace {
    /// Takes note of a run that ended at `now`. Returns the images a second that can be expected.
    #[expect(clippy::cast_precision_loss, reason = "a batch has far fewer than 2^52 images")]
    pub(super) fn ended(&mut self, now: Instant, run: Ended) -> Option<f64> {
        let images = run.images as f64;
        let busy = run.took.as_secs_f64() * run.share;
        if busy > 0.0 {
            self.reckoned = Some(images / busy);
        }
        if self.measured.is_some_and(|measured| now.duration_since(measured) > STALE) {
            (self.images, self.seconds, self.measured) = (0.0, 0.0, None);
        }
        // A pause is not a slow machine: what waited may have gone without a run, or the process been stopped.
        let passed = self.since.map(|since| now.duration_since(since));
        let worked = passed.filter(|passed| !run.rested && *passed <= run.took + MEMORY);
        if let Some(passed) = worked.map(|passed| passed.as_secs_f64()) {
            let kept = (-passed / MEMORY.as_secs_f64()).exp();
            self.images = self.images * kept + images;
            self.seconds = self.seconds * kept + passed;
            self.measured = Some(now);
        }
        self.since = run.loaded.then_some(now);
        let measured = (self.seconds > ENOUGH.as_secs_f64()).then(|| self.images / self.seconds);
        match (measured, self.reckoned) {
            // Where the load has gone, so may have what slowed it, another model say; and a low measure would keep out the very
            // load that could correct it.
            (Some(measured), Some(reckoned)) if !run.loaded => Some(measured.max(reckoned)),
            (Some(measured), _) => Some(measured),
            (None, reckoned) => reckoned,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(images: usize, millis: u64, loaded: bool) -> Ended {
        Ended { images, took: Duration::from_millis(millis), share: 0.5, loaded, rested: false }
    }

    #[test]
    fn the_first_run_reckons_with_all_cores() {
        let rate = Pace::default().ended(Instant::now(), run(4, 100, false)).unwrap();
        assert!((rate - 80.0).abs() < 1e-9, "{rate}");
        assert_eq!(Pace::default().ended(Instant::now(), Ended { share: 0.0, ..run(4, 100, false) }), None);
    }

    #[test]
    fn under_load_what_is_measured_counts_and_not_what_was_reckoned() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let mut rate = None;
        // Two images each 250 ms, of which the model takes 20: something else is the bottleneck.
        for n in 0..40 {
            rate = pace.ended(start + Duration::from_millis(250) * n, run(2, 20, true));
        }
        assert!((rate.unwrap() - 8.0).abs() < 0.01, "{rate:?}");
    }

    #[test]
    fn a_change_of_speed_is_seen_within_seconds() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        for n in 0..100 {
            pace.ended(start + Duration::from_millis(100) * n, run(10, 100, true));
        }
        let slow = start + Duration::from_secs(10);
        let rate = (1..=10).filter_map(|n| pace.ended(slow + Duration::from_secs(1) * n, run(10, 1000, true))).last();
        assert!((9.0..15.0).contains(&rate.unwrap()), "{rate:?}");
    }

    #[test]
    fn a_low_measure_keeps_nobody_out_once_the_load_has_gone() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        for n in 0..10 {
            pace.ended(start + Duration::from_secs(1) * n, run(2, 100, true));
        }
        let rate = pace.ended(start + Duration::from_secs(10), run(2, 100, false)).unwrap();
        assert!((rate - 40.0).abs() < 0.01, "{rate}");
    }

    #[test]
    fn idle_time_is_not_counted_and_old_load_is_forgotten() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        for n in 0..20 {
            pace.ended(start + Duration::from_millis(100) * n, run(1, 100, true));
        }
        let end = start + Duration::from_millis(2000);
        assert!((pace.ended(end, run(1, 100, true)).unwrap() - 10.0).abs() < 0.01);
        // What waited then left without a run. Ten idle seconds later one image comes and goes.
        let later = end + Duration::from_secs(10);
        assert!((pace.ended(later, run(1, 50, true)).unwrap() - 10.0).abs() < 0.01);
        // The same after a short rest.
        let rested = Ended { rested: true, ..run(1, 50, true) };
        assert!((pace.ended(later + Duration::from_secs(2), rested).unwrap() - 10.0).abs() < 0.01);
        // After half a minute only its own time counts.
        assert!((pace.ended(end + Duration::from_secs(40), run(1, 50, false)).unwrap() - 40.0).abs() < 0.01);
    }
}
