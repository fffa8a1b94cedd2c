//! What the program tells about itself: stage times, Prometheus metrics, log lines. Imports nothing else of ours, so
//! that every layer may report through it.

pub mod logging;
pub mod metrics;
pub mod tally;
pub mod timing;

pub use metrics::{Metrics, ModelInfo, ModelMetrics};
pub use tally::Counts;
pub use timing::{Stage, StageTimes};
