//! What preparing an image allocates once a server is warm. A binary of its own, since it counts every allocation of the
//! process; one test, so that nothing else allocates meanwhile.

#[path = "../benches/photo/mod.rs"]
mod photo;

use std::alloc::System;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use residual::pipeline::PreparePool;
use residual::pipeline::decode::budget::MemoryBudget;
use residual::pipeline::decode::{DecodeOptions, Pending, ScaledDecode, open};
use residual::pipeline::prepare::open_for;
use residual::pipeline::preprocess::{CenterCrop, ChannelOrder, CropRounding, Filter, Recipe, RecipeSteps, Resize};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const IMAGES: usize = 10;

fn recipe() -> Recipe {
    Recipe::new(RecipeSteps {
        resize: Resize::ShortestEdge(256),
        filter: Filter::Bilinear,
        crop: Some(CenterCrop::new(224, 224, CropRounding::RoundHalfEven)),
        rescale: 1.0 / 255.0,
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
        channel_order: ChannelOrder::Rgb,
    })
    .expect("a published recipe")
}

/// Allocations and bytes of one image, in the mean over ten, after others went before.
fn of_one_image(upload: &Bytes) -> (usize, usize) {
    let options = DecodeOptions::default();
    let (pool, recipe) = (PreparePool::new(1, Arc::new(MemoryBudget::new(1 << 30)), options), recipe());
    let prepare = || {
        let now = Instant::now();
        drop(pool.prepare(upload, &recipe, now, now + Duration::from_secs(60)).expect("a sound photo"));
    };
    (0..3).for_each(|_| prepare());
    let region = Region::new(ALLOCATOR);
    (0..IMAGES).for_each(|_| prepare());
    let change = region.change();
    ((change.allocations + change.reallocations) / IMAGES, change.bytes_allocated / IMAGES)
}

/// Bytes that decoding from nothing takes in all, which is at least what it holds at once, beside the estimate of that.
fn cold_decode(pending: Pending<'_>) -> (usize, u64) {
    let estimate = pending.memory_bytes();
    let region = Region::new(ALLOCATOR);
    let image = pending.decode().expect("a sound photo");
    let bytes = region.change().bytes_allocated;
    drop(image);
    (bytes, estimate)
}

#[test]
fn a_warm_server_allocates_only_the_decoders_planes_and_no_more_than_was_reserved() {
    let phone = photo::phone();
    // The decoder takes one plane for each component, padded to blocks of 16x16, at 4:2:0 half as many bytes again as
    // pixels; at 3/8 all planes have the size of the picture. Both come from inside the decoder and cannot be lent to it.
    let (cat, coffee) = (464 * 304 * 3 / 2, 608 * 400 * 3 / 2);
    let scaled = 4032 * 3024 * 3 * 9 / 64;
    let tables = 32 << 10;
    for (name, upload, planes) in [
        ("cat.jpg", photo::committed("cat.jpg"), cat),
        ("coffee.jpg", photo::committed("coffee.jpg"), coffee),
        ("phone", phone.clone(), scaled),
    ] {
        let (allocations, bytes) = of_one_image(&upload.into());
        assert!(bytes <= planes + tables, "{name}: {bytes} bytes, of which {planes} are the decoder's planes");
        assert!(allocations <= 40, "{name}: {allocations} allocations");
    }
    for (name, upload) in [("cat.jpg", &photo::committed("cat.jpg")), ("phone", &phone)] {
        for scaled_decode in [ScaledDecode::Off, ScaledDecode::Auto] {
            let options = DecodeOptions { scaled_decode, ..DecodeOptions::default() };
            let (bytes, estimate) = cold_decode(open_for(upload, &options, &recipe()).expect("a sound photo"));
            assert!(bytes as u64 <= estimate, "{name}, {scaled_decode:?}: {bytes} bytes, {estimate} were estimated");
        }
    }
    let reserved = |scaled_decode| {
        let options = DecodeOptions { scaled_decode, ..DecodeOptions::default() };
        open_for(&phone, &options, &recipe()).expect("a sound photo").memory_bytes()
    };
    assert!(reserved(ScaledDecode::Auto) * 4 < reserved(ScaledDecode::Off));
    assert_eq!(
        open(&phone, &DecodeOptions::default()).expect("a sound photo").memory_bytes(),
        reserved(ScaledDecode::Off)
    );
}
