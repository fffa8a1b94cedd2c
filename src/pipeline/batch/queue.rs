//! The bounded queue between the images that are being prepared and the workers, with the idle instances of the model
//! beside it.
//!
//! Whoever wants to bring images first reserves places ([`Queue::reserve`]), so overload is answered before anything is
//! decoded. A place is held until a worker takes the image, or the image fails on its way. Workers pull
//! ([`Queue::take`]): they get a batch, an idle instance to run it with, and the cores that the instance needs. Nothing
//! pushes work at them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::BatchError;
use super::cores::{Cores, Member, Wait, Wake};
use super::decide::{BatchLimits, Decision, Group, decide};
use super::pace::{Ended, Pace};

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

/// Images that [`Queue::take`] brings. Both lists are cleared and filled; their memory is reused.
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

/// The right to one run: an instance and its cores. Goes back with [`Queue::give_back`].
#[derive(Debug)]
#[must_use = "an instance that is dropped is lost, and its cores with it"]
pub struct Run<I> {
    /// What computes the batch.
    pub instance: I,
    /// Cores that it has meanwhile.
    pub cores: usize,
    group: usize,
}

/// A bounded first-in-first-out queue of images of type `T`, and the instances of type `I` that compute them. Shared
/// between the producers and the workers.
#[derive(Debug)]
pub struct Queue<T, I> {
    state: Mutex<State<T, I>>,
    changed: Condvar,
    places: Arc<Semaphore>,
    images_max: usize,
    delay_max: Option<Duration>,
    /// Images a second that can be expected, as the bits of an f64; 0 while nothing is known.
    rate: AtomicU64,
    /// Images that are prepared or computed beside each other.
    at_once: usize,
    /// Nothing had a place for a moment.
    rested: AtomicBool,
    limits: BatchLimits,
    member: Member,
}

#[derive(Debug)]
struct State<T, I> {
    waiting: VecDeque<Entry<T>>,
    /// What the policy sees, from the most cores to the fewest.
    groups: Vec<Group>,
    /// The idle instances of each group.
    idle: Vec<Vec<I>>,
    /// A worker has found too few cores for what waits; whoever frees some will tell.
    starved: bool,
    closed: bool,
    pace: Pace,
}

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    /// Images, in preparation or prepared.
    pub images_max: usize,
    /// As much as is done in this time, if time matters. A queue that is empty takes any request that fits.
    pub delay_max: Option<Duration>,
    /// Images a second to reckon with until some were computed.
    pub rate: Option<f64>,
    /// Images that are prepared beside each other.
    pub prepared_at_once: usize,
}

impl From<usize> for Places {
    fn from(images_max: usize) -> Self {
        Self { images_max, delay_max: None, rate: None, prepared_at_once: 1 }
    }
}

/// Equal instances of one model.
#[derive(Debug)]
pub struct Instances<I> {
    /// Cores that a run of one takes.
    pub cores: usize,
    /// All of them; none is running yet.
    pub all: Vec<I>,
}

#[derive(Debug)]
struct Entry<T> {
    item: T,
    since: Instant,
    _place: Place,
}

impl<T: Waiting + Send + 'static, I: Send + 'static> Queue<T, I> {
    /// A queue with these places, whose instances share `cores` with those of other queues. An instance that is
    /// wider than all cores together takes them all.
    #[must_use]
    pub fn new(
        places: impl Into<Places>,
        limits: BatchLimits,
        cores: &Cores,
        mut groups: Vec<Instances<I>>,
    ) -> Arc<Self> {
        let Places { images_max, delay_max, rate, prepared_at_once } = places.into();
        groups.sort_by_key(|group| std::cmp::Reverse(group.cores));
        let seen = |group: &Instances<I>| Group { cores: group.cores.clamp(1, cores.total()), idle: group.all.len() };
        let state = State {
            waiting: VecDeque::with_capacity(images_max),
            groups: groups.iter().map(seen).collect(),
            idle: groups.into_iter().map(|group| group.all).collect(),
            starved: false,
            closed: false,
            pace: Pace::default(),
        };
        Arc::new_cyclic(|this: &Weak<Self>| Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            places: Arc::new(Semaphore::new(images_max)),
            images_max,
            delay_max,
            rate: AtomicU64::new(rate.unwrap_or(0.0).to_bits()),
            at_once: prepared_at_once.max(cores.total()),
            rested: AtomicBool::new(true),
            limits,
            member: cores.join(Weak::<Self>::clone(this)),
        })
    }

    /// Reserves `n` places, all or none.
    ///
    /// # Errors
    /// [`BatchError::Overloaded`] if fewer are free now: waiting for one would only move the queue elsewhere.
    /// [`BatchError::Behind`] if those ahead take too long.
    pub fn reserve(&self, n: usize) -> Result<Vec<Place>, BatchError> {
        self.in_time()?;
        let overloaded = || BatchError::Overloaded { images: n, images_max: self.images_max };
        let count = u32::try_from(n).map_err(|_| overloaded())?;
        let mut permits = Arc::clone(&self.places).try_acquire_many_owned(count).map_err(|_| overloaded())?;
        let mut places = Vec::with_capacity(n);
        while let Some(permit) = permits.split(1) {
            places.push(Place { _permit: permit });
        }
        Ok(places)
    }

    /// What is ahead of a new image is done soon enough.
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 images wait")]
    fn in_time(&self) -> Result<(), BatchError> {
        let Some(delay_max) = self.delay_max else { return Ok(()) };
        let (rate, held) = (f64::from_bits(self.rate.load(Ordering::Relaxed)), self.held());
        if held == 0 {
            self.rested.store(true, Ordering::Relaxed);
        }
        let ahead = held as f64 / rate;
        // Neither holds while nothing is known or nothing waits.
        if rate > 0.0 && ahead > delay_max.as_secs_f64() {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and saturates")]
            let ahead_ms = (ahead * 1e3) as u64;
            return Err(BatchError::Behind {
                ahead_ms,
                max_ms: u64::try_from(delay_max.as_millis()).unwrap_or(u64::MAX),
            });
        }
        Ok(())
    }

    /// Images that have a place: they are being prepared, or wait.
    fn held(&self) -> usize {
        self.images_max.saturating_sub(self.places.available_permits())
    }

    /// Puts an image into its reserved place and wakes a worker, if there is anything for it to do.
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
            if state.starved {
                return Ok(());
            }
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Blocks until there is something to answer, then moves it into `taken`. Callers that left are dropped unseen.
    /// Returns the right to run the batch, which is empty where all images are late; or none when the queue is closed and
    /// empty.
    pub fn take(&self, taken: &mut Taken<T>) -> Option<Run<I>> {
        taken.batch.clear();
        taken.late.clear();
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            state.waiting.retain_front(|entry| !entry.item.caller_left());
            let oldest = state.waiting.front().map_or(now, |entry| entry.since);
            // A closing queue waits for nobody's company.
            let limits = if state.closed { BatchLimits { delay: Duration::ZERO, ..self.limits } } else { self.limits };
            let room = self.member.room(oldest);
            let len = state.waiting.len();
            // Whoever has a place and does not wait is being prepared.
            let coming = self.held().saturating_sub(len);
            match decide(len, coming, now.duration_since(oldest), &limits, room, &state.groups) {
                Decision::Sleep if state.closed => {
                    drop(state);
                    self.member.leave().wake();
                    self.changed.notify_all();
                    return None;
                }
                Decision::Sleep => state = self.rest(state),
                // Cores are of no use to a queue whose instances all run.
                Decision::Starved if state.groups.iter().all(|group| group.idle == 0) => state = self.rest(state),
                Decision::Starved => {
                    state.starved = true;
                    match self.member.wait(oldest, room) {
                        // Under the lock that whoever frees cores must take to tell: between the two nothing gets lost.
                        Wait::Sleep => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                        Wait::Look => {}
                        Wait::Tell(next) => {
                            drop(state);
                            next.wake();
                            state = self.lock();
                        }
                    }
                }
                Decision::Wait(_) if state.starved => state = self.rest(state),
                Decision::Wait(left) => {
                    state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                }
                Decision::Take { images, group } => {
                    let cores = state.groups[group].cores;
                    let Some(next) = self.member.take(cores) else { continue };
                    state.starved = false;
                    state.groups[group].idle -= 1;
                    let instance = state.idle[group].pop().expect("as many are there as the policy was told");
                    state.fill(taken, images, now);
                    let more = !state.waiting.is_empty();
                    drop(state);
                    next.wake();
                    let run = Run { instance, cores, group };
                    if !taken.batch.is_empty() || !taken.late.is_empty() {
                        if more {
                            // The worker that was woken for the rest may have come too early.
                            self.changed.notify_one();
                        }
                        return Some(run);
                    }
                    // All callers had left.
                    self.give_back(run);
                    state = self.lock();
                }
            }
        }
    }

    /// Ends a run of `images` that took so long: its instance and its cores are there for the next.
    #[expect(clippy::cast_precision_loss, reason = "cores are few")]
    pub fn finish(&self, run: Run<I>, images: usize, took: Duration) {
        let total = self.member.total();
        // With fewer than can be done beside each other, the time of one says nothing of many.
        let loaded = self.held() >= self.at_once;
        let rested = self.rested.swap(false, Ordering::Relaxed);
        let ended = Ended { images, took, share: run.cores as f64 / total as f64, loaded, rested };
        if let Some(rate) = self.lock().pace.ended(Instant::now(), ended) {
            self.rate.store(rate.to_bits(), Ordering::Relaxed);
        }
        self.give_back(run);
    }

    /// Gives back what no image was computed with.
    pub fn give_back(&self, run: Run<I>) {
        let Run { instance, cores, group } = run;
        let waiting = {
            let mut state = self.lock();
            state.groups[group].idle += 1;
            state.idle[group].push(instance);
            !state.waiting.is_empty()
        };
        self.member.give_back(cores).wake();
        if waiting {
            // For one that had no idle instance, and so does not wait for cores.
            self.changed.notify_one();
        }
    }

    /// Sleeps until something changes. A queue that waited for cores and needs none now lets the others know instead, and
    /// looks again.
    fn rest<'a>(&'a self, mut state: MutexGuard<'a, State<T, I>>) -> MutexGuard<'a, State<T, I>> {
        if std::mem::take(&mut state.starved) {
            drop(state);
            self.member.leave().wake();
            return self.lock();
        }
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the oldest image has waited.
    #[must_use]
    pub fn oldest(&self, now: Instant) -> Option<Duration> {
        self.lock().waiting.front().map(|entry| now.saturating_duration_since(entry.since))
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

    fn lock(&self) -> MutexGuard<'_, State<T, I>> {
        // Nothing under the lock can panic half way through a change, so a poisoned state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send, I: Send> Wake for Queue<T, I> {
    fn wake(&self) {
        // Whoever looked before the cores came free sleeps by now, or will look again.
        drop(self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }
}

impl<T: Waiting, I> State<T, I> {
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
