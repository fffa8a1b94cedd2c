//! The rule at its bounds, what the decoder makes of it (golden digests from libjpeg-turbo), and where the picture then lies.

use std::path::PathBuf;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::pipeline::decode::{Canvas, DecodeOptions, ExifOrientation, Orientation, ScaledDecode, open};
use crate::pipeline::types::View;

fn eighths(width: u32, height: u32, resized: (u32, u32)) -> u32 {
    Scale::for_resize(width, height, resized).eighths()
}

#[test]
fn photos_up_to_four_megapixels_stay_whole() {
    assert_eq!(eighths(2000, 2000, (32, 32)), 8);
    assert_eq!(eighths(2000, 2001, (32, 32)), 1);
    assert_eq!(eighths(500, 375, (341, 256)), 8);
}

#[test]
fn phone_photos_keep_three_pixels_for_one() {
    assert_eq!(eighths(4032, 3024, (341, 256)), 3);
    assert_eq!(eighths(3024, 4032, (232, 309)), 3);
    assert_eq!(eighths(8160, 6120, (298, 224)), 1);
    assert_eq!(eighths(8160, 6120, (341, 256)), 3);
    assert_eq!(eighths(3264, 2448, (512, 384)), 4);
    assert_eq!(eighths(3264, 2448, (640, 480)), 8);
    assert_eq!(eighths(4032, 3024, (32, 32)), 1);
}

#[test]
fn the_gap_holds_at_its_bound_and_not_one_below() {
    assert_eq!(eighths(6144, 6144, (256, 256)), 1);
    assert_eq!(eighths(6143, 6144, (256, 256)), 3);
    assert_eq!(eighths(6144, 6143, (256, 256)), 3);
}

#[test]
fn a_side_that_does_not_divide_ends_in_a_part_of_a_pixel() {
    let scale = Scale { eighths: 3 };
    assert_eq!((scale.extent(4001), scale.pixels(4001)), (1500.375, 1501));
    assert_eq!((scale.extent(4032), scale.pixels(4032)), (1512.0, 1512));
    assert_eq!((Scale::WHOLE.extent(4001), Scale::WHOLE.pixels(4001)), (4001.0, 4001));
}
fn golden(name: &str) -> Vec<u8> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")).join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn scaled_pictures_equal_libjpeg_turbo_in_every_bit() {
    let cases: Vec<Value> = serde_json::from_slice(&golden("decode/scaled.json")).unwrap();
    let mut canvas = Canvas::default();
    let mut failures = Vec::new();
    for case in &cases {
        let bytes = golden(&format!("fixtures/{}", case["file"].as_str().unwrap()));
        let mut pending = open(&bytes, &DecodeOptions::default()).unwrap();
        pending.scale = Scale { eighths: u32::try_from(case["eighths"].as_u64().unwrap()).unwrap() };
        let image = pending.decode_into(&mut canvas).unwrap();
        let digest: String = Sha256::digest(image.rgb()).iter().map(|byte| format!("{byte:02x}")).collect();
        let size = (u64::from(image.width()), u64::from(image.height()));
        if size != (case["width"].as_u64().unwrap(), case["height"].as_u64().unwrap()) || digest != case["sha256"] {
            failures.push(format!("{case}: {size:?}"));
        }
        // What stays of one picture in the memory of the next one must not show.
        canvas.take_back(image);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(cases.len() >= 40, "only {} cases were found", cases.len());
}

#[test]
fn the_size_that_clients_are_told_is_the_uploads() {
    let bytes = golden("fixtures/jpeg-orientation-6.jpg");
    let mut pending = open(&bytes, &DecodeOptions::default()).unwrap();
    pending.scale = Scale { eighths: 3 };
    let image = pending.decode().unwrap();
    // Stored are 19x11 pixels, at 3/8 7.125 x 4.125, and a quarter turn puts the last row first.
    assert_eq!((image.info().width, image.info().height, image.width(), image.height()), (11, 19, 5, 8));
    assert_eq!(image.view(), View { left: 0.875, top: 0.0, width: 4.125, height: 7.125 });
}

#[test]
fn a_turned_picture_lies_where_its_pixels_went() {
    use Orientation::{FlipHorizontal, FlipVertical, Rotate90, Rotate180, Rotate270, Transpose, Transverse, Upright};
    // 70x130 pixels of 71x133 are the picture: 1 inside, 0 outside.
    let (width, height) = (71, 133);
    let stored = View { left: 0.0, top: 0.0, width: 70.0, height: 130.0 };
    let mask: Vec<u8> =
        (0..height).flat_map(|y| (0..width).flat_map(move |x| [u8::from(x < 70 && y < 130); 3])).collect();
    for turn in [Upright, FlipHorizontal, Rotate180, FlipVertical, Transpose, Rotate90, Transverse, Rotate270] {
        let rgb = turn.apply(width, height, mask.clone(), &mut Canvas::default());
        let view = turn.apply_to_view(71, 133, stored);
        let columns = if turn.swaps_sides() { height } else { width };
        for (at, pixel) in rgb.chunks_exact(3).enumerate() {
            let (x, y) = ((at % columns) as f64, (at / columns) as f64);
            let inside =
                (view.left..view.left + view.width).contains(&x) && (view.top..view.top + view.height).contains(&y);
            assert_eq!(pixel, [u8::from(inside); 3], "{turn:?} at {x}, {y}: {view:?}");
        }
    }
}

#[test]
fn a_turned_photo_shrinks_by_its_upright_size() {
    // 4000 x 1200 as stored.
    let mut bytes = golden("fixtures/jpeg-orientation-6.jpg");
    let frame = bytes.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    bytes[frame + 5..frame + 9].copy_from_slice(&[0x04, 0xB0, 0x0F, 0xA0]);
    let scale = |exif_orientation, scaled_decode, resized| {
        let options = DecodeOptions { exif_orientation, scaled_decode, ..DecodeOptions::default() };
        let mut pending = open(&bytes, &options).unwrap();
        pending.shrink_for(resized);
        (pending.scale().eighths(), pending.memory_bytes())
    };
    let (upright, as_stored) = (ExifOrientation::Apply, ExifOrientation::Ignore);
    let (_, whole_bytes) = scale(upright, ScaledDecode::Off, (50, 166));
    let (eighths, bytes_at_one) = scale(upright, ScaledDecode::Auto, (50, 166));
    assert_eq!(eighths, 1);
    assert!(bytes_at_one * 10 < whole_bytes, "{bytes_at_one} of {whole_bytes}");
    assert_eq!(scale(upright, ScaledDecode::Auto, (166, 50)).0, 4);
    assert_eq!(scale(as_stored, ScaledDecode::Auto, (166, 50)).0, 1);
    assert_eq!(scale(upright, ScaledDecode::Off, (50, 166)).0, 8);
}
