//! The bounded queue between the images that are being prepared and the workers.
//!
//! Whoever wants to bring images first reserves places ([`Queue::reserve`]), so overload is answered before anything is
//! decoded. A place is held until a worker takes the image, or the image fails on its way. Workers pull
//! ([`Queue::take`]); nothing pushes work at them.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::BatchError;
use super::decide::{BatchLimits, Decision, decide};

/// What the queue asks of an item before it goes into a batch.
pub trait Waiting {
    /// Nobody waits for the answer any more.
    fn caller_left(&self) -> bool;
    /// When the answer is too late to be of use.
    fn deadline(&self) -> Instant;
}

/// The right to put one image into the queue. Dropping it gives the place back.
#[derive(Debug)]
#[must_use = "a place that is dropped is given back"]
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

/// What [`Queue::take`] brings. Both lists are cleared and filled; their memory is reused.
#[derive(Debug)]
pub struct Taken<T> {
    /// Images to compute, oldest first, with the time each waited.
    pub batch: Vec<(T, Duration)>,
    /// Images whose deadline passed while they waited. They must still be answered.
    pub late: Vec<T>,
}

impl<T> Default for Taken<T> {
    fn default() -> Self {
        Self { batch: Vec::new(), late: Vec::new() }
    }
}

/// A bounded first-in-first-out queue of images. Shared by reference between the producers and the workers.
#[derive(Debug)]
pub struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    places: Arc<Semaphore>,
    images_max: usize,
    limits: BatchLimits,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<Entry<T>>,
    closed: bool,
}

#[derive(Debug)]
struct Entry<T> {
    item: T,
    since: Instant,
    _place: Place,
}

impl<T: Waiting> Queue<T> {
    /// A queue with `images_max` places.
    #[must_use]
    pub fn new(images_max: usize, limits: BatchLimits) -> Self {
        Self {
            state: Mutex::new(State { waiting: VecDeque::with_capacity(images_max), closed: false }),
            changed: Condvar::new(),
            places: Arc::new(Semaphore::new(images_max)),
            images_max,
            limits,
        }
    }

    /// Reserves `n` places, all or none.
    ///
    /// # Errors
    /// [`BatchError::Overloaded`] if fewer are free now: waiting for one would only move the queue elsewhere.
    pub fn reserve(&self, n: usize) -> Result<Vec<Place>, BatchError> {
        let overloaded = || BatchError::Overloaded { images: n, images_max: self.images_max };
        let count = u32::try_from(n).map_err(|_| overloaded())?;
        let mut permits = Arc::clone(&self.places).try_acquire_many_owned(count).map_err(|_| overloaded())?;
        let mut places = Vec::with_capacity(n);
        while let Some(permit) = permits.split(1) {
            places.push(Place { _permit: permit });
        }
        Ok(places)
    }

    /// Puts an image into its reserved place and wakes a worker.
    ///
    /// # Errors
    /// The item itself if the queue was closed.
    pub fn push(&self, place: Place, item: T) -> Result<(), T> {
        {
            let mut state = self.lock();
            if state.closed {
                return Err(item);
            }
            state.waiting.push_back(Entry { item, since: Instant::now(), _place: place });
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Blocks until there is something to answer, then moves it into `taken`. Callers that left are dropped unseen.
    /// Returns false when the queue is closed and empty.
    pub fn take(&self, taken: &mut Taken<T>) -> bool {
        taken.batch.clear();
        taken.late.clear();
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            state.waiting.retain_front(|entry| !entry.item.caller_left());
            let oldest = state.waiting.front().map_or(Duration::ZERO, |entry| now.duration_since(entry.since));
            // A closing queue waits for nobody's company.
            let limits = if state.closed { BatchLimits { delay: Duration::ZERO, ..self.limits } } else { self.limits };
            match decide(state.waiting.len(), oldest, &limits) {
                Decision::Sleep if state.closed => return false,
                Decision::Sleep => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Decision::Wait(left) => {
                    state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                }
                Decision::Take(n) => {
                    state.fill(taken, n, now);
                    if !taken.batch.is_empty() || !taken.late.is_empty() {
                        return true;
                    }
                }
            }
        }
    }

    /// Number of images waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// No image waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of places.
    #[must_use]
    pub fn images_max(&self) -> usize {
        self.images_max
    }

    /// The bounds of the batches that are taken from here.
    #[must_use]
    pub fn limits(&self) -> BatchLimits {
        self.limits
    }

    /// Refuses new images. Workers still take what waits, then [`Queue::take`] returns false.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing under the lock can panic half way through a change, so a poisoned state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Waiting> State<T> {
    /// Moves the oldest images into `taken` until `n` of them can be computed. Callers that left make room for others.
    fn fill(&mut self, taken: &mut Taken<T>, n: usize, now: Instant) {
        while taken.batch.len() < n {
            let Some(Entry { item, since, .. }) = self.waiting.pop_front() else { break };
            if item.caller_left() {
                continue;
            }
            if item.deadline() <= now {
                taken.late.push(item);
            } else {
                taken.batch.push((item, now.duration_since(since)));
            }
        }
    }
}

/// Dropping from the front while a condition holds not.
trait RetainFront<T> {
    fn retain_front(&mut self, keep: impl Fn(&T) -> bool);
}

impl<T> RetainFront<T> for VecDeque<T> {
    fn retain_front(&mut self, keep: impl Fn(&T) -> bool) {
        while self.front().is_some_and(|item| !keep(item)) {
            self.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
