//! What can be tried: a provider, instances and threads, the largest batch and the delay. Pure lists of the machine's
//! cores.

use std::fmt;
use std::time::Duration;

use crate::pipeline::EngineOptions;
use crate::pipeline::batch::Cores;
use crate::pipeline::infer::{InstanceGroup, LayoutRequest, PrecisionChoice, Provider, ProviderChoice, layout};

/// Delays that are tried where batches help. Longer ones cost a lone caller more than any batch wins.
pub const DELAYS: [Duration; 3] = [Duration::from_millis(1), Duration::from_millis(2), Duration::from_millis(5)];
/// Instances whose weights are not shared: each is a copy, and compiled for itself.
const COPIES_MAX: usize = 8;
/// Streams of a GPU that are tried beside the default.
const STREAMS: [usize; 3] = [1, 3, 4];
/// Twice OpenVINO's default.
const BATCH_MAX_ON_CORES: usize = 16;
/// Callers at the same time, at least, where nothing bounds the latency: as many connections as load tests use.
const CALLERS_MIN: usize = 16;

/// Instances and their intra-op threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// As the load asks: the server's default.
    Elastic,
    /// So many equal instances, whatever the load.
    Fixed(InstanceGroup),
}

/// One way to run a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// What computes.
    pub provider: Provider,
    /// In which numbers.
    pub precision: PrecisionChoice,
    /// On how many threads.
    pub threads: Threads,
    /// Images in one batch, at most.
    pub batch_images_max: usize,
    /// How long an image waits for company while cores are free.
    pub batch_delay: Duration,
}

impl Candidate {
    /// The options that start it; what it does not decide stays as in `base`.
    #[must_use]
    pub fn options(&self, base: &EngineOptions) -> EngineOptions {
        let (instances, intra_op_threads) = match self.threads {
            Threads::Elastic => (None, None),
            Threads::Fixed(group) => (Some(group.instances), Some(group.intra_op_threads)),
        };
        EngineOptions {
            provider: ProviderChoice::Named(self.provider),
            precision: self.precision,
            // Of its own: no engine waits for the cores of another that is still stopping.
            cores: Cores::new(base.cores.total()),
            layout: LayoutRequest { instances, intra_op_threads, ..base.layout },
            batch_images_max: Some(self.batch_images_max),
            batch_delay: self.batch_delay,
            ..base.clone()
        }
    }
}

/// Callers that keep every instance of a layout busy while its next batch is being prepared.
#[must_use]
pub fn saturating(runs_max: usize, batch_images_max: usize, queue_images_max: usize) -> usize {
    (2 * runs_max * batch_images_max).max(CALLERS_MIN).min(queue_images_max).max(1)
}

/// The default, then the fixed layouts that fill `cores`, from the most instances to the fewest.
#[must_use]
pub fn threads(cores: usize, provider: Provider) -> Vec<Threads> {
    let cores = cores.max(1);
    let group = |instances, intra_op_threads| InstanceGroup { instances, intra_op_threads };
    let fixed: Vec<InstanceGroup> = if provider.is_gpu() {
        STREAMS.into_iter().map(|instances| group(instances, 1)).collect()
    } else {
        let copies_max = if provider == Provider::Cpu { cores } else { COPIES_MAX };
        let powers = std::iter::successors(Some(1), |threads| Some(threads * 2)).take_while(|&threads| threads < cores);
        let widths = powers.chain([cores]);
        widths.map(|width| group(cores / width, width)).filter(|group| group.instances <= copies_max).collect()
    };
    // Where the default has one group, that group by hand is the same thing.
    let default = layout(cores, provider, LayoutRequest::default()).instance_groups;
    let fixed = fixed.into_iter().filter(|group| default != [*group]).map(Threads::Fixed);
    std::iter::once(Threads::Elastic).chain(fixed).collect()
}

/// The largest batch that is tried where nobody says: twice the largest default on cores and on GPUs.
#[must_use]
pub fn batch_images_max(provider: Provider) -> usize {
    if provider.is_gpu() { 2 * provider.batch_images_max() } else { BATCH_MAX_ON_CORES }
}

/// 1, 2, 4, 8, ... up to `max`, and `max` itself.
#[must_use]
pub fn batches(max: usize) -> Vec<usize> {
    let max = max.max(1);
    std::iter::successors(Some(1), |images| Some(images * 2)).take_while(|&images| images < max).chain([max]).collect()
}

impl fmt::Display for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elastic => f.write_str("elastic"),
            Self::Fixed(group) => write!(f, "{} x {}", group.instances, group.intra_op_threads),
        }
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, batches of up to {}", self.provider, self.threads, self.batch_images_max)?;
        if self.batch_delay.is_zero() { Ok(()) } else { write!(f, ", delay {:?}", self.batch_delay) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(cores: usize, provider: Provider) -> Vec<String> {
        threads(cores, provider).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn layouts_fill_the_cores_and_the_default_comes_first() {
        assert_eq!(names(1, Provider::Cpu), ["elastic"]);
        assert_eq!(names(2, Provider::Cpu), ["elastic", "2 x 1", "1 x 2"]);
        assert_eq!(names(6, Provider::Cpu), ["elastic", "6 x 1", "3 x 2", "1 x 4", "1 x 6"]);
        assert_eq!(names(16, Provider::Cpu), ["elastic", "16 x 1", "8 x 2", "4 x 4", "2 x 8", "1 x 16"]);
    }

    #[test]
    fn copies_of_the_weights_are_few_and_a_gpu_has_streams() {
        assert_eq!(names(16, Provider::Openvino), ["elastic", "8 x 2", "4 x 4", "2 x 8", "1 x 16"]);
        assert_eq!(names(16, Provider::Cuda), ["elastic", "1 x 1", "3 x 1", "4 x 1"]);
    }

    #[test]
    fn batches_double_up_to_the_largest() {
        assert_eq!(batches(0), [1]);
        assert_eq!(batches(1), [1]);
        assert_eq!(batches(8), [1, 2, 4, 8]);
        assert_eq!(batches(12), [1, 2, 4, 8, 12]);
    }

    #[test]
    fn callers_fill_two_rounds_of_batches_and_fit_into_the_queue() {
        assert_eq!(saturating(2, 1, 256), 16);
        assert_eq!(saturating(2, 8, 256), 32);
        assert_eq!(saturating(16, 32, 256), 256);
    }
}
