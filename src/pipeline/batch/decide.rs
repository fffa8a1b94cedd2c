//! When does a worker take a batch, and how large is it? A pure function, so that the policy can be read and tested
//! without threads or clocks.

use std::time::Duration;

/// The bounds of one model's batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Images in one batch, at most. At least 1.
    pub images_max: usize,
    /// How long the oldest image may wait for company while a worker is idle. Zero (the default) never waits: batches
    /// then form only while all workers are busy.
    pub delay: Duration,
}

/// What an idle worker does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing to do: sleep until an image arrives.
    Sleep,
    /// Too few images and the oldest is young: sleep at most this long.
    Wait(Duration),
    /// Take this many of the oldest images.
    Take(usize),
}

/// Decides for an idle worker that sees `len` images waiting, the oldest of them for `oldest_age`.
#[must_use]
pub fn decide(len: usize, oldest_age: Duration, limits: &BatchLimits) -> Decision {
    if len == 0 {
        Decision::Sleep
    } else if len >= limits.images_max {
        Decision::Take(limits.images_max)
    } else if oldest_age >= limits.delay {
        Decision::Take(len)
    } else {
        Decision::Wait(limits.delay.saturating_sub(oldest_age))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn limits(images_max: usize, delay_ms: u64) -> BatchLimits {
        BatchLimits { images_max, delay: Duration::from_millis(delay_ms) }
    }

    #[test]
    fn an_empty_queue_sleeps() {
        assert_eq!(decide(0, Duration::ZERO, &limits(8, 5)), Decision::Sleep);
    }

    #[test]
    fn without_delay_an_idle_worker_takes_what_is_there() {
        assert_eq!(decide(1, Duration::ZERO, &limits(8, 0)), Decision::Take(1));
        assert_eq!(decide(3, Duration::ZERO, &limits(8, 0)), Decision::Take(3));
    }

    #[test]
    fn a_full_batch_leaves_at_once() {
        assert_eq!(decide(8, Duration::ZERO, &limits(8, 5)), Decision::Take(8));
        assert_eq!(decide(20, Duration::ZERO, &limits(8, 5)), Decision::Take(8));
    }

    #[test]
    fn the_delay_counts_from_the_oldest_image() {
        assert_eq!(decide(2, Duration::from_millis(2), &limits(8, 5)), Decision::Wait(Duration::from_millis(3)));
        assert_eq!(decide(2, Duration::from_millis(5), &limits(8, 5)), Decision::Take(2));
    }

    proptest! {
        #[test]
        fn never_above_the_bound_never_empty_never_longer_than_the_delay(
            len in 0usize..1000, age_us in 0u64..20_000, images_max in 1usize..64, delay_us in 0u64..20_000,
        ) {
            let limits = BatchLimits { images_max, delay: Duration::from_micros(delay_us) };
            match decide(len, Duration::from_micros(age_us), &limits) {
                Decision::Sleep => prop_assert_eq!(len, 0),
                Decision::Wait(left) => {
                    prop_assert!(!left.is_zero());
                    prop_assert_eq!(left, Duration::from_micros(delay_us - age_us));
                }
                Decision::Take(n) => prop_assert!(0 < n && n <= len.min(images_max)),
            }
        }
    }
}
