//! What the program tells about itself: stage times, Prometheus metrics, log lines, traces. Imports nothing else of ours, so
//! that every layer may report through it.

pub mod logging;
pub mod metrics;
pub mod requests;
pub mod tally;
pub mod timing;
pub mod traces;

pub use metrics::{Metrics, ModelInfo, ModelMetrics, WorkDone};
pub use requests::{RequestLog, ServedModel};
pub use tally::{Counts, Ended};
pub use timing::{Passed, Stage, StageTimes};
pub use traces::{Trace, Tracer};
