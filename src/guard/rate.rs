//! How often one client may ask: a rate with a burst, by the generic cell rate algorithm (ITU-T I.371, annex A). It keeps
//! one moment a client instead of a count and a clock, and is as strict at every moment as at the turn of a second.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

/// Requests in some time: `50/s`, `3000/min`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    requests: NonZeroU32,
    unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
    Hour,
}

impl Unit {
    const ALL: [Self; 3] = [Self::Second, Self::Minute, Self::Hour];

    fn name(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "min",
            Self::Hour => "h",
        }
    }

    fn seconds(self) -> u32 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
        }
    }
}

/// More would be no limit: a request takes longer than a microsecond.
const REQUESTS_MAX: u32 = 1_000_000;

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rate = || {
            let (requests, unit) = text.trim().split_once('/')?;
            let unit = Unit::ALL.into_iter().find(|known| known.name() == unit.trim())?;
            Some(Self { requests: requests.trim().parse().ok()?, unit })
        };
        let wanted = format!("write 1 to {REQUESTS_MAX} requests in a second, minute or hour: 50/s, 3000/min, 1000/h");
        rate().filter(|rate| rate.requests.get() <= REQUESTS_MAX).ok_or(wanted)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.requests, self.unit.name())
    }
}

/// A rate, and how many requests may come at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    rate: Rate,
    burst: NonZeroU32,
}

impl RateLimit {
    /// A limit. Without a burst, what the rate allows in a second may come at once, and one request in any case.
    #[must_use]
    pub fn new(rate: Rate, burst: Option<NonZeroU32>) -> Self {
        let of_a_second = rate.requests.get().div_ceil(rate.unit.seconds());
        let burst = burst.or(NonZeroU32::new(of_a_second)).unwrap_or(NonZeroU32::MIN);
        Self { rate, burst }
    }

    /// Between two requests of a client that asks evenly. Rounded up: never more than the rate.
    fn interval(self) -> u64 {
        let period = u64::from(self.rate.unit.seconds()) * 1_000_000_000;
        period.div_ceil(u64::from(self.rate.requests.get()))
    }

    /// How far a client may be ahead of asking evenly.
    fn tolerance(self) -> u64 {
        self.interval().saturating_mul(u64::from(self.burst.get()) - 1)
    }

    /// Decides about a request at `now` of a client that has asked up to `debt`; both count in nanoseconds from the same
    /// moment. Returns what it has asked up to then, or how long until its next request is within the limit.
    pub(super) fn count(self, debt: u64, now: u64) -> Result<u64, Duration> {
        let due = debt.max(now);
        match (due - now).checked_sub(self.tolerance()) {
            None | Some(0) => Ok(due.saturating_add(self.interval())),
            Some(early) => Err(Duration::from_nanos(early)),
        }
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at once, and {} after that", self.burst, self.rate)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limit(rate: &str, burst: u32) -> RateLimit {
        RateLimit::new(rate.parse().unwrap(), NonZeroU32::new(burst))
    }

    #[test]
    fn a_rate_reads_as_it_is_shown() {
        for text in ["50/s", "3000/min", "1/h", "1000000/s"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        for text in ["", "50", "0/s", "1000001/s", "5/day", "-1/s", "1.5/s", "/s"] {
            assert!(text.parse::<Rate>().unwrap_err().contains("3000/min"), "{text}");
        }
    }

    #[test]
    fn the_burst_is_what_a_second_allows_unless_it_is_named() {
        let burst = |rate: &str| RateLimit::new(rate.parse().unwrap(), None).burst.get();
        assert_eq!((burst("50/s"), burst("3000/min"), burst("61/min"), burst("10/h")), (50, 50, 2, 1));
        assert_eq!(limit("50/s", 7).burst.get(), 7);
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let limit = limit("10/s", 3);
        let mut debt = 0;
        for _ in 0..3 {
            debt = limit.count(debt, 5).unwrap();
        }
        assert_eq!(limit.count(debt, 5), Err(Duration::from_millis(100)));
        let later = 5 + 100_000_000;
        debt = limit.count(debt, later).unwrap();
        assert_eq!(limit.count(debt, later + 1), Err(Duration::from_nanos(99_999_999)));
    }

    proptest! {
        /// In any stretch of time no more than the burst and what the rate gives meanwhile.
        #[test]
        fn never_above_the_rate_and_the_burst(
            requests in 1u32..2000, burst in 1u32..50, gaps in prop::collection::vec(0u64..200_000_000, 1..300)
        ) {
            let limit = RateLimit::new(format!("{requests}/s").parse().unwrap(), NonZeroU32::new(burst));
            let (mut now, mut debt, mut taken) = (0, 0, Vec::new());
            for gap in gaps {
                now += gap;
                if let Ok(next) = limit.count(debt, now) {
                    debt = next;
                    taken.push(now);
                }
            }
            for (index, first) in taken.iter().enumerate() {
                for (more, last) in taken[index..].iter().enumerate() {
                    let allowed = u64::from(burst) + (last - first) / limit.interval();
                    prop_assert!((more as u64) < allowed, "{} in {} ns", more + 1, last - first);
                }
            }
        }

        /// Who waits as long as it is told gets in, and who waits a nanosecond less does not.
        #[test]
        fn the_wait_that_is_told_is_right(
            requests in 1u32..2000, burst in 1u32..50, asked in 1usize..100, now in 0u64..1_000_000_000_000
        ) {
            let limit = RateLimit::new(format!("{requests}/min").parse().unwrap(), NonZeroU32::new(burst));
            let mut debt = 0;
            let mut refused = None;
            for _ in 0..asked {
                match limit.count(debt, now) {
                    Ok(next) => debt = next,
                    Err(wait) => refused = Some(wait),
                }
            }
            prop_assert_eq!(refused.is_some(), asked > burst as usize);
            if let Some(wait) = refused {
                let wait = u64::try_from(wait.as_nanos()).unwrap();
                prop_assert!(limit.count(debt, now + wait).is_ok());
                prop_assert!(limit.count(debt, now + wait - 1).is_err());
            }
        }

        /// Who keeps to the rate is never refused, whatever it did before.
        #[test]
        fn an_even_client_is_never_refused(requests in 1u32..100_000, burst in 1u32..10, start in 0u64..1 << 40) {
            let limit = RateLimit::new(format!("{requests}/s").parse().unwrap(), NonZeroU32::new(burst));
            let mut debt = 0;
            for request in 0..50 {
                let counted = limit.count(debt, start + request * limit.interval());
                prop_assert!(counted.is_ok());
                debt = counted.unwrap();
            }
        }
    }
}
