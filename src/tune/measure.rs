//! Callers in a closed loop on a real engine: uploads go through decoding, the queue, the batches and back.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::try_join_all;

use super::point::{Completion, Point};
use crate::pipeline::{Ask, ClassifyError, Engine};

/// A lone caller's images, at least, and three rounds of more callers, however slow the model.
const IMAGES_MIN: usize = 6;
const ROUNDS_MIN: usize = 3;
/// Nothing that somebody waits for takes longer: only a hang does.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// Lets `callers` classify `uploads` in turn for `time`, each the next when it has the answer to the last. Takes longer
/// where so few images were answered that they would say nothing.
///
/// # Errors
/// The first image that got no classes.
pub async fn measure(
    engine: &Engine,
    uploads: &[Bytes],
    callers: usize,
    time: Duration,
) -> Result<Point, ClassifyError> {
    let images_min = IMAGES_MIN.max(ROUNDS_MIN * callers);
    let (completions, stopped) = (RefCell::new(Vec::<Completion>::new()), Cell::new(false));
    let started = Instant::now();
    let caller = async |index: usize| -> Result<(), ClassifyError> {
        // Each begins elsewhere, so that they do not all decode the largest photo at the same time.
        for upload in uploads.iter().cycle().skip(index % uploads.len().max(1)) {
            let began = Instant::now();
            let place = engine.reserve(1)?.pop().expect("one place was reserved");
            let ask = Ask::new(1, began + ANSWER_TIME_MAX);
            engine.classify(place, upload.clone(), ask).await?;
            // From here on others are leaving, and those that are left have it too easy.
            if stopped.get() {
                break;
            }
            let (at, mut completions) = (started.elapsed(), completions.borrow_mut());
            completions.push(Completion { at, latency: began.elapsed() });
            if at >= time && completions.len() >= images_min {
                stopped.set(true);
                break;
            }
        }
        Ok(())
    };
    try_join_all((0..callers).map(caller)).await?;
    Ok(Point::new(callers, &completions.into_inner()))
}
