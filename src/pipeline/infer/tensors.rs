//! The two tensors of a run: the batch that goes in and the raw scores that come out.

use half::slice::HalfFloatSliceExt as _;
use half::{bf16, f16};

use super::InferError;
use super::signature::{BatchForm, Element, Rows, TensorLayout};
use crate::pipeline::types::{Sample, SampleShape};

/// Samples side by side, in the layout and type that the graph takes. One buffer, allocated for the largest batch and
/// reused.
#[derive(Debug)]
pub struct Batch {
    form: BatchForm,
    len: usize,
    values: Buffer,
}

/// The buffer of a batch, in the graph's type.
#[derive(Debug)]
enum Buffer {
    U8(Vec<u8>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// The values of a batch, row-major.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Values<'a> {
    /// Bytes.
    U8(&'a [u8]),
    /// Half precision.
    F16(&'a [f16]),
    /// Upper halves of f32.
    Bf16(&'a [bf16]),
    /// Single precision.
    F32(&'a [f32]),
    /// Double precision.
    F64(&'a [f64]),
}

impl Batch {
    /// An empty batch with room for as many samples as `form` allows.
    #[must_use]
    pub fn new(form: BatchForm) -> Self {
        let len = form.sample.len() * form.rows.max();
        let values = match form.element {
            Element::U8 => Buffer::U8(vec![0; len]),
            Element::F16 => Buffer::F16(vec![f16::ZERO; len]),
            Element::Bf16 => Buffer::Bf16(vec![bf16::ZERO; len]),
            Element::F32 => Buffer::F32(vec![0.0; len]),
            Element::F64 => Buffer::F64(vec![0.0; len]),
        };
        Self { form, len: 0, values }
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        if let Rows::Exactly(_) | Rows::Buckets(_) = self.form.rows {
            // Nobody reads the rows behind the last sample, but zeros cost the model no denormals and tell nobody
            // anything.
            let used = self.len * self.form.sample.len();
            match &mut self.values {
                Buffer::U8(values) => values[..used].fill(0),
                Buffer::F16(values) => values[..used].fill(f16::ZERO),
                Buffer::Bf16(values) => values[..used].fill(bf16::ZERO),
                Buffer::F32(values) => values[..used].fill(0.0),
                Buffer::F64(values) => values[..used].fill(0.0),
            }
        }
        self.len = 0;
    }

    /// Appends one sample.
    ///
    /// # Panics
    /// If the sample has another shape or the batch is full: the engine prepares every sample for this model, and the
    /// queue hands out at most the limit.
    pub fn push(&mut self, sample: &Sample) {
        assert_eq!(sample.shape(), self.form.sample, "samples are prepared for the model they are sent to");
        assert!(self.len < self.form.rows.max(), "the queue never hands out more than a full batch");
        let (row, layout, len) = (self.len, self.form.layout, self.form.sample.len());
        let at = row * len..(row + 1) * len;
        let source = sample.values();
        match (&mut self.values, layout) {
            // The recipe of a graph that takes bytes yields whole numbers in 0..=255; `as` saturates.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
            (Buffer::U8(values), _) => write(source, &mut values[at], layout, |value| value as u8),
            // By whole slices: the processor converts eight at a time.
            (Buffer::F16(values), TensorLayout::Nchw) => values[at].convert_from_f32_slice(source),
            (Buffer::Bf16(values), TensorLayout::Nchw) => values[at].convert_from_f32_slice(source),
            (Buffer::F32(values), TensorLayout::Nchw) => values[at].copy_from_slice(source),
            (Buffer::F16(values), TensorLayout::Nhwc) => write(source, &mut values[at], layout, f16::from_f32),
            (Buffer::Bf16(values), TensorLayout::Nhwc) => write(source, &mut values[at], layout, bf16::from_f32),
            (Buffer::F32(values), TensorLayout::Nhwc) => write(source, &mut values[at], layout, |value| value),
            (Buffer::F64(values), _) => write(source, &mut values[at], layout, f64::from),
        }
        self.len += 1;
    }

    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// No sample yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Images of the run: the samples, and what fills up the batch behind them.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.form.rows.of(self.len)
    }

    /// `[N,3,H,W]` or `[N,H,W,3]`, N being [`Batch::rows`].
    #[must_use]
    pub fn dimensions(&self) -> [usize; 4] {
        self.form.dimensions(self.rows())
    }

    /// The values of all rows.
    #[must_use]
    pub fn values(&self) -> Values<'_> {
        let len = self.rows() * self.form.sample.len();
        match &self.values {
            Buffer::U8(values) => Values::U8(&values[..len]),
            Buffer::F16(values) => Values::F16(&values[..len]),
            Buffer::Bf16(values) => Values::Bf16(&values[..len]),
            Buffer::F32(values) => Values::F32(&values[..len]),
            Buffer::F64(values) => Values::F64(&values[..len]),
        }
    }
}

/// source: [3,H,W] f32 -> target: [3,H,W] or [H,W,3]
fn write<T>(source: &[f32], target: &mut [T], layout: TensorLayout, convert: impl Fn(f32) -> T) {
    match layout {
        TensorLayout::Nchw => {
            for (target, &value) in target.iter_mut().zip(source) {
                *target = convert(value);
            }
        }
        TensorLayout::Nhwc => {
            let plane = source.len() / SampleShape::CHANNELS;
            let (red, rest) = source.split_at(plane);
            let (green, blue) = rest.split_at(plane);
            let pixels = target.as_chunks_mut::<{ SampleShape::CHANNELS }>().0;
            for (pixel, ((&red, &green), &blue)) in pixels.iter_mut().zip(red.iter().zip(green).zip(blue)) {
                *pixel = [convert(red), convert(green), convert(blue)];
            }
        }
    }
}

impl Element {
    /// Bytes of one value.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// Appends `values` in this type, little-endian.
    pub fn write(self, values: &[f32], target: &mut Vec<u8>) {
        target.reserve(values.len() * self.bytes());
        let values = values.iter().copied();
        match self {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
            Self::U8 => target.extend(values.map(|value| value as u8)),
            Self::F16 => target.extend(values.flat_map(|value| f16::from_f32(value).to_le_bytes())),
            Self::Bf16 => target.extend(values.flat_map(|value| bf16::from_f32(value).to_le_bytes())),
            Self::F32 => target.extend(values.flat_map(f32::to_le_bytes)),
            Self::F64 => target.extend(values.flat_map(|value| f64::from(value).to_le_bytes())),
        }
    }
}

/// Reads one image of a tensor that a client sent in the graph's own layout and type.
/// raw: `[3,H,W]` or `[H,W,3]`, little-endian -> target: `[3,H,W]` f32
///
/// # Errors
/// [`TensorError`]; then `target` holds nothing of use.
pub(in crate::pipeline) fn read_sample(
    raw: &[u8],
    element: Element,
    layout: TensorLayout,
    target: &mut [f32],
) -> Result<(), TensorError> {
    let expected = target.len() * element.bytes();
    if raw.len() != expected {
        return Err(TensorError::Bytes { found: raw.len(), expected });
    }
    #[expect(clippy::cast_possible_truncation, reason = "samples are f32; what is beyond them becomes infinite")]
    match element {
        Element::U8 => read(raw.as_chunks().0, layout, target, |[byte]: [u8; 1]| f32::from(byte)),
        Element::F16 => read(raw.as_chunks().0, layout, target, |bytes| f16::from_le_bytes(bytes).to_f32()),
        Element::Bf16 => read(raw.as_chunks().0, layout, target, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        Element::F32 => read(raw.as_chunks().0, layout, target, f32::from_le_bytes),
        Element::F64 => read(raw.as_chunks().0, layout, target, |bytes| f64::from_le_bytes(bytes) as f32),
    }
    // Without a way out half way, so that eight values are looked at together.
    if target.iter().fold(true, |all, value| all & value.is_finite()) {
        return Ok(());
    }
    let index = target.iter().position(|value| !value.is_finite()).unwrap_or_default();
    Err(TensorError::NotFinite { value: target[index].to_string() })
}

fn read<const BYTES: usize>(
    raw: &[[u8; BYTES]],
    layout: TensorLayout,
    target: &mut [f32],
    convert: impl Fn([u8; BYTES]) -> f32,
) {
    match layout {
        TensorLayout::Nchw => {
            for (target, &value) in target.iter_mut().zip(raw) {
                *target = convert(value);
            }
        }
        TensorLayout::Nhwc => {
            let (red, rest) = target.split_at_mut(raw.len() / SampleShape::CHANNELS);
            let (green, blue) = rest.split_at_mut(red.len());
            let pixels = raw.as_chunks::<{ SampleShape::CHANNELS }>().0;
            for (pixel, ((red, green), blue)) in pixels.iter().zip(red.iter_mut().zip(green).zip(blue)) {
                [*red, *green, *blue] = pixel.map(&convert);
            }
        }
    }
}

/// Why the bytes of a tensor are no sample.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// Too few or too many.
    #[error("one image has {found} bytes, expected {expected}")]
    Bytes {
        /// Bytes that are there.
        found: usize,
        /// Bytes of one image.
        expected: usize,
    },
    /// NaN or infinite, which would make every score so.
    #[error("a value is {value}; every value must be finite (in 32-bit floats)")]
    NotFinite {
        /// `NaN`, `inf` or `-inf`.
        value: String,
    },
}

/// What a run returned: one row of values an image, `[rows, width]` f32. What they mean is the signature's to say.
#[derive(Debug, Clone, PartialEq)]
pub struct RawScores {
    width: usize,
    values: Vec<f32>,
}

impl RawScores {
    /// Takes what a run returned, if it is one row of `width` values for each of `rows` images: `[rows, width]`, also
    /// with further dimensions of size 1, or without the batch dimension where the batch is one.
    ///
    /// # Errors
    /// [`InferError::Shape`] otherwise.
    pub fn new(shape: &[i64], values: Vec<f32>, rows: usize, width: usize) -> Result<Self, InferError> {
        let is = |dimension: i64, size: usize| usize::try_from(dimension) == Ok(size);
        let is_row = |dimensions: &[i64]| {
            let mut long = dimensions.iter().filter(|&&dimension| dimension != 1);
            match (long.next(), long.next()) {
                (Some(&only), None) => is(only, width),
                (None, _) => width == 1,
                (Some(_), Some(_)) => false,
            }
        };
        let fits = match shape {
            [only] => rows == 1 && is(*only, width),
            [first, rest @ ..] => is(*first, rows) && is_row(rest),
            [] => false,
        };
        if !fits || Some(values.len()) != rows.checked_mul(width) {
            return Err(InferError::Shape { found: shape.to_vec(), rows, width });
        }
        Ok(Self { width, values })
    }

    /// The values of image `index`.
    ///
    /// # Errors
    /// [`InferError::NotFinite`] if one is NaN or infinite. Only this image fails; its neighbours in the batch do not.
    pub fn row(&self, index: usize) -> Result<&[f32], InferError> {
        let row = &self.values[index * self.width..][..self.width];
        match row.iter().position(|score| !score.is_finite()) {
            None => Ok(row),
            Some(class) => Err(InferError::NotFinite { class, value: row[class].to_string() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(layout: TensorLayout, element: Element, rows: Rows) -> BatchForm {
        BatchForm { sample: SampleShape { height: 1, width: 2 }, layout, element, rows }
    }

    /// `[3,1,2]`: red 1 2, green 3 4, blue 5 6.
    fn sample() -> Sample {
        Sample::new(SampleShape { height: 1, width: 2 }, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    }

    #[test]
    fn scores_of_another_shape_are_refused() {
        for shape in [&[2, 9][..], &[1, 10], &[10, 2], &[20], &[2, 2, 5], &[2, 10, 2, 1], &[]] {
            assert!(matches!(RawScores::new(shape, vec![0.0; 20], 2, 10), Err(InferError::Shape { .. })), "{shape:?}");
        }
        for shape in [&[2, 10][..], &[2, 10, 1, 1], &[2, 1, 1, 10]] {
            assert!(RawScores::new(shape, vec![0.0; 20], 2, 10).is_ok(), "{shape:?}");
        }
        assert!(RawScores::new(&[10], vec![0.0; 10], 1, 10).is_ok());
        assert!(RawScores::new(&[2, 1], vec![0.0; 2], 2, 1).is_ok());
        assert!(RawScores::new(&[2, 10], vec![0.0; 19], 2, 10).is_err());
    }

    #[test]
    fn a_nan_fails_its_own_image_only() {
        let scores = RawScores::new(&[2, 2], vec![1.0, f32::NAN, 0.5, 0.25], 2, 2).unwrap();
        assert_eq!(
            scores.row(0).unwrap_err().to_string(),
            "the model returned NaN for class 1; every score must be finite"
        );
        assert_eq!(scores.row(1), Ok(&[0.5, 0.25][..]));
    }

    #[test]
    fn a_batch_is_its_samples_in_order_and_keeps_its_memory() {
        let mut batch = Batch::new(form(TensorLayout::Nchw, Element::F32, Rows::UpTo(2)));
        let values = |batch: &Batch| match batch.values() {
            Values::F32(values) => (values.as_ptr(), values.to_vec()),
            other => panic!("{other:?}"),
        };
        let memory = values(&batch).0;
        for round in 0..3u8 {
            batch.clear();
            assert_eq!((batch.is_empty(), batch.dimensions()), (true, [0, 3, 1, 2]));
            batch.push(&Sample::new(SampleShape { height: 1, width: 2 }, vec![f32::from(round); 6]));
            batch.push(&sample());
            assert_eq!((batch.len(), batch.dimensions()), (2, [2, 3, 1, 2]));
            let (place, values) = values(&batch);
            assert_eq!((place, &values[..6], &values[6..]), (memory, &[f32::from(round); 6][..], sample().values()));
        }
    }

    #[test]
    fn channels_go_last_where_the_graph_wants_them_so() {
        let mut batch = Batch::new(form(TensorLayout::Nhwc, Element::F32, Rows::UpTo(1)));
        batch.push(&sample());
        assert_eq!(batch.dimensions(), [1, 1, 2, 3]);
        assert_eq!(batch.values(), Values::F32(&[1.0, 3.0, 5.0, 2.0, 4.0, 6.0]));
    }

    #[test]
    fn every_type_gets_the_same_numbers() {
        let numbers = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
        for layout in [TensorLayout::Nchw, TensorLayout::Nhwc] {
            let of = |element| {
                let mut batch = Batch::new(form(layout, element, Rows::UpTo(1)));
                batch.push(&sample());
                match batch.values() {
                    Values::U8(values) => values.iter().map(|&value| f32::from(value)).collect(),
                    Values::F16(values) => values.iter().map(|value| value.to_f32()).collect(),
                    Values::Bf16(values) => values.iter().map(|value| value.to_f32()).collect(),
                    Values::F32(values) => values.to_vec(),
                    Values::F64(values) => values.iter().map(|&value| value as f32).collect::<Vec<_>>(),
                }
            };
            let expected = of(Element::F32);
            assert_eq!(layout == TensorLayout::Nchw, expected == numbers);
            for element in [Element::U8, Element::F16, Element::Bf16, Element::F64] {
                assert_eq!(of(element), expected, "{element:?}");
            }
        }
    }

    #[test]
    fn a_tensor_in_the_graphs_own_form_is_read_as_it_was_written() {
        let sample = Sample::new(SampleShape { height: 2, width: 2 }, (0..12u8).map(f32::from).collect());
        for layout in [TensorLayout::Nchw, TensorLayout::Nhwc] {
            for element in [Element::U8, Element::F16, Element::Bf16, Element::F32, Element::F64] {
                let mut batch = Batch::new(BatchForm { sample: sample.shape(), layout, element, rows: Rows::UpTo(1) });
                batch.push(&sample);
                let raw: Vec<u8> = match batch.values() {
                    Values::U8(values) => values.to_vec(),
                    Values::F16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
                    Values::Bf16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
                    Values::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
                    Values::F64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
                };
                let mut found = vec![f32::NAN; 12];
                read_sample(&raw, element, layout, &mut found).unwrap();
                assert_eq!(found, sample.values(), "{layout:?} {element:?}");
                if layout == TensorLayout::Nchw {
                    let mut written = Vec::new();
                    element.write(sample.values(), &mut written);
                    assert_eq!(written, raw, "{element:?}");
                }
            }
        }
    }

    #[test]
    fn a_tensor_that_lies_about_its_size_or_is_not_finite_is_refused() {
        let mut target = [0.0; 3];
        let mut read = |raw: &[u8], element| read_sample(raw, element, TensorLayout::Nchw, &mut target);
        assert_eq!(read(&[0; 11], Element::F32), Err(TensorError::Bytes { found: 11, expected: 12 }));
        assert_eq!(read(&[0; 13], Element::F32), Err(TensorError::Bytes { found: 13, expected: 12 }));
        assert_eq!(read(&[], Element::U8), Err(TensorError::Bytes { found: 0, expected: 3 }));
        let mut raw = Vec::new();
        Element::F32.write(&[0.0, f32::NAN, 1.0], &mut raw);
        assert_eq!(read(&raw, Element::F32), Err(TensorError::NotFinite { value: "NaN".to_owned() }));
        let huge: Vec<u8> = [0.0, 1e300, 0.0].into_iter().flat_map(f64::to_le_bytes).collect();
        assert_eq!(read(&huge, Element::F64), Err(TensorError::NotFinite { value: "inf".to_owned() }));
    }

    #[test]
    fn a_fixed_batch_is_filled_up_with_zeros_whatever_was_there() {
        let mut batch = Batch::new(form(TensorLayout::Nchw, Element::U8, Rows::Exactly(3)));
        for samples in [3, 1] {
            batch.clear();
            (0..samples).for_each(|_| batch.push(&sample()));
            assert_eq!((batch.len(), batch.rows(), batch.dimensions()), (samples, 3, [3, 3, 1, 2]));
        }
        let mut expected = vec![1, 2, 3, 4, 5, 6];
        expected.resize(18, 0);
        assert_eq!(batch.values(), Values::U8(&expected));
    }

    #[test]
    fn a_batch_in_buckets_is_filled_up_with_zeros_to_the_next_power_of_two() {
        let mut batch = Batch::new(form(TensorLayout::Nchw, Element::U8, Rows::Buckets(6)));
        for (samples, rows) in [(6, 6), (3, 4), (1, 1), (5, 6), (2, 2), (3, 4)] {
            batch.clear();
            (0..samples).for_each(|_| batch.push(&sample()));
            assert_eq!((batch.len(), batch.rows(), batch.dimensions()), (samples, rows, [rows, 3, 1, 2]));
        }
        let mut expected = [1, 2, 3, 4, 5, 6].repeat(3);
        expected.resize(24, 0);
        assert_eq!(batch.values(), Values::U8(&expected));
    }

    #[test]
    #[should_panic(expected = "prepared for the model")]
    fn a_sample_of_another_shape_is_a_broken_invariant() {
        let mut batch = Batch::new(form(TensorLayout::Nchw, Element::F32, Rows::UpTo(2)));
        batch.push(&Sample::new(SampleShape { height: 2, width: 1 }, vec![0.0; 6]));
    }

    #[test]
    #[should_panic(expected = "a full batch")]
    fn one_sample_too_many_is_a_broken_invariant() {
        let mut batch = Batch::new(form(TensorLayout::Nchw, Element::F32, Rows::UpTo(1)));
        (0..2).for_each(|_| batch.push(&sample()));
    }
}
