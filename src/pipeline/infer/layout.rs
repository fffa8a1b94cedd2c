//! How the cores are shared: instances of a model, their intra-op threads, and decoding. A pure function of the cores, the
//! provider and the settings.

use schemars::JsonSchema;
use serde::Serialize;

use super::Provider;

/// What the settings ask for; `None` leaves the choice to [`layout`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LayoutRequest {
    /// Instances of each model, all equal.
    pub instances: Option<usize>,
    /// ONNX Runtime threads inside one run.
    pub intra_op_threads: Option<usize>,
    /// Images decoded at the same time.
    pub decode_threads: Option<usize>,
}

/// Equal instances of one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct InstanceGroup {
    /// How many.
    pub instances: usize,
    /// ONNX Runtime threads inside one run of each.
    pub intra_op_threads: usize,
}

/// Instances and threads of the compute stages. All numbers are at least 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Layout {
    /// Groups of instances, from the most intra-op threads to the fewest. Each group alone fills the cores; what runs is
    /// decided batch by batch.
    pub instance_groups: Vec<InstanceGroup>,
    /// Images decoded at the same time.
    pub decode_threads: usize,
}

/// Each group's threads are this many times those of the next.
const STEP: usize = 4;
/// Runs on a GPU that overlap: while one computes, the next copies its batch.
const GPU_INSTANCES: usize = 2;

/// Divides `cores`.
///
/// Without a request the layout is elastic. On the CPU provider, instances share their weights, so that there is one with
/// all cores, one with a single thread for each core, and steps of four between: 16 cores have 1 x 16, 4 x 4 and 16 x 1.
/// OpenVINO compiles the weights into each instance, so that it gets one with all cores and two with half of them. On a GPU
/// an instance is a stream and needs one thread. A request for instances or threads makes one group of equal instances,
/// whatever the cores.
///
/// Decoding may use every core: the system's scheduler shares them better than a fixed split, since how long a decode
/// takes depends on the photos.
#[must_use]
pub fn layout(cores: usize, provider: Provider, request: LayoutRequest) -> Layout {
    let cores = cores.max(1);
    let group = |instances: usize, intra_op_threads: usize| InstanceGroup {
        instances: instances.max(1),
        intra_op_threads: intra_op_threads.max(1),
    };
    let instance_groups = match (request.instances, request.intra_op_threads, provider) {
        (Some(instances), Some(threads), _) => vec![group(instances, threads)],
        (Some(instances), None, Provider::Cpu | Provider::Openvino) => {
            vec![group(instances, cores / instances.max(1))]
        }
        (None, Some(threads), Provider::Cpu) => vec![group(cores / threads.max(1), threads)],
        (None, Some(threads), Provider::Openvino) => vec![group((cores / threads.max(1)).min(2), threads)],
        (None, None, Provider::Cpu) => {
            let powers = std::iter::successors(Some(1), |threads| Some(threads * STEP));
            let mut groups: Vec<_> =
                powers.take_while(|&threads| threads < cores).map(|threads| group(cores / threads, threads)).collect();
            groups.push(group(1, cores));
            groups.reverse();
            groups
        }
        (None, None, Provider::Openvino) => without_sharing(cores),
        (instances, threads, Provider::Cuda | Provider::Tensorrt) => {
            vec![group(instances.unwrap_or(GPU_INSTANCES), threads.unwrap_or(1))]
        }
    };
    Layout { instance_groups, decode_threads: request.decode_threads.unwrap_or(cores).max(1) }
}

/// The elastic layout where each instance has weights of its own: one with all cores and two with half of them.
#[must_use]
pub(super) fn without_sharing(cores: usize) -> Vec<InstanceGroup> {
    let all = InstanceGroup { instances: 1, intra_op_threads: cores.max(1) };
    let halves = InstanceGroup { instances: 2, intra_op_threads: cores / 2 };
    if cores < 2 { vec![all] } else { vec![all, halves] }
}

impl LayoutRequest {
    /// The settings leave instances and their threads to us.
    #[must_use]
    pub fn is_elastic(&self) -> bool {
        self.instances.is_none() && self.intra_op_threads.is_none()
    }
}

impl Layout {
    /// Runs that can be under way at the same moment, at most.
    #[must_use]
    pub fn runs_max(&self) -> usize {
        self.instance_groups.iter().map(|group| group.instances).max().unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Groups as (instances, threads).
    fn of(cores: usize, provider: Provider, instances: Option<usize>, threads: Option<usize>) -> Vec<(usize, usize)> {
        let request = LayoutRequest { instances, intra_op_threads: threads, decode_threads: None };
        let groups = layout(cores, provider, request).instance_groups;
        groups.into_iter().map(|group| (group.instances, group.intra_op_threads)).collect()
    }

    #[test]
    fn the_default_goes_from_all_cores_for_one_image_to_one_core_for_each() {
        let cpu = |cores| of(cores, Provider::Cpu, None, None);
        assert_eq!(cpu(1), [(1, 1)]);
        assert_eq!(cpu(2), [(1, 2), (2, 1)]);
        assert_eq!(cpu(4), [(1, 4), (4, 1)]);
        assert_eq!(cpu(6), [(1, 6), (1, 4), (6, 1)]);
        assert_eq!(cpu(16), [(1, 16), (4, 4), (16, 1)]);
    }

    #[test]
    fn where_weights_are_not_shared_there_are_three_copies_at_most() {
        let openvino = |cores| of(cores, Provider::Openvino, None, None);
        assert_eq!(openvino(1), [(1, 1)]);
        assert_eq!(openvino(2), [(1, 2), (2, 1)]);
        assert_eq!(openvino(16), [(1, 16), (2, 8)]);
    }

    #[test]
    fn one_setting_decides_the_other() {
        let cpu = |instances, threads| of(8, Provider::Cpu, instances, threads);
        assert_eq!(cpu(Some(1), None), [(1, 8)]);
        assert_eq!(cpu(Some(4), None), [(4, 2)]);
        assert_eq!(cpu(None, Some(8)), [(1, 8)]);
        assert_eq!(cpu(None, Some(2)), [(4, 2)]);
        assert_eq!(of(8, Provider::Openvino, None, Some(2)), [(2, 2)]);
        assert_eq!(of(8, Provider::Cuda, None, None), [(2, 1)]);
        assert_eq!(of(8, Provider::Tensorrt, Some(4), None), [(4, 1)]);
    }

    #[test]
    fn what_was_asked_for_is_not_second_guessed() {
        assert_eq!(of(2, Provider::Cpu, Some(4), Some(4)), [(4, 4)]);
    }

    proptest! {
        #[test]
        fn defaults_stay_within_the_cores_and_widest_comes_first(cores in 0usize..512, provider in 0usize..4) {
            let provider = [Provider::Cpu, Provider::Openvino, Provider::Cuda, Provider::Tensorrt][provider];
            let layout = layout(cores, provider, LayoutRequest::default());
            let groups = &layout.instance_groups;
            prop_assert!(layout.decode_threads >= 1 && !groups.is_empty());
            prop_assert!(groups.is_sorted_by(|a, b| a.intra_op_threads > b.intra_op_threads));
            for group in groups {
                prop_assert!(group.instances >= 1 && group.intra_op_threads >= 1);
                if matches!(provider, Provider::Cpu | Provider::Openvino) {
                    prop_assert!(group.instances * group.intra_op_threads <= cores.max(1));
                }
            }
        }
    }
}
