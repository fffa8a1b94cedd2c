//! A photo like those of phones, made from a small one: 12 megapixels with grain, about 4 MB as JPEG. Too large to be
//! committed.

use std::path::Path;

use libjpeg_turbo_rs::{PixelFormat, Subsampling, compress};
use residual::pipeline::decode::{DecodeOptions, Pending, open};

/// Width and height of [`phone`].
pub(crate) const PHONE: (usize, usize) = (4032, 3024);

/// One of the committed photos: `cat.jpg` with 451x300 pixels, `coffee.jpg` with 600x400.
pub(crate) fn committed(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/inputs").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `coffee.jpg` enlarged between its pixels, with grain as a sensor leaves it, in 4:2:0 at quality 92.
pub(crate) fn phone() -> Vec<u8> {
    let small = open(&committed("coffee.jpg"), &DecodeOptions::default()).and_then(Pending::decode).expect("a photo");
    let (width, height) = PHONE;
    let columns = steps(width, small.width() as usize);
    let rows = steps(height, small.height() as usize);
    let stride = small.width() as usize * 3;
    let mut grain = Grain(0x2545_F491_4F6C_DD1D);
    let mut rgb = Vec::with_capacity(width * height * 3);
    for &(y, down) in &rows {
        for &(x, right) in &columns {
            let noise = grain.next();
            for channel in 0..3 {
                let at = |x: usize, y: usize| f32::from(small.rgb()[y * stride + x * 3 + channel]);
                let above = at(x, y) + (at(x + 1, y) - at(x, y)) * right;
                let below = at(x, y + 1) + (at(x + 1, y + 1) - at(x, y + 1)) * right;
                rgb.push((above + (below - above) * down + noise) as u8);
            }
        }
    }
    compress(&rgb, width, height, PixelFormat::Rgb, 92, Subsampling::S420).expect("an RGB picture can be compressed")
}

/// For each position the source position before it and the fraction beyond.
fn steps(len: usize, source: usize) -> Vec<(usize, f32)> {
    let scale = (source - 1) as f32 / len as f32;
    (0..len).map(|at| at as f32 * scale).map(|at| (at as usize, at.fract())).collect()
}

/// Sum of four even steps, which is close to a bell with a deviation of 6 levels.
struct Grain(u64);

impl Grain {
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let sum: u32 = self.0.to_le_bytes()[..4].iter().map(|&byte| u32::from(byte)).sum();
        (sum as f32 - 510.0) / 148.0 * 6.0
    }
}
