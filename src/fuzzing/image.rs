//! Any bytes are an image or an error, and an image becomes the sample that it would become alone in the process.

use std::io::Cursor;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use image::{ImageFormat as Theirs, ImageReader};

use super::Weigh;
use crate::pipeline::decode::budget::MemoryBudget;
use crate::pipeline::decode::{self, Canvas, DecodeLimits, DecodeOptions, Scale};
use crate::pipeline::preprocess::{
    CenterCrop, ChannelOrder, CropRounding, Filter, Recipe, RecipeSteps, Resize, preprocess, sample_shape,
};
use crate::pipeline::{ImageFormat, PreparePool};

/// Small, so that no input takes long.
const OPTIONS: DecodeOptions = DecodeOptions {
    exif_orientation: decode::ExifOrientation::Apply,
    scaled_decode: decode::ScaledDecode::Auto,
    limits: DecodeLimits { width_max: 2048, height_max: 2048, pixels_max: 1 << 18 },
};
/// Of all decodes.
const MEMORY_BYTES_MAX: u64 = 32 << 20;
/// What a decoder may hold beside the bytes that the estimate is about: tables and the reader of its container.
const SLACK_BYTES: u64 = 1 << 20;

thread_local! {
    /// One pool for all images of a thread, as in the server: each image meets the memory that others used before.
    static POOL: PreparePool = PreparePool::new(1, Arc::new(MemoryBudget::new(MEMORY_BYTES_MAX)), OPTIONS);
    static RECIPES: [Recipe; 3] = [
        recipe(Resize::ShortestEdge(24), Filter::Bilinear, 16),
        recipe(Resize::Contain { width: 20, height: 20 }, Filter::Lanczos, 24),
        recipe(Resize::Exact { width: 17, height: 17 }, Filter::OpencvArea, 15),
    ];
}

fn recipe(resize: Resize, filter: Filter, side: u32) -> Recipe {
    let steps = RecipeSteps {
        resize,
        filter,
        crop: Some(CenterCrop::new(side, side, CropRounding::RoundHalfEven)),
        rescale: 1.0 / 255.0,
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
        channel_order: ChannelOrder::Rgb,
    };
    Recipe::new(steps).expect("a recipe of usual numbers")
}

/// Holds decoding and preparing to their promises: sizes within the limits and as another decoder reads them, no more memory
/// than the estimate, the same pixels whatever the memory held before, finite samples of the recipe's shape, every byte of
/// the budget given back. True for an image.
pub fn image(data: &[u8], weigh: Weigh<'_>) -> bool {
    let Ok(pending) = decode::open(data, &OPTIONS) else { return false };
    let header = pending.header();
    let DecodeLimits { width_max, height_max, pixels_max } = OPTIONS.limits;
    assert!((1..=width_max).contains(&header.width) && (1..=height_max).contains(&header.height), "{header:?}");
    assert!(u64::from(header.width) * u64::from(header.height) <= pixels_max, "{header:?}");
    if let Some(theirs) = size_as_image_reads_it(data, header.format) {
        assert_eq!((header.width, header.height), theirs, "{:?}", header.format);
    }
    if pending.memory_bytes() > MEMORY_BYTES_MAX {
        return false;
    }
    let estimate = pending.memory_bytes();
    let (mut pending, mut fresh) = (Some(pending), None);
    let held = weigh(&mut || fresh = pending.take().map(decode::Pending::decode));
    assert!(held <= estimate + SLACK_BYTES, "{:?} holds {held} bytes, estimated {estimate}", header.format);
    let fresh = fresh.expect("the work was done");

    let now = Instant::now();
    let upload = Bytes::copy_from_slice(data);
    RECIPES.with(|recipes| {
        for recipe in recipes {
            let prepared = POOL.with(|pool| {
                let prepared = pool.prepare(&upload, recipe, now, now + Duration::from_secs(60));
                assert_eq!(pool.memory_bytes(), 0, "the budget is given back");
                prepared
            });
            match (&fresh, prepared) {
                (Ok(image), Ok(prepared)) => {
                    let info = image.info();
                    assert_eq!(Ok(prepared.sample.shape()), sample_shape(info.width, info.height, recipe));
                    assert!(prepared.sample.values().iter().all(|value| value.is_finite()));
                    let alone = preprocess(image, recipe).expect("it was prepared before");
                    assert_eq!(prepared.sample, alone, "memory of other images shows");
                }
                (Err(_), Err(_)) => {}
                (fresh, prepared) => panic!("{:?} and {:?}", fresh.as_ref().err(), prepared.err()),
            }
        }
    });
    if header.format == ImageFormat::Jpeg {
        smaller(data, fresh.is_ok(), weigh);
    }
    fresh.is_ok()
}

/// The same at every scale, which only large photos would get. Whether a picture can be decoded does not depend on it.
fn smaller(data: &[u8], whole_is_ok: bool, weigh: Weigh<'_>) {
    for scale in Scale::EVERY {
        let pending = decode::open(data, &OPTIONS).expect("it was opened before").at(scale);
        let (info, estimate) = (pending.info(), pending.memory_bytes());
        let (mut pending, mut decoded) = (Some(pending), None);
        let held = weigh(&mut || {
            decoded = pending.take().map(|pending| pending.decode_into(&mut Canvas::default()));
        });
        assert!(held <= estimate + SLACK_BYTES, "at {scale:?} {held} bytes are held, estimated {estimate}");
        let decoded = decoded.expect("the work was done");
        assert_eq!(decoded.is_ok(), whole_is_ok, "{scale:?}: {:?}", decoded.err());
        if let Ok(image) = decoded {
            let sides = (scale.pixels(info.width), scale.pixels(info.height));
            assert_eq!((image.width(), image.height()), sides, "{scale:?}");
        }
    }
}

/// Width and height as stored, as `image` finds them.
fn size_as_image_reads_it(data: &[u8], format: ImageFormat) -> Option<(u32, u32)> {
    let format = match format {
        ImageFormat::Png => Theirs::Png,
        ImageFormat::Webp => Theirs::WebP,
        ImageFormat::Bmp => Theirs::Bmp,
        ImageFormat::Jpeg | ImageFormat::Gif | ImageFormat::Tiff => return None,
    };
    ImageReader::with_format(Cursor::new(data), format).into_dimensions().ok()
}
