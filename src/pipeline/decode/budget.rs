//! One bound in bytes for all decodes that run at once. A request waits here, on its blocking thread, until its share
//! is free; who came first is served first, so a large picture is not overtaken for ever by small ones.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Shared bound on the memory that decoding holds. Clones share the bound.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    max: u64,
    ledger: Mutex<Ledger>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Ledger {
    used: u64,
    next_ticket: u64,
    /// Tickets of those who wait, in order of arrival. Its length is bounded by the blocking threads that wait in it.
    queue: VecDeque<u64>,
}

/// Why no memory was reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// It would never fit, not even alone.
    #[error("decoding needs {bytes} bytes, at most {max} allowed")]
    TooLarge {
        /// Bytes asked for.
        bytes: u64,
        /// The whole budget.
        max: u64,
    },
    /// Others held the memory until the deadline.
    #[error("decoding needs {bytes} bytes, which were not free before the deadline")]
    TimedOut {
        /// Bytes asked for.
        bytes: u64,
    },
}

/// Bytes taken from a [`MemoryBudget`]; they go back when this is dropped.
#[derive(Debug)]
#[must_use = "dropping a reservation gives the bytes back"]
pub struct Reservation {
    shared: Arc<Shared>,
    bytes: u64,
}

impl MemoryBudget {
    /// A budget of `max` bytes.
    #[must_use]
    pub fn new(max: u64) -> Self {
        let ledger = Mutex::new(Ledger::default());
        Self { shared: Arc::new(Shared { max, ledger, changed: Condvar::new() }) }
    }

    /// The whole budget in bytes.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.shared.max
    }

    /// Bytes reserved now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.shared.lock().used
    }

    /// Requests that wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.lock().queue.len()
    }

    /// Blocks the thread until `bytes` are free and all who came earlier are served.
    ///
    /// # Errors
    /// At once where `bytes` is more than the whole budget; at `deadline` where others held the memory.
    pub fn reserve(&self, bytes: u64, deadline: Instant) -> Result<Reservation, BudgetError> {
        let Shared { max, changed, .. } = &*self.shared;
        if bytes > *max {
            return Err(BudgetError::TooLarge { bytes, max: *max });
        }
        let mut ledger = self.shared.lock();
        let ticket = ledger.next_ticket;
        ledger.next_ticket += 1;
        ledger.queue.push_back(ticket);
        loop {
            if ledger.queue.front() == Some(&ticket) && bytes <= max - ledger.used {
                ledger.queue.pop_front();
                ledger.used += bytes;
                drop(ledger);
                // The next in line may fit beside this one.
                changed.notify_all();
                return Ok(Reservation { shared: Arc::clone(&self.shared), bytes });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                ledger.queue.retain(|&waiting| waiting != ticket);
                drop(ledger);
                // This one may have stood before others that fit.
                changed.notify_all();
                return Err(BudgetError::TimedOut { bytes });
            }
            ledger = changed.wait_timeout(ledger, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    /// A panic elsewhere leaves the ledger right: it is only ever changed in single steps that cannot panic.
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.lock().used -= self.bytes;
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    /// Lets the other threads run until `done`; the deadline of the reservations bounds it.
    fn until(done: impl Fn() -> bool) {
        while !done() {
            thread::yield_now();
        }
    }

    #[test]
    fn whole_budget_fits_and_one_more_byte_does_not() {
        let budget = MemoryBudget::new(100);
        let all = budget.reserve(100, soon()).unwrap();
        assert_eq!((all.bytes(), budget.used(), budget.max()), (100, 100, 100));
        assert_eq!(budget.reserve(101, soon()).unwrap_err(), BudgetError::TooLarge { bytes: 101, max: 100 });
    }

    #[test]
    fn bytes_go_back_on_drop() {
        let budget = MemoryBudget::new(100);
        drop(budget.reserve(80, soon()).unwrap());
        assert_eq!(budget.used(), 0);
        assert!(budget.reserve(100, soon()).is_ok());
    }

    #[test]
    fn deadline_in_the_past_is_timed_out_and_leaves_no_trace() {
        let budget = MemoryBudget::new(100);
        let _held = budget.reserve(60, soon()).unwrap();
        assert_eq!(budget.reserve(41, Instant::now()).unwrap_err(), BudgetError::TimedOut { bytes: 41 });
        assert_eq!((budget.used(), budget.waiting()), (60, 0));
    }

    #[test]
    fn what_is_free_is_given_even_at_the_deadline() {
        let budget = MemoryBudget::new(100);
        assert!(budget.reserve(100, Instant::now()).is_ok());
    }

    #[test]
    fn small_request_does_not_overtake_a_large_one() {
        let budget = MemoryBudget::new(100);
        let held = budget.reserve(50, soon()).unwrap();
        let (served, order) = mpsc::channel();
        let waiter = |bytes: u64| {
            let (budget, served) = (budget.clone(), served.clone());
            thread::spawn(move || {
                let reservation = budget.reserve(bytes, soon()).unwrap();
                served.send(bytes).unwrap();
                drop(reservation);
            })
        };
        let large = waiter(90);
        until(|| budget.waiting() == 1);
        let small = waiter(30);
        until(|| budget.waiting() == 2);
        // 50 bytes are free and the small one would fit, but it came later.
        assert_eq!(budget.used(), 50);
        drop(held);
        large.join().unwrap();
        small.join().unwrap();
        drop(served);
        assert_eq!(order.iter().collect::<Vec<_>>(), [90, 30]);
    }

    #[test]
    fn timed_out_head_lets_the_next_one_through() {
        let budget = MemoryBudget::new(100);
        let held = budget.reserve(50, soon()).unwrap();
        let large = {
            let budget = budget.clone();
            thread::spawn(move || budget.reserve(90, Instant::now() + Duration::from_millis(20)).map(drop))
        };
        until(|| budget.waiting() == 1 || large.is_finished());
        // Served although the large one, ahead of it, never fits while 50 bytes are held.
        let small = budget.reserve(30, soon()).unwrap();
        assert_eq!(large.join().unwrap(), Err(BudgetError::TimedOut { bytes: 90 }));
        drop((held, small));
        assert_eq!((budget.used(), budget.waiting()), (0, 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn never_above_the_bound_and_everyone_served_once(requests in prop::collection::vec(0..=100_u64, 1..24)) {
            let budget = MemoryBudget::new(100);
            let (held, peak, served) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
            thread::scope(|scope| {
                let (budget, held, peak, served) = (&budget, &held, &peak, &served);
                for &bytes in &requests {
                    scope.spawn(move || {
                        let reservation = budget.reserve(bytes, soon()).unwrap();
                        let now = held.fetch_add(bytes, Ordering::SeqCst) + bytes;
                        peak.fetch_max(now, Ordering::SeqCst);
                        served.fetch_add(1, Ordering::SeqCst);
                        thread::yield_now();
                        held.fetch_sub(bytes, Ordering::SeqCst);
                        drop(reservation);
                    });
                }
            });
            prop_assert!(peak.into_inner() <= 100);
            prop_assert_eq!(served.into_inner(), requests.len() as u64);
            prop_assert_eq!((budget.used(), budget.waiting()), (0, 0));
        }
    }
}
