//! Does a provider give the classes that the CPU provider gives in f32? Asked on photos, before a faster provider is used
//! that nobody named.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use super::decode::{self, DecodeOptions};
use super::infer::{Batch, BatchForm, Infer, InferError, Reading};
use super::postprocess::{self, Labels};
use super::preprocess::{self, Recipe};
use super::types::{Image, Sample};

/// Photos that every binary carries; `models/proof/README.md` tells where they come from.
pub const PHOTOS: [&[u8]; 2] =
    [include_bytes!("../../models/proof/cat.jpg"), include_bytes!("../../models/proof/coffee.jpg")];
/// Pictures of each photo: as it is, mirrored, and both with dark and light exchanged.
const VARIANTS: usize = 4;
/// Two classes that the judge scores this close are a tie, which any rounding may turn.
const TIE: f32 = 0.01;
/// The largest difference of a probability that is still called the same.
const DIFFERENCE_MAX: f32 = 0.05;

/// How the answers of one provider compare with those of the CPU provider in f32.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Agreement {
    /// Pictures compared.
    pub pictures: usize,
    /// Pictures whose best class is the same, ties counted.
    pub same_class: usize,
    /// The largest difference of any class's probability in any picture.
    pub largest_difference: f32,
}

impl Agreement {
    /// The classes are the same, and no probability is far off.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.same_class == self.pictures && self.largest_difference <= DIFFERENCE_MAX
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pictures, same_class, largest_difference } = self;
        write!(
            f,
            "{same_class} of {pictures} pictures get the class that cpu in f32 gives them, the largest difference of a score \
             is {largest_difference:.4}"
        )
    }
}

/// Real pictures, prepared for a model.
///
/// # Errors
/// If the recipe cannot be applied to an ordinary photo; then it could not be applied to any.
pub(super) fn pictures(recipe: &Recipe) -> Result<Vec<Sample>, preprocess::PreprocessError> {
    let mut samples = Vec::with_capacity(PHOTOS.len() * VARIANTS);
    for photo in PHOTOS {
        let image = decode::open(photo, &DecodeOptions::default()).and_then(decode::Pending::decode);
        let image = image.expect("the photos are part of the program and were decoded by its tests");
        for variant in [image.clone(), mirrored(&image), inverted(&image), inverted(&mirrored(&image))] {
            samples.push(preprocess::preprocess(&variant, recipe)?);
        }
    }
    Ok(samples)
}

/// The probabilities of all classes for each picture.
pub(super) fn answers(
    model: &mut dyn Infer,
    form: BatchForm,
    pictures: &[Sample],
    reading: Reading,
    labels: &Labels,
) -> Result<Vec<Vec<f32>>, InferError> {
    let mut batch = Batch::new(form);
    let mut answers = Vec::with_capacity(pictures.len());
    for pictures in pictures.chunks(form.rows.max()) {
        batch.clear();
        pictures.iter().for_each(|picture| batch.push(picture));
        let scores = model.infer(&batch)?;
        for index in 0..pictures.len() {
            let best = postprocess::classify(scores.row(index)?, reading, labels, labels.len()).predictions;
            let mut answer = vec![0.0; labels.len()];
            best.into_iter().for_each(|prediction| answer[prediction.index] = prediction.score);
            answers.push(answer);
        }
    }
    Ok(answers)
}

/// Compares two providers' answers to the same pictures; `judge` is the one that is right.
pub(super) fn compare(judge: &[Vec<f32>], other: &[Vec<f32>]) -> Agreement {
    let mut agreement = Agreement { pictures: judge.len(), same_class: 0, largest_difference: 0.0 };
    for (judge, other) in judge.iter().zip(other) {
        let (ours, theirs) = (best(judge), best(other));
        agreement.same_class += usize::from(ours == theirs || judge[ours] - judge[theirs] <= TIE);
        let off = judge.iter().zip(other).fold(0.0, |max: f32, (a, b)| max.max((a - b).abs()));
        agreement.largest_difference = agreement.largest_difference.max(off);
    }
    agreement
}

fn best(scores: &[f32]) -> usize {
    let better = |best: usize, index: usize| if scores[index] > scores[best] { index } else { best };
    (0..scores.len()).fold(0, better)
}

fn mirrored(image: &Image) -> Image {
    let row = image.width() as usize * 3;
    let rgb = image.rgb().chunks_exact(row).flat_map(|row| row.rchunks_exact(3).flatten().copied()).collect();
    Image::new(image.info(), rgb)
}

fn inverted(image: &Image) -> Image {
    Image::new(image.info(), image.rgb().iter().map(|value| 255 - value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tie_may_turn_and_a_class_may_not() {
        let judge = vec![vec![0.5, 0.495, 0.005], vec![0.9, 0.05, 0.05]];
        let turned = vec![vec![0.494, 0.5, 0.006], vec![0.88, 0.06, 0.06]];
        let agreement = compare(&judge, &turned);
        assert_eq!((agreement.pictures, agreement.same_class), (2, 2));
        assert!((agreement.largest_difference - 0.02).abs() < 1e-6);
        assert!(agreement.holds());
        let wrong = vec![vec![0.5, 0.495, 0.005], vec![0.4, 0.55, 0.05]];
        let agreement = compare(&judge, &wrong);
        assert_eq!((agreement.same_class, agreement.holds()), (1, false));
        let far = vec![vec![0.5, 0.495, 0.005], vec![0.8, 0.15, 0.05]];
        assert!(!compare(&judge, &far).holds(), "the same class, and another picture of how sure it is");
    }

    #[test]
    fn the_pictures_differ() {
        let recipe = Recipe::new(preprocess::RecipeSteps {
            resize: preprocess::Resize::Exact { width: 8, height: 8 },
            filter: preprocess::Filter::Bilinear,
            crop: None,
            rescale: 1.0 / 255.0,
            mean: [0.5; 3],
            std: [0.5; 3],
            channel_order: preprocess::ChannelOrder::Rgb,
        })
        .unwrap();
        let pictures = pictures(&recipe).unwrap();
        assert_eq!(pictures.len(), PHOTOS.len() * VARIANTS);
        for (index, picture) in pictures.iter().enumerate() {
            assert!(pictures[..index].iter().all(|other| other != picture), "picture {index}");
        }
    }
}
