//! Trial runs: what a session answers to noise, and what the answers show. What follows from that is decided in `load`.

use super::signature::{BatchForm, Element};
use super::{Batch, Infer as _, InferError, Session};
use crate::pipeline::types::{Sample, SampleShape};

/// What scores look like whose meaning nobody tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looks {
    /// One probability, shared by the classes.
    Distribution,
    /// Each is a share of 1, and all of them are not.
    Shares,
    /// Any numbers.
    Numbers,
}

/// Runs two samples and looks at the scores. A network that ends in softmax taken apart would get it twice, which
/// leaves the classes right and every score wrong.
pub(super) fn looks(session: &mut Session, form: BatchForm) -> Result<Looks, InferError> {
    let mut batch = Batch::new(form);
    let mut looks = Looks::Distribution;
    for sample in &samples(form, 1.0) {
        match finite(alone(session, &mut batch, sample))? {
            Some(row) if is_probabilities(&row) => {}
            Some(row) if row.iter().all(|score| (0.0..=1.0).contains(score)) => looks = Looks::Shares,
            Some(_) | None => return Ok(Looks::Numbers),
        }
    }
    Ok(looks)
}

/// The scores of one sample that is alone in its batch.
pub(super) fn alone(session: &mut Session, batch: &mut Batch, sample: &Sample) -> Result<Vec<f32>, InferError> {
    batch.clear();
    batch.push(sample);
    Ok(session.infer(batch)?.row(0)?.to_vec())
}

/// The scores, or none where they are not finite: noise is no picture, and what a network makes of it says nothing about
/// what it makes of pictures.
pub(super) fn finite(scores: Result<Vec<f32>, InferError>) -> Result<Option<Vec<f32>>, InferError> {
    match scores {
        Err(InferError::NotFinite { .. }) => Ok(None),
        other => other.map(Some),
    }
}

/// Runs a batch of `len` images, both samples in turns: each gets what it gets `alone`, or this says how far it is off.
/// A row that is empty is not compared.
pub(super) fn together(
    session: &mut Session,
    batch: &mut Batch,
    samples: &[Sample; 2],
    len: usize,
    alone: &[Vec<f32>; 2],
    rounding: f32,
) -> Result<(), String> {
    let text = |error: InferError| error.to_string();
    batch.clear();
    (0..len).for_each(|index| batch.push(&samples[index % 2]));
    let scores = session.infer(batch).map_err(text)?;
    for (index, alone) in (0..len).map(|index| (index, &alone[index % 2])).filter(|(_, alone)| !alone.is_empty()) {
        let off = distance(scores.row(index).map_err(text)?, alone);
        if off > rounding {
            return Err(format!(
                "in a batch of {len}, scores of image {index} are {off} off those it gets alone, where at most {rounding} \
                 is rounding"
            ));
        }
    }
    Ok(())
}

/// Two samples of noise, each with another bright channel so that averages differ as well. A `contrast` of 1 spans what
/// normalised pictures do. The second is fainter: a graph that quantises by the range of its batch gives it fewer steps
/// beside the first than alone.
pub(super) fn samples(form: BatchForm, contrast: f32) -> [Sample; 2] {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    // Uniform in -0.5..0.5.
    let mut noise = move || {
        // xorshift64: Marsaglia, "Xorshift RNGs", 2003. Nothing depends on its quality.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let plane = form.sample.len() / SampleShape::CHANNELS;
    [(0, contrast), (1, contrast / 4.0)].map(|(bright, contrast)| {
        let values = (0..form.sample.len()).map(|at| {
            let level = if at / plane == bright { 1.0 } else { -1.0 };
            match form.element {
                Element::U8 => (128.0 + contrast * (60.0 * level + 120.0 * noise())).round(),
                Element::F16 | Element::Bf16 | Element::F32 | Element::F64 => contrast * (level + 2.0 * noise()),
            }
        });
        Sample::new(form.sample, values.collect())
    })
}

/// The largest difference between two rows.
pub(super) fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).fold(0.0, |max, (a, b)| max.max((a - b).abs()))
}

/// The size of a row's largest score.
pub(super) fn largest(row: &[f32]) -> f32 {
    row.iter().fold(0.0, |max, score| max.max(score.abs()))
}

/// Logits that look like this by chance do not exist: of n free numbers, none negative and their sum 1 within rounding.
fn is_probabilities(row: &[f32]) -> bool {
    row.len() > 1 && row.iter().all(|&score| score >= 0.0) && (row.iter().sum::<f32>() - 1.0).abs() < 1e-3
}
