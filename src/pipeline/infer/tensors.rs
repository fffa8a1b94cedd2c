//! The two tensors of a run: the batch that goes in and the logits that come out.

use super::InferError;
use crate::pipeline::types::{Sample, SampleShape};

/// Samples side by side: `[N,3,H,W]` f32. One buffer, allocated for the largest batch and reused.
#[derive(Debug)]
pub struct Batch {
    shape: SampleShape,
    images_max: usize,
    values: Vec<f32>,
}

impl Batch {
    /// An empty batch with room for `images_max` samples of `shape`.
    #[must_use]
    pub fn new(shape: SampleShape, images_max: usize) -> Self {
        Self { shape, images_max, values: Vec::with_capacity(shape.len() * images_max) }
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.values.clear();
    }

    /// Appends one sample.
    ///
    /// # Panics
    /// If the sample has another shape or the batch is full: the engine prepares every sample for this model, and the
    /// queue hands out at most the limit.
    pub fn push(&mut self, sample: &Sample) {
        assert_eq!(sample.shape(), self.shape, "samples are prepared for the model they are sent to");
        assert!(self.len() < self.images_max, "the queue never hands out more than a full batch");
        self.values.extend_from_slice(sample.values());
    }

    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len() / self.shape.len()
    }

    /// No sample yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// `[N, 3, H, W]`.
    #[must_use]
    pub fn dimensions(&self) -> [usize; 4] {
        [self.len(), SampleShape::CHANNELS, self.shape.height as usize, self.shape.width as usize]
    }

    /// The values, row-major.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

/// Raw scores of a batch: `[N, classes]` f32. Not probabilities.
#[derive(Debug, Clone, PartialEq)]
pub struct Logits {
    classes: usize,
    values: Vec<f32>,
}

impl Logits {
    /// Takes what a run returned, if it has the shape `[batch_len, classes]`.
    ///
    /// # Errors
    /// [`InferError::Shape`] otherwise.
    pub fn new(shape: &[i64], values: Vec<f32>, batch_len: usize, classes: usize) -> Result<Self, InferError> {
        let expected = [i64::try_from(batch_len).ok(), i64::try_from(classes).ok()];
        if !shape.iter().map(|&dimension| Some(dimension)).eq(expected) || values.len() != batch_len * classes {
            return Err(InferError::Shape { found: shape.to_vec(), batch_len, classes });
        }
        Ok(Self { classes, values })
    }

    /// The logits of image `index`, one a class.
    ///
    /// # Errors
    /// [`InferError::NotFinite`] if one is NaN or infinite. Only this image fails; its neighbours in the batch do not.
    pub fn row(&self, index: usize) -> Result<&[f32], InferError> {
        let row = &self.values[index * self.classes..][..self.classes];
        match row.iter().position(|logit| !logit.is_finite()) {
            None => Ok(row),
            Some(class) => Err(InferError::NotFinite { class, value: row[class].to_string() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_of_another_shape_are_refused() {
        for shape in [&[2, 9][..], &[1, 10], &[10, 2], &[20], &[2, 10, 1], &[]] {
            assert!(matches!(Logits::new(shape, vec![0.0; 20], 2, 10), Err(InferError::Shape { .. })), "{shape:?}");
        }
        assert!(Logits::new(&[2, 10], vec![0.0; 20], 2, 10).is_ok());
    }

    #[test]
    fn a_nan_fails_its_own_image_only() {
        let logits = Logits::new(&[2, 2], vec![1.0, f32::NAN, 0.5, 0.25], 2, 2).unwrap();
        assert_eq!(
            logits.row(0).unwrap_err().to_string(),
            "the model returned NaN for class 1; every logit must be finite"
        );
        assert_eq!(logits.row(1), Ok(&[0.5, 0.25][..]));
    }

    #[test]
    fn a_batch_is_its_samples_in_order_and_keeps_its_memory() {
        let shape = SampleShape { height: 1, width: 2 };
        let mut batch = Batch::new(shape, 2);
        let memory = batch.values().as_ptr();
        for round in 0..3u8 {
            batch.clear();
            batch.push(&Sample::new(shape, vec![f32::from(round); 6]));
            batch.push(&Sample::new(shape, vec![0.5; 6]));
            assert_eq!(batch.dimensions(), [2, 3, 1, 2]);
            assert_eq!((batch.values()[0], batch.values()[6]), (f32::from(round), 0.5));
        }
        assert_eq!(batch.values().as_ptr(), memory);
    }

    #[test]
    #[should_panic(expected = "prepared for the model")]
    fn a_sample_of_another_shape_is_a_broken_invariant() {
        let shape = SampleShape { height: 1, width: 2 };
        Batch::new(shape, 2).push(&Sample::new(SampleShape { height: 2, width: 1 }, vec![0.0; 6]));
    }
}
