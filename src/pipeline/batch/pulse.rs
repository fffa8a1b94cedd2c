//! What a watchdog can see of an engine: the runs that are going on, how long they have, and how the last ones ended.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::pipeline::infer::Brake;

/// The runs of one engine. Each worker writes its own; a watchdog reads all.
#[derive(Debug)]
pub struct Pulse {
    workers: Vec<Mutex<Option<Running>>>,
    /// Runs that failed since the last one that brought an answer.
    failures: AtomicU32,
}

/// A run that has begun and not ended.
#[derive(Debug)]
struct Running {
    since: Instant,
    brake: Option<Brake>,
    /// When it was asked to end.
    pulled: Option<Instant>,
}

impl Pulse {
    /// Of so many workers, all idle.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { workers: (0..workers).map(|_| Mutex::new(None)).collect(), failures: AtomicU32::new(0) }
    }

    /// A run of worker `index` begins; `brake` can end it.
    pub fn begin(&self, index: usize, brake: Option<Brake>) {
        *self.of(index) = Some(Running { since: Instant::now(), brake, pulled: None });
    }

    /// It has ended. Tells whether it was stopped; the instance can run again then.
    pub fn end(&self, index: usize) -> bool {
        match self.of(index).take() {
            // Under the same lock as the stop: no later run is meant by it.
            Some(Running { pulled: Some(_), brake, .. }) => {
                if let Some(brake) = brake {
                    brake.release();
                }
                true
            }
            _ => false,
        }
    }

    /// A run brought at least one answer, or none.
    pub fn answered(&self, any: bool) {
        if any {
            // Written only where it changes: all workers share the line.
            if self.failures.load(Ordering::Relaxed) != 0 {
                self.failures.store(0, Ordering::Relaxed);
            }
        } else {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Runs that failed since the last one that brought an answer.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// How long the oldest of the runs has taken that were asked to end more than `patience` ago.
    #[must_use]
    pub fn hanging(&self, now: Instant, patience: Duration) -> Option<Duration> {
        let is_hanging =
            |running: &&Running| running.pulled.is_some_and(|pulled| now.saturating_duration_since(pulled) > patience);
        let since = |index| self.of(index).as_ref().filter(is_hanging).map(|running| running.since);
        (0..self.workers.len()).filter_map(since).min().map(|since| now.duration_since(since))
    }

    /// Asks the runtime to end every run that has taken longer than `limit`, once each. Returns how many were asked.
    pub fn stop_longer(&self, now: Instant, limit: Duration) -> usize {
        let stop = |index: &usize| match self.of(*index).as_mut() {
            Some(running) if running.pulled.is_none() && now.duration_since(running.since) > limit => {
                running.pulled = Some(now);
                if let Some(brake) = &running.brake {
                    brake.pull();
                }
                true
            }
            _ => false,
        };
        (0..self.workers.len()).filter(stop).count()
    }

    fn of(&self, index: usize) -> MutexGuard<'_, Option<Running>> {
        // Whole values are put in and taken out.
        self.workers[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_hangs_that_was_asked_to_end_and_does_not() {
        let (pulse, patience) = (Pulse::new(2), Duration::from_secs(1));
        pulse.begin(1, None);
        let later = Instant::now() + Duration::from_secs(60);
        assert_eq!(pulse.hanging(later, patience), None, "nobody has asked it");
        assert_eq!(pulse.stop_longer(later, Duration::from_secs(30)), 1);
        assert_eq!(pulse.hanging(later, patience), None, "it was asked just now");
        let hanging = pulse.hanging(later + Duration::from_secs(2), patience).unwrap();
        assert!(hanging >= Duration::from_secs(61), "{hanging:?}");
        assert!(pulse.end(1));
        assert_eq!(pulse.hanging(later + Duration::from_secs(2), patience), None);
    }

    #[test]
    fn a_run_is_stopped_once_and_the_next_one_is_not() {
        let pulse = Pulse::new(2);
        pulse.begin(0, None);
        let later = Instant::now() + Duration::from_secs(5);
        assert_eq!(pulse.stop_longer(later, Duration::from_secs(60)), 0);
        assert_eq!(pulse.stop_longer(later, Duration::from_secs(1)), 1);
        assert_eq!(pulse.stop_longer(later, Duration::from_secs(1)), 0);
        assert!(pulse.end(0));
        pulse.begin(0, None);
        assert!(!pulse.end(0));
    }

    #[test]
    fn an_answer_forgives_the_failures_before_it() {
        let pulse = Pulse::new(1);
        (0..3).for_each(|_| pulse.answered(false));
        assert_eq!(pulse.failures(), 3);
        pulse.answered(true);
        assert_eq!(pulse.failures(), 0);
    }
}
