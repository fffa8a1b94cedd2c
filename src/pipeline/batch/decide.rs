//! When does a batch start, on how many cores, and how large is it? A pure function, so that the policy can be read and
//! tested without threads or clocks.

use std::time::Duration;

/// The bounds of one model's batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Images in one batch, at most. At least 1.
    pub images_max: usize,
    /// How long the oldest image may wait for company while cores are free. Zero (the default) never waits: batches
    /// then form only while all cores are busy.
    pub delay: Duration,
    /// A run takes as long as for `images_max` images, however few it is given: the graph fixes its batch.
    pub fixed: bool,
}

/// What one group of equal instances could do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// Cores that a run of one instance takes.
    pub cores: usize,
    /// Instances that are not running.
    pub idle: usize,
}

/// The cores that runs share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Cores that no run has.
    pub free: usize,
    /// All of them.
    pub total: usize,
}

/// What a waiting worker does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing waits: sleep until an image arrives.
    Sleep,
    /// Images wait, and there are too few free cores, or no idle instance: sleep until a run ends.
    Starved,
    /// Too few images and the oldest is young: sleep at most this long.
    Wait(Duration),
    /// Run.
    Take {
        /// How many of the oldest images.
        images: usize,
        /// With an instance of this group, by its place in the list.
        group: usize,
    },
}

/// Decides for a worker that sees `len` images waiting, the oldest of them for `oldest_age`, and knows that others are
/// `coming`: admitted, and being prepared. `groups` go from the most cores to the fewest.
///
/// The free cores are divided among the images that wait or come. One image alone gets the widest instance, and with it the lowest
/// latency; as many images as cores get one core each, which computes the most images a second, since no run waits for its
/// own slowest thread. Nothing else tells an idle server from a busy one, so there is no mode that could flap: a run of one
/// core that is still going keeps a wide one from starting, and that is all the hysteresis there is.
///
/// Images are shared out evenly among the runs that fit beside each other, because a worker that took all of them would
/// leave its neighbours idle; but for a graph that fixes its batch, whose runs cost the same half full.
#[must_use]
pub fn decide(
    len: usize,
    coming: usize,
    oldest_age: Duration,
    limits: &BatchLimits,
    room: Room,
    groups: &[Group],
) -> Decision {
    if len == 0 {
        return Decision::Sleep;
    }
    if len < limits.images_max && oldest_age < limits.delay {
        return Decision::Wait(limits.delay.saturating_sub(oldest_age));
    }
    // As many runs as there are images, or as a graph that fixes its batch needs.
    let wanted = if limits.fixed { (len + coming).div_ceil(limits.images_max) } else { len + coming };
    let share = (room.free / wanted).max(1);
    let mut fitting = groups.iter().enumerate().filter(|(_, group)| group.idle > 0 && group.cores <= room.free);
    // The widest within the share; where all are wider, the last, which is the narrowest.
    let narrowest = fitting.clone().next_back();
    let Some((group, &Group { cores, .. })) = fitting.find(|(_, group)| group.cores <= share).or(narrowest) else {
        return Decision::Starved;
    };
    let runs = if limits.fixed { 1 } else { (room.total / cores).max(1) };
    Decision::Take { images: len.div_ceil(runs).min(limits.images_max), group }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn limits(images_max: usize, delay_ms: u64) -> BatchLimits {
        BatchLimits { images_max, delay: Duration::from_millis(delay_ms), fixed: false }
    }

    /// One instance with all cores, and one of one core for each.
    fn elastic(cores: usize) -> [Group; 2] {
        [Group { cores, idle: 1 }, Group { cores: 1, idle: cores }]
    }

    fn on(len: usize, free: usize, total: usize) -> Decision {
        decide(len, 0, Duration::ZERO, &limits(8, 0), Room { free, total }, &elastic(total))
    }

    const WIDE: usize = 0;
    const NARROW: usize = 1;

    #[test]
    fn an_empty_queue_sleeps() {
        assert_eq!(on(0, 4, 4), Decision::Sleep);
    }

    #[test]
    fn one_image_on_an_idle_machine_gets_all_cores() {
        assert_eq!(on(1, 4, 4), Decision::Take { images: 1, group: WIDE });
        assert_eq!(on(1, 1, 1), Decision::Take { images: 1, group: WIDE });
    }

    #[test]
    fn many_images_get_a_core_each_in_even_shares() {
        assert_eq!(on(4, 4, 4), Decision::Take { images: 1, group: NARROW });
        assert_eq!(on(16, 4, 4), Decision::Take { images: 4, group: NARROW });
        assert_eq!(on(100, 4, 4), Decision::Take { images: 8, group: NARROW });
        // The first takes its half, not everything because it came first.
        assert_eq!(on(6, 2, 2), Decision::Take { images: 3, group: NARROW });
        assert_eq!(on(3, 1, 2), Decision::Take { images: 2, group: NARROW });
    }

    #[test]
    fn fewer_images_than_cores_share_a_wide_run_rather_than_leave_cores_idle() {
        assert_eq!(
            decide(
                3,
                0,
                Duration::ZERO,
                &limits(8, 0),
                Room { free: 16, total: 16 },
                &[Group { cores: 16, idle: 1 }, Group { cores: 4, idle: 4 }, Group { cores: 1, idle: 16 }]
            ),
            Decision::Take { images: 1, group: 1 }
        );
    }

    #[test]
    fn the_first_of_a_burst_leaves_cores_for_those_that_are_being_prepared() {
        let room = Room { free: 4, total: 4 };
        let first = decide(1, 7, Duration::ZERO, &limits(8, 0), room, &elastic(4));
        assert_eq!(first, Decision::Take { images: 1, group: NARROW });
    }

    #[test]
    fn a_busy_core_keeps_the_wide_instance_waiting_and_not_the_image() {
        assert_eq!(on(1, 3, 4), Decision::Take { images: 1, group: NARROW });
        assert_eq!(on(1, 0, 4), Decision::Starved);
    }

    #[test]
    fn a_fixed_batch_is_filled_before_the_next_is_begun() {
        let limits = BatchLimits { fixed: true, ..limits(8, 0) };
        let on = |len| decide(len, 0, Duration::ZERO, &limits, Room { free: 2, total: 2 }, &elastic(2));
        assert_eq!(on(1), Decision::Take { images: 1, group: WIDE });
        assert_eq!(on(8), Decision::Take { images: 8, group: WIDE });
        assert_eq!(on(9), Decision::Take { images: 8, group: NARROW });
    }

    #[test]
    fn without_an_idle_instance_nothing_starts() {
        let busy = [Group { cores: 2, idle: 0 }];
        let room = Room { free: 2, total: 4 };
        assert_eq!(decide(5, 0, Duration::ZERO, &limits(8, 0), room, &busy), Decision::Starved);
    }

    #[test]
    fn one_static_group_is_used_whatever_waits() {
        let fixed = [Group { cores: 2, idle: 2 }];
        let room = Room { free: 4, total: 4 };
        for (len, images) in [(1, 1), (2, 1), (5, 3), (40, 8)] {
            let decision = decide(len, 0, Duration::ZERO, &limits(8, 0), room, &fixed);
            assert_eq!(decision, Decision::Take { images, group: 0 });
        }
    }

    #[test]
    fn the_delay_counts_from_the_oldest_image_and_a_full_batch_does_not_wait() {
        let room = Room { free: 2, total: 2 };
        let after = |len, ms| decide(len, 0, Duration::from_millis(ms), &limits(8, 5), room, &elastic(2));
        assert_eq!(after(2, 2), Decision::Wait(Duration::from_millis(3)));
        assert_eq!(after(2, 5), Decision::Take { images: 1, group: NARROW });
        assert_eq!(after(8, 0), Decision::Take { images: 4, group: NARROW });
    }

    proptest! {
        #[test]
        fn within_every_bound(
            len in 0usize..1000, age_us in 0u64..20_000, images_max in 1usize..64, delay_us in 0u64..20_000,
            total in 1usize..64, busy in 0usize..64, wide_idle in 0usize..2, narrow_idle in 0usize..64,
            fixed: bool, coming in 0usize..100,
        ) {
            let limits = BatchLimits { images_max, delay: Duration::from_micros(delay_us), fixed };
            let room = Room { free: total.saturating_sub(busy), total };
            let groups = [Group { cores: total, idle: wide_idle }, Group { cores: 1, idle: narrow_idle }];
            match decide(len, coming, Duration::from_micros(age_us), &limits, room, &groups) {
                Decision::Sleep => prop_assert_eq!(len, 0),
                Decision::Starved => {
                    prop_assert!(groups.iter().all(|group| group.idle == 0 || group.cores > room.free));
                }
                Decision::Wait(left) => {
                    prop_assert!(!left.is_zero() && len < images_max);
                    prop_assert_eq!(left, Duration::from_micros(delay_us - age_us));
                }
                Decision::Take { images, group } => {
                    prop_assert!(0 < images && images <= len.min(images_max));
                    prop_assert!(groups[group].idle > 0 && groups[group].cores <= room.free);
                }
            }
        }
    }
}
