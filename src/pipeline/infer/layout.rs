//! How the cores are shared between decoding and inference. A pure function of the cores and the settings.

use serde::Serialize;

/// What the settings ask for; `None` leaves the choice to [`layout`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LayoutRequest {
    /// Worker threads, each with its own session.
    pub workers: Option<usize>,
    /// ONNX Runtime threads inside one run.
    pub intra_op_threads: Option<usize>,
    /// Images decoded at the same time.
    pub decode_threads: Option<usize>,
}

/// Threads of the compute stages. All at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Layout {
    /// Worker threads, each with its own session.
    pub workers: usize,
    /// ONNX Runtime threads inside one run.
    pub intra_op_threads: usize,
    /// Images decoded at the same time.
    pub decode_threads: usize,
}

/// Divides `cores`: `workers x intra_op_threads` never exceeds them unless the settings say so.
///
/// The default is two workers that share the cores. Two, because while one hands out answers and gathers its next batch
/// the other computes; not more, because every session holds its own copy of the weights. Decoding may use every core:
/// the system's scheduler shares them better than a fixed split, since how long a decode takes depends on the photos.
#[must_use]
pub fn layout(cores: usize, request: LayoutRequest) -> Layout {
    let cores = cores.max(1);
    let workers = match (request.workers, request.intra_op_threads) {
        (Some(workers), _) => workers.max(1),
        (None, Some(intra)) => (cores / intra.max(1)).clamp(1, 2),
        (None, None) => cores.min(2),
    };
    let intra_op_threads = request.intra_op_threads.unwrap_or(cores / workers).max(1);
    let decode_threads = request.decode_threads.unwrap_or(cores).max(1);
    Layout { workers, intra_op_threads, decode_threads }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(cores: usize, workers: Option<usize>, intra_op_threads: Option<usize>) -> (usize, usize) {
        let layout = layout(cores, LayoutRequest { workers, intra_op_threads, decode_threads: None });
        (layout.workers, layout.intra_op_threads)
    }

    #[test]
    fn the_default_shares_the_cores_between_two_workers() {
        assert_eq!(of(1, None, None), (1, 1));
        assert_eq!(of(2, None, None), (2, 1));
        assert_eq!(of(3, None, None), (2, 1));
        assert_eq!(of(16, None, None), (2, 8));
    }

    #[test]
    fn one_setting_decides_the_other() {
        assert_eq!(of(8, Some(1), None), (1, 8));
        assert_eq!(of(8, Some(4), None), (4, 2));
        assert_eq!(of(8, None, Some(8)), (1, 8));
        assert_eq!(of(8, None, Some(2)), (2, 2));
    }

    #[test]
    fn what_was_asked_for_is_not_second_guessed() {
        assert_eq!(of(2, Some(4), Some(4)), (4, 4));
    }

    proptest! {
        #[test]
        fn defaults_stay_within_the_cores(cores in 0usize..512) {
            let layout = layout(cores, LayoutRequest::default());
            prop_assert!(layout.workers >= 1 && layout.intra_op_threads >= 1 && layout.decode_threads >= 1);
            prop_assert!(layout.workers * layout.intra_op_threads <= cores.max(1));
        }
    }
}
