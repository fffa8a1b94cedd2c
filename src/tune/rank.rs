//! Which of the tried settings are best. Pure: rows in, places out.

use std::time::Duration;

use super::candidate::Candidate;
use super::point::{self, Point};
use crate::pipeline::infer::Precision;

/// The default stays unless something serves this many times its images: what clocks tell apart on a machine that does
/// other things as well.
pub const GAIN_MIN: f64 = 1.03;
/// Standard errors that lie between the best and the default, at least: 19 times in 20 the difference is real.
const SURE: f64 = 2.0;
/// Without a bound: the latency of the default under load is at most this many times that of a lone caller.
pub const BOUND_FACTOR: u32 = 4;

/// The latency that one image in a hundred may exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// How long.
    pub p99: Duration,
    /// Somebody asked for it; else it follows from the default's latency.
    pub given: bool,
}

/// How far a candidate came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Measured.
    Measured,
    /// It could not be started, or failed while it ran.
    Failed(String),
    /// Its classes are not those of the CPU provider, so that its speed says nothing.
    OtherClasses(String),
}

/// One candidate and what is known about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What was tried.
    pub candidate: Candidate,
    /// What the server does when nothing is set.
    pub is_default: bool,
    /// What it really computes in, once it was started.
    pub precision: Option<Precision>,
    /// How far it came.
    pub verdict: Verdict,
    /// What so many callers got, in the order in which they were tried.
    pub points: Vec<Point>,
    /// Memory of the whole process, of the candidate that ran in it first.
    pub resident_bytes: Option<u64>,
}

impl Row {
    /// A candidate of which nothing is known.
    #[must_use]
    pub fn new(candidate: Candidate) -> Self {
        Self {
            candidate,
            is_default: false,
            precision: None,
            verdict: Verdict::Measured,
            points: Vec::new(),
            resident_bytes: None,
        }
    }

    /// What a lone caller got.
    #[must_use]
    pub fn alone(&self) -> Option<&Point> {
        self.points.iter().find(|point| point.callers == 1)
    }

    /// The most images a second within the bound.
    #[must_use]
    pub fn best(&self, bound: Duration) -> Option<&Point> {
        match self.verdict {
            Verdict::Measured => point::best(&self.points, bound),
            Verdict::Failed(_) | Verdict::OtherClasses(_) => None,
        }
    }

    /// What a table shows of it: the best within the bound, or else the point that misses it by the least.
    #[must_use]
    pub fn shown(&self, bound: Duration) -> Option<&Point> {
        self.best(bound).or_else(|| self.points.iter().min_by_key(|point| point.p99()))
    }

    fn rate(&self, bound: Duration) -> Option<f64> {
        self.best(bound).map(Point::images_per_second)
    }
}

/// What is to be set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decision {
    /// Nothing: the default is the best, or so near to it that a clock cannot tell.
    Default {
        /// The default's row.
        row: usize,
        /// Images a second of the best, in those of the default.
        gain: f64,
        /// How far that may be off.
        uncertainty: f64,
    },
    /// This row.
    Set {
        /// The winner's row.
        row: usize,
        /// Its images a second in those of the default; none if the default misses the bound.
        gain: Option<f64>,
    },
    /// Nothing stays within the bound.
    NothingMeets {
        /// The row that comes closest, and with how many callers; none if nothing ran at all.
        closest: Option<(usize, usize)>,
    },
}

impl Decision {
    /// The row whose settings are the answer.
    #[must_use]
    pub fn winner(&self) -> Option<usize> {
        match *self {
            Self::Default { row, .. } | Self::Set { row, .. } => Some(row),
            Self::NothingMeets { .. } => None,
        }
    }
}

/// Batches of this candidate's size serve more images a second than single images do on the same threads.
#[must_use]
pub fn batches_help(rows: &[Row], candidate: &Candidate, bound: Duration) -> bool {
    let rate = |wanted: Candidate| rows.iter().find(|row| row.candidate == wanted).and_then(|row| row.rate(bound));
    match (rate(*candidate), rate(Candidate { batch_images_max: 1, ..*candidate })) {
        (Some(batches), Some(single)) => batches >= single * GAIN_MIN,
        // Unknown counts as no: a delay is paid by every lone caller.
        _ => false,
    }
}

/// Rows from the most images a second within the bound to the fewest; those that cannot win are left out.
#[must_use]
pub fn ranked(rows: &[Row], bound: Duration) -> Vec<usize> {
    let mut rates: Vec<(usize, f64)> =
        rows.iter().enumerate().filter_map(|(index, row)| Some((index, row.rate(bound)?))).collect();
    rates.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    rates.into_iter().map(|(index, _)| index).collect()
}

/// Decides among `finalists`, which were measured beside each other, the default among them.
#[must_use]
pub fn decide(rows: &[Row], finalists: &[usize], bound: Duration) -> Decision {
    let of = |order: Vec<usize>| order.into_iter().find(|index| finalists.contains(index));
    let Some(best) = of(ranked(rows, bound)) else {
        let points = rows.iter().enumerate().filter(|(_, row)| row.verdict == Verdict::Measured);
        let points = points.flat_map(|(index, row)| row.points.iter().map(move |point| (index, point)));
        let closest = points.min_by_key(|(_, point)| point.p99());
        return Decision::NothingMeets { closest: closest.map(|(index, point)| (index, point.callers)) };
    };
    let rate = |index: usize| rows[index].rate(bound);
    let default = rows.iter().position(|row| row.is_default);
    let gain = default.and_then(|default| Some((default, rate(best)? / rate(default)?)));
    let uncertainty = |index: usize| rows[index].best(bound).map_or(0.0, Point::uncertainty);
    match gain {
        Some((row, gain)) => {
            let uncertainty = if row == best { 0.0 } else { gain * uncertainty(best).hypot(uncertainty(row)) };
            match gain < GAIN_MIN || gain - SURE * uncertainty < 1.0 {
                true => Decision::Default { row, gain, uncertainty },
                false => Decision::Set { row: best, gain: Some(gain) },
            }
        }
        None => Decision::Set { row: best, gain: None },
    }
}

/// For each row: no other has both more images a second within the bound and a shorter median for a lone caller.
#[must_use]
pub fn pareto(rows: &[Row], bound: Duration) -> Vec<bool> {
    let ends = |row: &Row| Some((row.rate(bound)?, row.alone()?.p50()));
    let beats = |(rate, alone): (f64, Duration), (other_rate, other_alone): (f64, Duration)| {
        rate >= other_rate && alone <= other_alone && (rate > other_rate || alone < other_alone)
    };
    let all: Vec<Option<(f64, Duration)>> = rows.iter().map(ends).collect();
    all.iter().map(|own| own.is_some_and(|own| !all.iter().flatten().any(|other| beats(*other, own)))).collect()
}

/// The default, which every winner must be compared with, and the best `len` rows after it.
#[must_use]
pub fn finalists(rows: &[Row], among: &[usize], len: usize, bound: Duration) -> Vec<usize> {
    let default = among.iter().copied().filter(|&index| rows[index].is_default);
    let best = ranked(rows, bound).into_iter().filter(|index| among.contains(index) && !rows[*index].is_default);
    default.chain(best.take(len)).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::pipeline::infer::{PrecisionChoice, Provider};
    use crate::tune::candidate::Threads;
    use crate::tune::point::Completion;

    pub(crate) const BOUND: Duration = Duration::from_millis(100);

    /// A steady load: `rate` images a second, each in `latency` milliseconds.
    pub(crate) fn point(callers: usize, rate: u64, latency: u64) -> Point {
        let latency = Duration::from_millis(latency);
        let every = Duration::from_secs(1) / u32::try_from(rate).unwrap();
        let completions: Vec<_> = (1..200u32).map(|i| Completion { at: every * i, latency }).collect();
        let mut point = Point::new(callers, &completions);
        // Twice, so that it is sure.
        point.add(&point.clone());
        point
    }

    /// A row that serves `rate` images a second within the bound, one at a time in `alone` milliseconds.
    pub(crate) fn row(rate: u64, alone: u64) -> Row {
        let candidate = Candidate {
            provider: Provider::Cpu,
            precision: PrecisionChoice::Auto,
            threads: Threads::Elastic,
            batch_images_max: 4,
            batch_delay: Duration::ZERO,
        };
        Row { points: vec![point(1, 10, alone), point(8, rate, 50)], ..Row::new(candidate) }
    }

    pub(crate) fn default_row(rate: u64, alone: u64) -> Row {
        Row { is_default: true, ..row(rate, alone) }
    }

    const ALL: [usize; 4] = [0, 1, 2, 3];

    #[test]
    fn the_default_stays_where_nothing_is_clearly_better() {
        let rows = [default_row(200, 20), row(204, 20), row(150, 10)];
        assert!(
            matches!(decide(&rows, &ALL, BOUND), Decision::Default { row: 0, gain, .. } if gain > 1.01 && gain < 1.03)
        );
        let rows = [default_row(200, 20), row(240, 20)];
        assert!(matches!(decide(&rows, &ALL, BOUND), Decision::Set { row: 1, gain: Some(gain) } if gain > 1.15));
        assert_eq!(decide(&rows, &[0], BOUND).winner(), Some(0), "what was no finalist was measured at another time");
    }

    #[test]
    fn a_gain_within_the_noise_is_none() {
        // 160 and 320 images a second: 240 on average, or as many as the default.
        let mut noisy = row(160, 20);
        point::record(&mut noisy.points, point(8, 320, 50));
        let rows = [default_row(200, 20), noisy];
        let decision = decide(&rows, &ALL, BOUND);
        assert!(
            matches!(decision, Decision::Default { row: 0, gain, uncertainty } if gain > 1.03 && uncertainty > 0.1)
        );
    }

    #[test]
    fn whoever_fails_or_answers_otherwise_never_wins() {
        let failed = Row { verdict: Verdict::Failed("no memory".to_owned()), ..row(900, 1) };
        let wrong = Row { verdict: Verdict::OtherClasses("7 of 8".to_owned()), ..row(990, 1) };
        let rows = [default_row(200, 20), failed, wrong, row(300, 30)];
        assert_eq!(decide(&rows, &ALL, BOUND).winner(), Some(3));
        assert_eq!(pareto(&rows, BOUND), [true, false, false, true]);
        assert_eq!(ranked(&rows, BOUND), [3, 0]);
    }

    #[test]
    fn a_default_that_misses_the_bound_gives_way() {
        let slow = Row { points: vec![point(1, 5, 200)], ..default_row(1, 1) };
        assert_eq!(decide(&[slow, row(50, 90)], &ALL, BOUND), Decision::Set { row: 1, gain: None });
    }

    #[test]
    fn where_nothing_meets_the_bound_the_closest_is_named() {
        let slow = |ms| Row { points: vec![point(1, 5, ms), point(2, 9, ms + 90)], ..row(1, 1) };
        let rows = [slow(300), slow(150), Row { verdict: Verdict::Failed(String::new()), ..slow(120) }];
        assert_eq!(decide(&rows, &ALL, BOUND), Decision::NothingMeets { closest: Some((1, 1)) });
        assert_eq!(decide(&[], &ALL, BOUND), Decision::NothingMeets { closest: None });
    }

    #[test]
    fn batches_help_where_single_images_are_slower_on_the_same_threads() {
        let with =
            |row: Row, batch_images_max| Row { candidate: Candidate { batch_images_max, ..row.candidate }, ..row };
        let rows = [with(row(200, 20), 8), with(row(199, 10), 1)];
        assert!(!batches_help(&rows, &rows[0].candidate, BOUND));
        let rows = [with(row(200, 20), 8), with(row(100, 10), 1)];
        assert!(batches_help(&rows, &rows[0].candidate, BOUND));
        assert!(!batches_help(&rows, &rows[1].candidate, BOUND), "a batch of one is none");
        assert!(!batches_help(&rows[..1], &rows[0].candidate, BOUND), "nobody has tried single images");
    }

    #[test]
    fn the_front_is_what_nothing_beats_at_both_ends() {
        let rows = [row(100, 10), row(200, 20), row(150, 25), row(300, 40), row(90, 10)];
        assert_eq!(pareto(&rows, BOUND), [true, true, false, true, false]);
    }

    #[test]
    fn each_round_keeps_the_best_and_the_default() {
        let rows = [default_row(100, 10), row(200, 20), row(150, 25), row(300, 40)];
        assert_eq!(finalists(&rows, &ALL, 2, BOUND), [0, 3, 1]);
        assert_eq!(finalists(&rows, &[0, 1, 2], 1, BOUND), [0, 1]);
        assert_eq!(finalists(&rows, &ALL, 9, BOUND), [0, 3, 1, 2]);
    }
}
