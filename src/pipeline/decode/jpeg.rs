//! JPEG, decoded by `libjpeg-turbo-rs`: equal to libjpeg-turbo, and with that to Pillow, in every bit.
//!
//! The header is read here, not by the decoder, so that sizes are checked before the decoder sees the bytes.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use libjpeg_turbo_rs::{DecodeLimits as JpegLimits, Decoder, JpegError, PixelFormat, ScalingFactor};

use super::canvas::Canvas;
use super::convert::{Layout, to_rgb};
use super::orientation::Orientation;
use super::scale::Scale;
use super::{DecodeError, Found};
use crate::pipeline::types::ImageFormat;

const FORMAT: ImageFormat = ImageFormat::Jpeg;

/// Scans that a progressive JPEG may have. Encoders write about 10; each scan costs a pass over all coefficients, so
/// a small file with thousands of them would keep a thread busy for minutes.
const SCANS_MAX: usize = 100;

/// Scans times pixels of a progressive JPEG. A large photo may have as many scans as encoders write, and not 100, each of
/// which costs a pass over all its coefficients.
const SCAN_PIXELS_MAX: u64 = 1_000_000_000;

/// Scans that a JPEG of any size may have.
const SCANS_ALWAYS: usize = 16;

/// What the segments before the first scan tell.
#[derive(Debug)]
pub(super) struct JpegHeader {
    width: u32,
    height: u32,
    progressive: bool,
    /// Horizontal and vertical sampling factor of each component.
    sampling: Vec<(u8, u8)>,
    orientation: Orientation,
    /// Where the entropy-coded data begins.
    scan_at: usize,
}

/// Reads the segments up to the first scan.
pub(super) fn header(bytes: &[u8]) -> Result<JpegHeader, DecodeError> {
    let mut frame = None;
    let mut exif: Option<Cow<'_, [u8]>> = None;
    let mut xmp = None;
    let mut at = 2;
    let scan_at = loop {
        let Segment { marker, payload, next } = segment(bytes, at)?;
        at = next;
        match marker {
            // Baseline, extended and progressive, with Huffman or arithmetic coding.
            0xC0..=0xC2 | 0xC9 | 0xCA => frame = Some((marker, payload)),
            0xC3 | 0xC5..=0xC7 | 0xCB | 0xCD..=0xCF => {
                return Err(DecodeError::unsupported(FORMAT, format_args!("coding process SOF{}", marker - 0xC0)));
            }
            0xE1 => {
                if let Some(part) = payload.strip_prefix(b"Exif\0\0") {
                    // A block too large for one segment goes on in the next, as Pillow reads it.
                    exif.get_or_insert_default().to_mut().extend_from_slice(part);
                } else if let Some(packet) = payload.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0") {
                    xmp = Some(packet);
                }
            }
            0xDA => break next,
            _ => {}
        }
    };
    let (marker, frame) = frame.ok_or_else(|| DecodeError::broken(FORMAT, "no frame header before the first scan"))?;
    let [precision, h1, h0, w1, w0, count, components @ ..] = frame else {
        return Err(DecodeError::broken(FORMAT, "frame header is cut short"));
    };
    if *precision != 8 {
        return Err(DecodeError::unsupported(FORMAT, format_args!("{precision} bits a sample")));
    }
    let (width, height) = (u16::from_be_bytes([*w1, *w0]), u16::from_be_bytes([*h1, *h0]));
    let components = components.as_chunks::<3>().0;
    if components.len() != usize::from(*count) || !matches!(count, 1 | 3 | 4) {
        return Err(DecodeError::unsupported(FORMAT, format_args!("{count} components")));
    }
    let sampling: Vec<(u8, u8)> = components.iter().map(|[_, factors, _]| (factors >> 4, factors & 15)).collect();
    check_sampling(&sampling)?;
    Ok(JpegHeader {
        width: width.into(),
        height: height.into(),
        progressive: matches!(marker, 0xC2 | 0xCA),
        sampling,
        orientation: Orientation::from_metadata(exif.as_deref(), xmp),
        scan_at,
    })
}

/// Fuzzing found panics in the decoder where the factors of four components do not divide evenly, or one is sampled four
/// times as coarsely as another; no encoder writes such files, so they are refused before the decoder sees them.
fn check_sampling(sampling: &[(u8, u8)]) -> Result<(), DecodeError> {
    let h_max = sampling.iter().map(|&(h, _)| h).max().unwrap_or(0);
    let v_max = sampling.iter().map(|&(_, v)| v).max().unwrap_or(0);
    if sampling.iter().any(|&(h, v)| !(1..=4).contains(&h) || !(1..=4).contains(&v)) {
        return Err(DecodeError::broken(FORMAT, "sampling factor outside 1..=4"));
    }
    let even = sampling.iter().all(|&(h, v)| [h, 2 * h].contains(&h_max) && [v, 2 * v].contains(&v_max));
    if sampling.len() == 4 && !(even && sampling[0] == (h_max, v_max) && sampling[3] == (h_max, v_max)) {
        return Err(DecodeError::unsupported(FORMAT, "uneven sampling of four components"));
    }
    Ok(())
}

/// Scans that a picture of this size may have.
fn scans_max(width: u32, height: u32) -> usize {
    let pixels = (u64::from(width) * u64::from(height)).max(1);
    usize::try_from(SCAN_PIXELS_MAX / pixels).unwrap_or(SCANS_MAX).clamp(SCANS_ALWAYS, SCANS_MAX)
}

struct Segment<'a> {
    marker: u8,
    payload: &'a [u8],
    next: usize,
}

/// The marker segment at `at`, past any fill bytes.
fn segment(bytes: &[u8], at: usize) -> Result<Segment<'_>, DecodeError> {
    let cut = || DecodeError::broken(FORMAT, "the file ends inside its header");
    // libjpeg skips stray bytes before a marker, and so does Pillow.
    let skipped =
        bytes.get(at..).and_then(|rest| rest.windows(2).position(|w| w[0] == 0xFF && !matches!(w[1], 0 | 0xFF)));
    let at = at + skipped.ok_or_else(cut)?;
    let marker = bytes[at + 1];
    if matches!(marker, 0x01 | 0xD0..=0xD8) {
        // Markers without a length.
        return Ok(Segment { marker, payload: &[], next: at + 2 });
    }
    if marker == 0xD9 {
        return Err(DecodeError::broken(FORMAT, "the image ends before its first scan"));
    }
    let length = bytes.get(at + 2..at + 4).ok_or_else(cut)?;
    let next = at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
    let payload = bytes.get(at + 4..next).ok_or_else(cut)?;
    Ok(Segment { marker, payload, next })
}

impl JpegHeader {
    pub(super) fn found(&self) -> Found {
        Found { width: self.width, height: self.height, orientation: self.orientation }
    }

    /// The picture and one plane for each component, padded to whole blocks; progressive files also hold all
    /// coefficients, two bytes a sample, until the last scan, whatever the scale.
    pub(super) fn decode_bytes(&self, scale: Scale) -> u64 {
        let h_max = self.sampling.iter().map(|&(h, _)| u64::from(h)).max().unwrap_or(1);
        let v_max = self.sampling.iter().map(|&(_, v)| u64::from(v)).max().unwrap_or(1);
        let blocks = u64::from(self.width).div_ceil(8 * h_max) * u64::from(self.height).div_ceil(8 * v_max);
        let components = self.sampling.len() as u64;
        let samples_a_block: u64 = self.sampling.iter().map(|&(h, v)| u64::from(h) * u64::from(v)).sum();
        let side = u64::from(scale.eighths());
        let pixels = blocks * h_max * v_max * side * side;
        // Chroma is enlarged row by row where the ratio is 1 or 2, and in whole planes where it is not. At a smaller scale
        // subsampled planes shrink less than the picture, down to its size and no further.
        let by_rows = self.sampling.iter().all(|&(h, v)| {
            let (h, v) = (u64::from(h), u64::from(v));
            [h, 2 * h].contains(&h_max) && [v, 2 * v].contains(&v_max)
        });
        let planes = if scale == Scale::WHOLE { blocks * 64 * samples_a_block } else { pixels * components };
        let enlarged = if by_rows { 0 } else { pixels * components };
        let coefficients = if self.progressive { blocks * 64 * samples_a_block * 2 } else { 0 };
        // One more byte a pixel for what is not counted one by one.
        pixels * (components.max(3) + 1) + planes + enlarged + coefficients + (1 << 16)
    }

    /// `[height,width,3]` u8, both sides scaled.
    pub(super) fn decode(&self, bytes: &[u8], scale: Scale, canvas: &mut Canvas) -> Result<Vec<u8>, DecodeError> {
        // A cut inside the entropy-coded data can look like a picture that ends in gray. Inside that data the end
        // marker cannot occur, so its absence tells. Pillow refuses such files too. Searched from the back: it is
        // the last thing in nearly every file.
        if !bytes[self.scan_at.min(bytes.len())..].windows(2).rev().any(|pair| pair == [0xFF, 0xD9]) {
            return Err(DecodeError::broken(FORMAT, "the file is truncated: no end-of-image marker"));
        }
        let limits = JpegLimits { max_scans: scans_max(self.width, self.height), ..JpegLimits::default() };
        let (format, layout) = match self.sampling.len() {
            4 => (PixelFormat::Cmyk, Layout::InvertedCmyk8),
            _ => (PixelFormat::Rgb, Layout::Rgb8),
        };
        let (width, height) = (scale.pixels(self.width) as usize, scale.pixels(self.height) as usize);
        let len = width * height * format.bytes_per_pixel();
        let mut samples = canvas.take(len);
        let decode = || {
            let mut decoder = Decoder::new_with_limits(bytes, limits)?;
            decoder.set_output_format(format);
            decoder.set_stop_on_warning(true);
            decoder.set_scale(factor(scale)?);
            // A second frame header may say otherwise than the first, which is the one that was checked.
            if (decoder.output_width(), decoder.output_height()) != (width, height) {
                return Ok(false);
            }
            decoder.decode_image_into(&mut samples).map(|image| (image.width, image.height) == (width, height))
        };
        // The decoder is young and fuzzing made it panic (bounds checks in its four-component path). The known causes
        // are refused above; should there be another, this upload fails and not the worker.
        let same_size = catch_unwind(AssertUnwindSafe(decode))
            .map_err(|_panic| DecodeError::broken(FORMAT, "the decoder gave up"))?
            .map_err(|error| match error {
                JpegError::Unsupported(feature) => DecodeError::unsupported(FORMAT, feature),
                error => DecodeError::broken(FORMAT, error),
            })?;
        if !same_size {
            return Err(DecodeError::broken(FORMAT, "the frame changes its size within the file"));
        }
        Ok(to_rgb(layout, samples))
    }
}

/// The decoder wants fractions in their lowest terms.
fn factor(scale: Scale) -> Result<ScalingFactor, JpegError> {
    let shift = scale.eighths().trailing_zeros().min(3);
    ScalingFactor::try_new(scale.eighths() >> shift, 8 >> shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_components_are_sampled_alike_or_by_half() {
        for sampling in [[(1, 1); 4], [(2, 2), (1, 1), (1, 1), (2, 2)], [(2, 1), (1, 1), (1, 1), (2, 1)]] {
            assert!(check_sampling(&sampling).is_ok(), "{sampling:?}");
        }
        for sampling in
            [[(1, 4), (1, 2), (1, 1), (1, 4)], [(3, 1), (2, 1), (2, 1), (3, 1)], [(2, 2), (1, 1), (1, 1), (1, 1)]]
        {
            assert!(check_sampling(&sampling).is_err(), "{sampling:?}");
        }
        assert!(check_sampling(&[(4, 1), (1, 1), (1, 1)]).is_ok(), "4:1:1 is common with three");
    }

    #[test]
    fn the_larger_the_picture_the_fewer_scans() {
        assert_eq!(scans_max(224, 224), SCANS_MAX);
        assert_eq!(scans_max(5000, 4000), 50);
        assert_eq!(scans_max(8000, 8000), SCANS_ALWAYS);
    }
}
