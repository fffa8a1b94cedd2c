//! Who is connected, and who has nothing to do: where all places are taken, the one that has been idle longest makes room.
//!
//! Without this, as many silent connections as there are places keep everybody else out, the probes of the platform among them,
//! for as long as an idle connection is kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Whoever has been idle for less may be about to ask: a client that has just connected, or reads an answer.
const IDLE_TIME_MIN: Duration = Duration::from_millis(500);

/// The connections of a port.
#[derive(Debug, Default)]
pub(super) struct Guests {
    all: Arc<Mutex<All>>,
}

#[derive(Debug, Default)]
struct All {
    next: u64,
    connections: HashMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    /// Requests that are being answered.
    open: usize,
    /// When it came, or its last request was answered.
    idle_since: Instant,
    /// Requests that have begun, ever; and whether it was asked to make room.
    seen: watch::Sender<Seen>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    has_asked: bool,
    should_leave: bool,
}

/// One connection among them. It is forgotten when this and its [`Open`] requests are dropped.
#[derive(Debug)]
pub(super) struct Guest {
    traffic: Traffic,
    seen: watch::Receiver<Seen>,
}

/// Tells of the requests on one connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Traffic(Arc<Entry>);

#[derive(Debug)]
struct Entry {
    all: Arc<Mutex<All>>,
    id: u64,
}

/// A request that is being answered, until its answer has been taken.
#[derive(Debug)]
pub struct Open(Traffic);

impl Guests {
    /// A connection that has just come.
    pub(super) fn enter(&self) -> Guest {
        let (sender, seen) = watch::channel(Seen::default());
        let mut all = lock(&self.all);
        let id = all.next;
        all.next += 1;
        all.connections.insert(id, Connection { open: 0, idle_since: Instant::now(), seen: sender });
        drop(all);
        Guest { traffic: Traffic(Arc::new(Entry { all: Arc::clone(&self.all), id })), seen }
    }

    /// Asks the connection that has been idle longest to end; one that never asked anything comes before all that did. False if all are at work, or have only just stopped.
    pub(super) fn make_room(&self, now: Instant) -> bool {
        let all = lock(&self.all);
        let idle = all.connections.values().filter(|connection| {
            let is_new = now.saturating_duration_since(connection.idle_since) < IDLE_TIME_MIN;
            connection.open == 0 && !is_new && !connection.seen.borrow().should_leave
        });
        let worth = |connection: &&Connection| (connection.seen.borrow().has_asked, connection.idle_since);
        let Some(longest) = idle.min_by_key(worth) else { return false };
        longest.seen.send_modify(|seen| seen.should_leave = true);
        true
    }
}

impl Guest {
    /// What tells of its requests.
    #[must_use]
    pub(super) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Waits until it is asked to make room.
    pub(super) async fn should_leave(&mut self) {
        wait(&mut self.seen, |seen| seen.should_leave).await;
    }

    /// Waits until its first request has begun.
    pub(super) async fn has_asked(&mut self) {
        wait(&mut self.seen, |seen| seen.has_asked).await;
    }
}

async fn wait(seen: &mut watch::Receiver<Seen>, until: impl FnMut(&Seen) -> bool) {
    // The sender lives as long as the guest's own traffic does.
    let _ = seen.wait_for(until).await;
}

impl Traffic {
    /// A request begins.
    #[must_use]
    pub fn begin(&self) -> Open {
        if let Some(connection) = lock(&self.0.all).connections.get_mut(&self.0.id) {
            connection.open += 1;
            connection.seen.send_if_modified(|seen| !std::mem::replace(&mut seen.has_asked, true));
        }
        Open(self.clone())
    }

    /// Requests are being answered.
    #[must_use]
    pub fn is_open(&self) -> bool {
        lock(&self.0.all).connections.get(&self.0.id).is_some_and(|connection| connection.open > 0)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Traffic(entry) = &self.0;
        if let Some(connection) = lock(&entry.all).connections.get_mut(&entry.id) {
            connection.open -= 1;
            connection.idle_since = Instant::now();
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.all).connections.remove(&self.id);
    }
}

fn lock(all: &Mutex<All>) -> MutexGuard<'_, All> {
    // Counts and entries change in one step each.
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(guest: &Guest) -> bool {
        guest.seen.borrow().should_leave
    }

    #[test]
    fn the_one_that_was_idle_longest_makes_room_and_nobody_who_is_at_work() {
        let guests = Guests::default();
        let [first, second, third] = [(); 3].map(|()| guests.enter());
        let at_work = first.traffic().begin();
        assert!(!guests.make_room(Instant::now()), "all have just come");
        let later = Instant::now() + IDLE_TIME_MIN;
        assert!(guests.make_room(later));
        assert_eq!([&first, &second, &third].map(leaves), [false, true, false]);
        assert!(guests.make_room(later));
        assert_eq!([&first, &second, &third].map(leaves), [false, true, true]);
        assert!(!guests.make_room(later), "one is at work, and the others leave already");
        drop(at_work);
        assert!(guests.make_room(Instant::now() + IDLE_TIME_MIN));
        assert!(leaves(&first));
    }

    #[test]
    fn whoever_never_asked_makes_room_first() {
        let guests = Guests::default();
        let [asked, silent] = [(); 2].map(|()| guests.enter());
        drop(asked.traffic().begin());
        let later_and_silent = guests.enter();
        let now = Instant::now() + IDLE_TIME_MIN;
        assert!(guests.make_room(now) && guests.make_room(now));
        assert_eq!([&asked, &silent, &later_and_silent].map(leaves), [false, true, true]);
    }

    #[tokio::test]
    async fn a_guest_is_seen_to_ask_and_is_forgotten_when_it_has_gone() {
        let guests = Guests::default();
        let mut guest = guests.enter();
        assert!(!guest.traffic().is_open());
        let open = guest.traffic().begin();
        guest.has_asked().await;
        assert!(guest.traffic().is_open());
        drop(guest);
        assert_eq!(lock(&guests.all).connections.len(), 1, "its answer is still being taken");
        drop(open);
        assert!(lock(&guests.all).connections.is_empty());
        assert!(!guests.make_room(Instant::now() + IDLE_TIME_MIN));
    }
}
