//! Samples -> batches: a bounded queue, a pure policy, a budget of cores, and workers that pull.
//!
//! All limits count images, never requests. This stage knows neither HTTP nor ONNX Runtime: a worker runs whatever
//! implements [`Infer`](super::infer::Infer).

mod cores;
mod decide;
mod pace;
mod pulse;
mod queue;
mod reply;
mod worker;

pub use cores::Cores;
pub use decide::{BatchLimits, Decision, Group, Room, decide};
pub use pulse::Pulse;
pub use queue::{Instances, Place, Places, Queue, Run, Taken, Waiting};
pub use reply::{Answer, Reply, Row, RowOf, Scored};
pub use worker::{Answering, Job, Lane, Telling, work};

/// Why an image got no batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Not enough free places in the queue.
    #[error("no room for {images} more image(s): at most {images_max} wait at once")]
    Overloaded {
        /// Images that asked for a place.
        images: usize,
        /// Places in the queue.
        images_max: usize,
    },
    /// What waits already takes too long.
    #[error("about {ahead_ms} ms of work wait already: at most {max_ms} may")]
    Behind {
        /// How long a new image would wait, as far as that is known.
        ahead_ms: u64,
        /// How long one may.
        max_ms: u64,
    },
    /// The deadline passed before a worker was free.
    #[error("the deadline passed while the image waited")]
    Late,
    /// The queue was closed because the server stops.
    #[error("the model is shutting down")]
    Closed,
}
