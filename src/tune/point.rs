//! What so many callers got, and how many callers to try next. Pure: times come from outside.

use std::time::Duration;

/// Answers of one batch reach their callers within this time of each other.
const TOGETHER: Duration = Duration::from_millis(1);
/// What is assumed of a rate that was measured once: two measurements a second apart differ by as much on a machine that
/// does other things as well.
const UNCERTAINTY_OF_ONE: f64 = 0.1;
/// Images after which a missed bound is believed.
const IMAGES_SURE: usize = 100;
/// Where a bound was missed: how much of what Little's law allows is tried next, since the slowest answers take longer than
/// the mean.
const CAREFUL: f64 = 0.85;

/// One answer: when it came, counted from the start of the measurement, and how long it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// When.
    pub at: Duration,
    /// How long after its upload.
    pub latency: Duration,
}

/// What so many callers got who each send the next image when they have the answer to the last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Point {
    /// Callers at the same time.
    pub callers: usize,
    /// Images answered within `time`.
    pub images: usize,
    /// How long they took together.
    pub time: Duration,
    /// The images' latencies, ascending.
    latencies: Vec<Duration>,
    /// Images a second of each measurement.
    rates: Vec<f64>,
}

impl Point {
    /// What `completions`, in the order in which they came, say about a steady load. The first answer of each caller is left
    /// out: all of them started at the same moment, which callers never do again. The rest counts from one answer to a later
    /// one, because whole batches come at once and a clock that stops between two of them would count half of one.
    #[must_use]
    pub fn new(callers: usize, completions: &[Completion]) -> Self {
        let first = callers.clamp(1, completions.len().max(1)) - 1;
        let Some(begin) = completions.get(first).map(|completion| completion.at) else {
            return Self { callers, ..Self::default() };
        };
        let counted: Vec<&Completion> =
            completions[first..].iter().filter(|completion| completion.at > begin + TOGETHER).collect();
        let end = counted.last().map_or(begin, |completion| completion.at);
        let mut latencies: Vec<Duration> = counted.iter().map(|completion| completion.latency).collect();
        latencies.sort_unstable();
        let mut point = Self { callers, images: counted.len(), time: end - begin, latencies, rates: Vec::new() };
        point.rates.push(point.images_per_second());
        point
    }

    /// Adds what was measured at another time.
    pub fn add(&mut self, other: &Self) {
        self.images += other.images;
        self.time += other.time;
        self.latencies.extend_from_slice(&other.latencies);
        self.latencies.sort_unstable();
        self.rates.extend_from_slice(&other.rates);
    }

    /// Images a second.
    #[must_use]
    pub fn images_per_second(&self) -> f64 {
        if self.time.is_zero() { 0.0 } else { self.images as f64 / self.time.as_secs_f64() }
    }

    /// How far the images a second may be off, as a part of them: the standard error of the measurements' mean.
    #[must_use]
    pub fn uncertainty(&self) -> f64 {
        let len = self.rates.len() as f64;
        let mean = self.rates.iter().sum::<f64>() / len;
        if self.rates.len() < 2 || mean <= 0.0 {
            return UNCERTAINTY_OF_ONE;
        }
        let variance = self.rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / (len - 1.0);
        (variance / len).sqrt() / mean
    }

    /// Median of the latencies.
    #[must_use]
    pub fn p50(&self) -> Duration {
        self.at(self.latencies.len().div_ceil(2))
    }

    /// Latency that one image in a hundred exceeds. One image always may: of fewer than 200, a single hiccup of the machine
    /// would be all that is seen.
    #[must_use]
    pub fn p99(&self) -> Duration {
        let slower = (self.latencies.len() / 100).max(1);
        self.at(self.latencies.len().saturating_sub(slower))
    }

    /// The latency of this rank from one, the fastest; the nearest there is.
    fn at(&self, rank: usize) -> Duration {
        self.latencies.get(rank.max(1) - 1).copied().unwrap_or(Duration::MAX)
    }

    /// The slowest images stay within the bound.
    #[must_use]
    pub fn meets(&self, bound: Duration) -> bool {
        self.images > 0 && self.p99() <= bound
    }
}

/// Adds a measurement to those with as many callers.
pub fn record(points: &mut Vec<Point>, point: Point) {
    match points.iter_mut().find(|known| known.callers == point.callers) {
        Some(known) => known.add(&point),
        None => points.push(point),
    }
}

/// The point with the most images a second within the bound.
#[must_use]
pub fn best(points: &[Point], bound: Duration) -> Option<&Point> {
    let within = points.iter().filter(|point| point.meets(bound));
    within.max_by(|a, b| a.images_per_second().total_cmp(&b.images_per_second()))
}

/// How many callers to try next, 1 up to `callers_max`. `known` is the most images a second that any settings have reached.
///
/// More callers are more images a second, up to the point where all cores are busy, and from there on only wait for each
/// other. By Little's law a latency bound allows rate x bound callers, so that is where the search begins; it goes up while
/// the bound is met and gains, down where it is missed, and stays where it has found the edge.
#[must_use]
pub fn next_callers(points: &[Point], bound: Duration, callers_max: usize, known: f64) -> usize {
    let callers_max = callers_max.max(1);
    let allowed = |rate: f64| (rate * bound.as_secs_f64()).floor() as usize;
    let Some(best) = best(points, bound) else {
        let Some(fewest) = points.iter().min_by_key(|point| point.callers) else { return 1 };
        return allowed(fewest.images_per_second() * CAREFUL).clamp(1, (fewest.callers / 2).max(1));
    };
    let missed = points.iter().filter(|point| point.callers > best.callers && !point.meets(bound));
    let more = match missed.min_by_key(|point| point.callers) {
        // Within a quarter the edge is found: more precision than the clock has. If it is the edge: few images miss a bound
        // by accident.
        Some(missed) if missed.callers <= best.callers + (best.callers / 4).max(1) => {
            let doubtful = missed.images < IMAGES_SURE.min(best.images);
            return if doubtful { missed.callers } else { best.callers };
        }
        Some(missed) => allowed(missed.images_per_second() * CAREFUL).clamp(best.callers + 1, missed.callers - 1),
        None => allowed(known.max(best.images_per_second())).max(best.callers * 2).min(callers_max),
    };
    // More callers were tried already, and brought nothing.
    if points.iter().any(|point| point.callers == more) { best.callers } else { more }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// `callers` who got `rate` images a second, each in `latency` ms, and one in fifty in `slow` ms.
    fn point(callers: usize, rate: usize, latency: u64, slow: u64) -> Point {
        let latencies = [vec![ms(latency); rate * 49 / 50], vec![ms(slow); rate - rate * 49 / 50]].concat();
        Point { callers, images: rate, time: Duration::from_secs(1), latencies, rates: vec![rate as f64] }
    }

    #[test]
    fn batches_that_come_at_once_are_not_counted_by_halves() {
        // Batches of four every 10 ms, for ever: 400 images a second, wherever the clock stops.
        for batches in 3..12 {
            let completions: Vec<Completion> =
                (0..batches * 4).map(|i| Completion { at: ms(10 * (i / 4 + 1)), latency: ms(20) }).collect();
            let point = Point::new(8, &completions);
            assert!((point.images_per_second() - 400.0).abs() < 1e-9, "{batches}: {}", point.images_per_second());
        }
    }

    #[test]
    fn the_first_answers_are_left_out() {
        let at = |at, latency| Completion { at: ms(at), latency: ms(latency) };
        let point = Point::new(2, &[at(90, 90), at(100, 100), at(110, 20), at(120, 20), at(130, 30)]);
        assert_eq!((point.images, point.time), (3, ms(30)));
        assert_eq!((point.p50(), point.p99()), (ms(20), ms(20)));
        assert_eq!(Point::new(2, &[]).images, 0);
        assert!(!Point::new(4, &[at(1, 1)]).meets(ms(5)), "nothing was measured");
    }

    #[test]
    fn one_in_a_hundred_may_be_slower_and_one_always_may() {
        assert!(point(4, 50, 10, 99).meets(ms(10)), "one of fifty");
        assert!(!point(4, 100, 10, 11).meets(ms(10)), "two of a hundred");
        let mut pooled = point(4, 100, 10, 11);
        pooled.add(&point(4, 200, 10, 10));
        assert!(pooled.meets(ms(10)), "two of three hundred");
        assert_eq!((pooled.images, pooled.p50(), pooled.p99()), (300, ms(10), ms(10)));
    }

    #[test]
    fn measurements_that_differ_are_uncertain() {
        let mut even = point(4, 100, 10, 10);
        assert!((even.uncertainty() - UNCERTAINTY_OF_ONE).abs() < 1e-12);
        even.add(&point(4, 100, 10, 10));
        assert!(even.uncertainty() < 1e-12);
        // 100 and 120: mean 110, standard deviation 14.1, of the mean 10.
        let mut uneven = point(4, 100, 10, 10);
        uneven.add(&point(4, 120, 10, 10));
        assert!((uneven.uncertainty() - 10.0 / 110.0).abs() < 1e-9, "{}", uneven.uncertainty());
    }

    #[test]
    fn callers_grow_while_the_bound_is_met_and_gains() {
        let (bound, max) = (ms(100), 64);
        assert_eq!(next_callers(&[], bound, max, 0.0), 1);
        let alone = point(1, 50, 20, 20);
        // 50 a second leave room for 5 callers; what others reached, for more.
        assert_eq!(next_callers(std::slice::from_ref(&alone), bound, max, 0.0), 5);
        assert_eq!(next_callers(std::slice::from_ref(&alone), bound, max, 300.0), 30);
        assert_eq!(next_callers(std::slice::from_ref(&alone), bound, 16, 300.0), 16);
        let gains = [alone.clone(), point(5, 90, 40, 50)];
        assert_eq!(next_callers(&gains, bound, max, 0.0), 10);
        let no_gain = [alone, point(5, 90, 40, 50), point(10, 89, 60, 70)];
        assert_eq!(next_callers(&no_gain, bound, max, 0.0), 5);
    }

    #[test]
    fn callers_shrink_where_the_bound_is_missed_down_to_the_edge() {
        let bound = ms(100);
        let missed = [point(1, 50, 20, 20), point(16, 100, 150, 200)];
        assert_eq!(next_callers(&missed, bound, 64, 0.0), 8);
        let edge = [point(1, 50, 20, 20), point(8, 195, 80, 90), point(9, 196, 90, 110)];
        assert_eq!(next_callers(&edge, bound, 64, 0.0), 8);
        let doubtful = [point(1, 50, 20, 20), point(8, 195, 80, 90), point(9, 98, 90, 110)];
        assert_eq!(next_callers(&doubtful, bound, 64, 0.0), 9, "two of 98 images may be an accident");
        assert_eq!(next_callers(&[point(1, 5, 200, 200)], bound, 64, 0.0), 1, "fewer there are not");
        assert_eq!(next_callers(&[point(16, 100, 160, 200)], bound, 64, 0.0), 8);
    }

    #[test]
    fn more_callers_than_allowed_are_no_better() {
        let points = [point(1, 50, 20, 20), point(8, 95, 80, 90), point(16, 120, 130, 150)];
        assert_eq!(best(&points, ms(100)).map(|point| point.callers), Some(8));
        assert_eq!(best(&points, ms(200)).map(|point| point.callers), Some(16));
        assert_eq!(best(&points, ms(10)), None);
    }
}
