//! What goes back to the caller of one image, and how it is made from the image's row of scores.

use std::time::Instant;

use tokio::sync::oneshot::Sender;

use super::worker::Answering;
use crate::pipeline::error::ClassifyError;
use crate::pipeline::infer::Reading;
use crate::pipeline::postprocess;
use crate::pipeline::types::{Classification, ImageInfo};
use crate::telemetry::{Stage, StageTimes};

/// What a caller gets for one image.
pub type Answer<T = Scored> = Result<T, ClassifyError>;

/// One classified image.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// The best classes.
    pub classification: Classification,
    /// Size and format of the upload.
    pub image: ImageInfo,
    /// Where the time went.
    pub times: StageTimes,
}

/// All values of one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// One for each value of the output, or for each class.
    pub values: Vec<f32>,
    /// Indices of the largest, largest first. Ranked before anything is made of the values, as [`Scored`] is: probabilities
    /// may round to the same number.
    pub best: Vec<usize>,
    /// Where the time went.
    pub times: StageTimes,
}

/// Which values a [`Row`] has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowOf {
    /// Those that the graph returned, a background included.
    Output,
    /// A probability for each class, in the order of the index.
    Probabilities,
}

/// The caller of one image and what it wants. A closed channel means that it left.
#[derive(Debug)]
pub enum Reply {
    /// The best classes.
    Classes {
        /// How many.
        top_k: usize,
        /// How the row is read, where not as the model means it.
        reading: Option<Reading>,
        /// Size and format of the upload, for the answer.
        image: ImageInfo,
        /// The caller.
        to: Sender<Answer>,
    },
    /// All values.
    Row {
        /// Which.
        of: RowOf,
        /// How many of the largest are wanted.
        top_k: usize,
        /// The caller.
        to: Sender<Answer<Row>>,
    },
}

impl Reply {
    /// Nobody waits any more.
    pub(super) fn caller_left(&self) -> bool {
        match self {
            Self::Classes { to, .. } => to.is_closed(),
            Self::Row { to, .. } => to.is_closed(),
        }
    }

    /// Tells why there is no answer. The caller may have left meanwhile; then nobody misses it.
    pub fn fail(self, error: ClassifyError) {
        match self {
            Self::Classes { to, .. } => drop(to.send(Err(error))),
            Self::Row { to, .. } => drop(to.send(Err(error))),
        }
    }

    /// Answers from `row`, which is finite. `times` lack only this stage.
    pub(super) fn answer(self, row: &[f32], answering: Answering<'_>, mut times: StageTimes) {
        let started = Instant::now();
        let Answering { reading: own, labels } = answering;
        match self {
            Self::Classes { top_k, reading, image, to } => {
                let classification = postprocess::classify(row, reading.unwrap_or(own), labels, top_k);
                times.set(Stage::Postprocess, started, started.elapsed());
                let _ = to.send(Ok(Scored { classification, image, times }));
            }
            Self::Row { of, top_k, to } => {
                let (values, ranked) = match of {
                    RowOf::Output => (row.to_vec(), row),
                    RowOf::Probabilities => (postprocess::every_probability(row, own), own.classes(row)),
                };
                let best = postprocess::top_indices(ranked, top_k);
                times.set(Stage::Postprocess, started, started.elapsed());
                let _ = to.send(Ok(Row { values, best, times }));
            }
        }
    }
}
