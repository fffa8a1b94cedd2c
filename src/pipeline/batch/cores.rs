//! The cores that the runs of all models share: a run takes as many as its instance has threads, and gives them back.
//!
//! Where several models wait, the one whose image has waited the longest goes first.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use super::decide::Room;

/// A queue that can be told that cores came free.
pub(super) trait Wake: Send + Sync {
    /// Lets one worker look again.
    fn wake(&self);
}

/// A budget of cores. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub struct Cores(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: usize,
    state: Mutex<State>,
    members: AtomicU64,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Queues whose images wait for cores, by member.
    hungry: BTreeMap<u64, Hungry>,
}

struct Hungry {
    /// Since when the oldest image waits.
    since: Instant,
    queue: Weak<dyn Wake>,
}

impl fmt::Debug for Hungry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hungry").field("since", &self.since).finish_non_exhaustive()
    }
}

/// One queue's seat at the table. Dropping it takes the queue off the list of those that wait.
pub(super) struct Member {
    cores: Cores,
    id: u64,
    queue: Weak<dyn Wake>,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Queues to be told, once the caller holds no lock.
#[must_use = "a queue that is not told waits for ever"]
#[derive(Default)]
pub(super) struct Next(Vec<Weak<dyn Wake>>);

/// What a queue does that found too few cores.
#[must_use]
pub(super) enum Wait {
    /// Sleep: whoever frees cores will tell.
    Sleep,
    /// Look again: there are more by now.
    Look,
    /// Tell these first, then look again.
    Tell(Next),
}

impl Next {
    /// Tells them. The caller holds no lock of any queue: two that told each other would wait for each other.
    pub(super) fn wake(self) {
        self.0.iter().filter_map(Weak::upgrade).for_each(|queue| queue.wake());
    }
}

impl Cores {
    /// A budget of `total` cores, at least one.
    #[must_use]
    pub fn new(total: usize) -> Self {
        let total = total.max(1);
        let state = Mutex::new(State { free: total, hungry: BTreeMap::new() });
        Self(Arc::new(Shared { total, state, members: AtomicU64::new(0) }))
    }

    /// All cores, free or not.
    #[must_use]
    pub fn total(&self) -> usize {
        self.0.total
    }

    /// Cores that no run has now.
    #[must_use]
    pub fn free(&self) -> usize {
        self.lock().free
    }

    pub(super) fn join(&self, queue: Weak<dyn Wake>) -> Member {
        Member { cores: self.clone(), id: self.0.members.fetch_add(1, Ordering::Relaxed), queue }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can panic half way through a change, so a poisoned state is still whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Cores for a queue whose oldest image waits since `since`: none while an older image of another waits for cores.
    fn free_for(&self, id: u64, since: Instant) -> usize {
        let passed_over = self.hungry.iter().any(|(&other, hungry)| other != id && hungry.since < since);
        if passed_over { 0 } else { self.free }
    }

    /// Everyone who waits. Models are few, and each looks whether it is the one whose turn it is.
    fn next(&self) -> Next {
        if self.free == 0 {
            return Next::default();
        }
        Next(self.hungry.values().map(|hungry| Weak::clone(&hungry.queue)).collect())
    }
}

impl Member {
    /// All cores of the budget.
    pub(super) fn total(&self) -> usize {
        self.cores.total()
    }

    /// Cores that this queue may take now, if its oldest image waits since `since`.
    pub(super) fn room(&self, since: Instant) -> Room {
        Room { free: self.cores.lock().free_for(self.id, since), total: self.cores.total() }
    }

    /// Takes `cores`, if they are still free.
    pub(super) fn take(&self, cores: usize) -> Option<Next> {
        let mut state = self.cores.lock();
        state.free = state.free.checked_sub(cores)?;
        state.hungry.remove(&self.id);
        Some(state.next())
    }

    /// Enters the list of those that wait for cores, or brings its entry up to date, after a look that found too little
    /// `room`.
    pub(super) fn wait(&self, since: Instant, room: Room) -> Wait {
        let mut state = self.cores.lock();
        let before = state.hungry.insert(self.id, Hungry { since, queue: Weak::clone(&self.queue) });
        // Its oldest image is gone without a run. Others were passed over for that image, and would be for ever.
        if before.is_some_and(|before| before.since < since) && state.free > 0 {
            return Wait::Tell(state.next());
        }
        if state.free_for(self.id, since) > room.free { Wait::Look } else { Wait::Sleep }
    }

    /// Waits for cores no longer.
    pub(super) fn leave(&self) -> Next {
        let mut state = self.cores.lock();
        match state.hungry.remove(&self.id) {
            Some(_) => state.next(),
            None => Next::default(),
        }
    }

    /// Gives `cores` back.
    pub(super) fn give_back(&self, cores: usize) -> Next {
        let mut state = self.cores.lock();
        state.free += cores;
        state.next()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.leave().wake();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Nobody;

    impl Wake for Nobody {
        fn wake(&self) {}
    }

    fn nobody() -> Weak<dyn Wake> {
        Weak::<Nobody>::new()
    }

    #[test]
    fn cores_are_taken_once_and_come_back() {
        let cores = Cores::new(4);
        let (a, b) = (cores.join(nobody()), cores.join(nobody()));
        let now = Instant::now();
        a.take(3).unwrap().wake();
        assert_eq!(b.room(now), Room { free: 1, total: 4 });
        assert!(b.take(2).is_none(), "more than there are");
        a.give_back(3).wake();
        b.take(4).unwrap().wake();
        assert_eq!(cores.free(), 0);
    }

    #[test]
    fn the_image_that_has_waited_the_longest_goes_first() {
        let cores = Cores::new(1);
        let (old, young) = (cores.join(nobody()), cores.join(nobody()));
        let before = Instant::now();
        let after = before + Duration::from_millis(1);
        old.take(1).unwrap().wake();
        assert!(matches!(old.wait(before, old.room(before)), Wait::Sleep), "nothing came free meanwhile");
        old.give_back(1).wake();
        assert_eq!(young.room(after).free, 0, "it is the other's turn");
        assert_eq!(old.room(before).free, 1);
        old.leave().wake();
        assert_eq!(young.room(after).free, 1);
    }

    #[test]
    fn what_came_free_before_the_wait_is_seen() {
        let cores = Cores::new(2);
        let queue = cores.join(nobody());
        let now = Instant::now();
        queue.take(2).unwrap().wake();
        let seen = queue.room(now);
        queue.give_back(2).wake();
        assert!(matches!(queue.wait(now, seen), Wait::Look));
    }

    #[test]
    fn a_queue_whose_oldest_image_left_tells_those_that_were_passed_over_for_it() {
        let cores = Cores::new(1);
        let (old, other) = (cores.join(nobody()), cores.join(nobody()));
        let before = Instant::now();
        let (middle, after) = (before + Duration::from_millis(1), before + Duration::from_millis(2));
        old.take(1).unwrap().wake();
        assert!(matches!(old.wait(before, old.room(before)), Wait::Sleep));
        assert!(matches!(other.wait(middle, other.room(middle)), Wait::Sleep));
        old.give_back(1).wake();
        assert_eq!(other.room(middle).free, 0, "the older image is first");
        let Wait::Tell(next) = old.wait(after, old.room(after)) else { panic!("the other is not told") };
        assert_eq!(next.0.len(), 2);
        assert_eq!(other.room(middle).free, 1);
        assert!(matches!(old.wait(after, old.room(after)), Wait::Sleep), "told once");
    }

    #[test]
    fn a_queue_that_is_gone_holds_nobody_up() {
        let cores = Cores::new(1);
        let (gone, other) = (cores.join(nobody()), cores.join(nobody()));
        let before = Instant::now();
        gone.take(1).unwrap().wake();
        assert!(matches!(gone.wait(before, gone.room(before)), Wait::Sleep));
        gone.give_back(1).wake();
        drop(gone);
        assert_eq!(other.room(Instant::now()).free, 1);
    }
}
