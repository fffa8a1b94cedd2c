//! Samples of any layout to RGB8, by the rules of Pillow's `convert("RGB")`: alpha is dropped, not blended;
//! 16-bit colour keeps its high byte; 16-bit gray is clipped at 255.

/// What the samples of a decoder mean. 16-bit samples stand in native byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    Gray8,
    GrayAlpha8,
    Rgb8,
    Rgba8,
    /// 16-bit gray, which Pillow opens as `I;16` and clips: everything above 255 becomes white.
    Gray16Clipped,
    GrayAlpha16,
    /// Like `GrayAlpha16`, but the alpha was made from a transparent value: Pillow's mode stays `I;16`.
    GrayAlpha16Clipped,
    Rgb16,
    Rgba16,
    /// 0 is no ink, as in TIFF. JPEG stores the inverse.
    Cmyk8,
    InvertedCmyk8,
}

impl Layout {
    pub(super) fn bytes_per_pixel(self) -> u64 {
        match self {
            Self::Gray8 => 1,
            Self::GrayAlpha8 | Self::Gray16Clipped => 2,
            Self::Rgb8 => 3,
            Self::Rgba8 | Self::GrayAlpha16 | Self::GrayAlpha16Clipped | Self::Cmyk8 | Self::InvertedCmyk8 => 4,
            Self::Rgb16 => 6,
            Self::Rgba16 => 8,
        }
    }
}

/// `[pixels, channels]` in `layout` -> `[pixels, 3]` u8.
pub(super) fn to_rgb(layout: Layout, samples: Vec<u8>) -> Vec<u8> {
    let high = |sample: [u8; 2]| (u16::from_ne_bytes(sample) >> 8) as u8;
    let clipped = |sample: [u8; 2]| u8::try_from(u16::from_ne_bytes(sample)).unwrap_or(u8::MAX);
    match layout {
        Layout::Rgb8 => samples,
        Layout::Gray8 => expand(&samples, |[v]: [u8; 1]| [v; 3]),
        Layout::Gray16Clipped => expand(&samples, |v: [u8; 2]| [clipped(v); 3]),
        Layout::GrayAlpha8 => expand(&samples, |[v, _]: [u8; 2]| [v; 3]),
        Layout::GrayAlpha16 => shrink(samples, |[a, b, ..]: [u8; 4]| [high([a, b]); 3]),
        Layout::GrayAlpha16Clipped => shrink(samples, |[a, b, ..]: [u8; 4]| [clipped([a, b]); 3]),
        Layout::Rgba8 => shrink(samples, |[r, g, b, _]: [u8; 4]| [r, g, b]),
        Layout::Rgb16 => shrink(samples, |v: [u8; 6]| [high([v[0], v[1]]), high([v[2], v[3]]), high([v[4], v[5]])]),
        Layout::Rgba16 => shrink(samples, |v: [u8; 8]| [high([v[0], v[1]]), high([v[2], v[3]]), high([v[4], v[5]])]),
        Layout::Cmyk8 => shrink(samples, cmyk_to_rgb),
        Layout::InvertedCmyk8 => shrink(samples, |ink: [u8; 4]| cmyk_to_rgb(ink.map(|v| 255 - v))),
    }
}

/// `[pixels]` u8 indices -> `[pixels, 3]` u8.
pub(super) fn palette_to_rgb(palette: &Palette, indices: &[u8]) -> Vec<u8> {
    expand(indices, |[index]: [u8; 1]| palette.0[usize::from(index)])
}

/// 256 colours; indices beyond the palette of the file are black, as Pillow shows them.
#[derive(Debug)]
pub(super) struct Palette([[u8; 3]; 256]);

impl Palette {
    pub(super) fn new(colours: impl IntoIterator<Item = [u8; 3]>) -> Self {
        let mut palette = [[0; 3]; 256];
        for (entry, colour) in palette.iter_mut().zip(colours) {
            *entry = colour;
        }
        Self(palette)
    }
}

/// Pillow's integer formula: `255 - k` minus the ink's share of it, rounded.
fn cmyk_to_rgb([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    let white = u32::from(255 - k);
    [c, m, y].map(|ink| {
        let product = u32::from(ink) * white + 128;
        // product / 255, rounded, without a division; at most `white`, so the difference is a u8.
        (white - ((product + (product >> 8)) >> 8)) as u8
    })
}

fn expand<const N: usize>(samples: &[u8], pixel: impl Fn([u8; N]) -> [u8; 3]) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(samples.len() / N * 3);
    for &sample in samples.as_chunks::<N>().0 {
        rgb.extend_from_slice(&pixel(sample));
    }
    rgb
}

/// In place: each pixel is read before anything is written behind it.
fn shrink<const N: usize>(mut samples: Vec<u8>, pixel: impl Fn([u8; N]) -> [u8; 3]) -> Vec<u8> {
    let pixels = samples.len() / N;
    for index in 0..pixels {
        let from: [u8; N] = samples[index * N..][..N].try_into().expect("one pixel");
        samples[index * 3..][..3].copy_from_slice(&pixel(from));
    }
    samples.truncate(pixels * 3);
    // The picture lives on while the request waits; a third or more of the buffer would wait with it for nothing.
    samples.shrink_to_fit();
    samples
}
