//! Large photos, which are decoded smaller, against the exact way.

use std::time::Duration;

use libjpeg_turbo_rs::{PixelFormat, Subsampling, compress};

use super::*;
use crate::pipeline::decode::{EXACT_PIXELS_MAX, ScaledDecode};
use crate::pipeline::preprocess::{CenterCrop, ChannelOrder, CropRounding, Filter, RecipeSteps, Resize};

/// Shapes with sharp edges at every size, and grain.
fn photo(width: usize, height: usize) -> Vec<u8> {
    let mut grain = 0x2545_F491_u32;
    let mut rgb = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            grain ^= grain << 13;
            grain ^= grain >> 17;
            grain ^= grain << 5;
            let noise = (grain >> 24) as f32 / 16.0;
            let (across, down) = (x as f32 / width as f32, y as f32 / height as f32);
            let ring = (across - 0.5).hypot(down - 0.5) * (8.0 + 40.0 * across);
            let edge = if ring.fract() < 0.5 { 60.0 } else { 0.0 };
            for base in [across * 120.0, down * 120.0, (1.0 - across) * 120.0] {
                rgb.push((base + edge + noise + 30.0) as u8);
            }
        }
    }
    compress(&rgb, width, height, PixelFormat::Rgb, 92, Subsampling::S420).unwrap()
}

fn pool(scaled_decode: ScaledDecode) -> PreparePool {
    let options = DecodeOptions { scaled_decode, ..DecodeOptions::default() };
    PreparePool::new(1, Arc::new(MemoryBudget::new(1 << 30)), options)
}

/// Values are levels of 0..=255.
fn recipe(resize: Resize, side: u32, filter: Filter) -> Recipe {
    Recipe::new(RecipeSteps {
        resize,
        filter,
        crop: Some(CenterCrop::new(side, side, CropRounding::Floor)),
        rescale: 1.0,
        mean: [0.0; 3],
        std: [1.0; 3],
        channel_order: ChannelOrder::Rgb,
    })
    .unwrap()
}

fn prepared(pool: &PreparePool, upload: &Bytes, recipe: &Recipe) -> Prepared {
    let now = Instant::now();
    pool.prepare(upload, recipe, now, now + Duration::from_secs(60)).unwrap()
}

#[test]
fn a_large_photo_decoded_smaller_gives_nearly_the_same_sample() {
    // An odd size: its last column and row are parts of pixels at every scale.
    let upload = Bytes::from(photo(2603, 1999));
    let (exact, scaled) = (pool(ScaledDecode::Off), pool(ScaledDecode::Auto));
    let recipes = [
        (recipe(Resize::ShortestEdge(256), 224, Filter::Bilinear), 4),
        (recipe(Resize::ShortestEdge(256), 224, Filter::Bicubic), 4),
        (recipe(Resize::ShortestEdge(224), 224, Filter::Lanczos), 3),
        (recipe(Resize::ShortestEdge(32), 32, Filter::Bilinear), 1),
    ];
    for (recipe, eighths) in &recipes {
        let pending = open_for(&upload, &DecodeOptions::default(), recipe).unwrap();
        assert_eq!(pending.scale().eighths(), *eighths, "{recipe}");
        let (exact, scaled) = (prepared(&exact, &upload, recipe), prepared(&scaled, &upload, recipe));
        assert_eq!(exact.image, scaled.image);
        let off = exact.sample.values().iter().zip(scaled.sample.values()).map(|(a, b)| (a - b).abs());
        let (most, sum) = off.fold((0_f32, 0_f64), |(most, sum), off| (most.max(off), sum + f64::from(off)));
        let mean = sum / exact.sample.values().len() as f64;
        assert!(mean > 0.0, "{recipe}: the scaled way was not taken");
        // Measured: at most 3 levels, on average 0.18.
        assert!(most <= 4.0 && mean <= 0.25, "{recipe}: at most {most} levels, {mean} on average");
    }
}

#[test]
fn a_photo_at_the_bound_is_the_same_in_every_bit() {
    let upload = Bytes::from(photo(2000, 2000));
    assert_eq!(EXACT_PIXELS_MAX, 2000 * 2000);
    let recipe = recipe(Resize::ShortestEdge(32), 32, Filter::Bilinear);
    let [exact, scaled] = [ScaledDecode::Off, ScaledDecode::Auto].map(|mode| prepared(&pool(mode), &upload, &recipe));
    assert_eq!(exact.sample, scaled.sample);
}

#[test]
fn what_the_recipe_cannot_take_is_refused_before_it_is_decoded() {
    // 1 x 20,000 pixels, whose data is damaged: decoding would say so.
    let mut upload = photo(1, 20_000);
    let len = upload.len();
    upload[len - 200..len - 2].fill(0xFF);
    let steps = RecipeSteps { crop: None, ..recipe(Resize::ShortestEdge(256), 224, Filter::Bilinear).steps().clone() };
    let now = Instant::now();
    let recipe = Recipe::new(steps).unwrap();
    let refused = pool(ScaledDecode::Auto).prepare(&upload.into(), &recipe, now, now + Duration::from_secs(60));
    assert_eq!(
        refused.unwrap_err().to_string(),
        "preprocess image: sample would be 256x5120000, 1310720000 pixels, at most 16777216 allowed"
    );
}

#[test]
fn memory_goes_back_whatever_happened() {
    let pool = pool(ScaledDecode::Auto);
    let recipe = recipe(Resize::ShortestEdge(32), 32, Filter::Bilinear);
    let upload = photo(300, 200);
    let first = prepared(&pool, &upload.clone().into(), &recipe);
    let place = first.sample.values().as_ptr();
    drop(first);
    let now = Instant::now();
    let mut broken = upload.clone();
    broken.truncate(upload.len() / 2);
    broken.extend_from_slice(&[0xFF, 0xD9]);
    assert!(pool.prepare(&broken.into(), &recipe, now, now + Duration::from_secs(60)).is_err());
    assert_eq!(pool.memory_bytes(), 0);
    assert_eq!(prepared(&pool, &upload.into(), &recipe).sample.values().as_ptr(), place);
}
