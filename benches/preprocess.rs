//! Decode and preprocess of the two committed photos: `cargo bench --bench preprocess`.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use residual::pipeline::SampleShape;
use residual::pipeline::decode::{DecodeOptions, Pending, open};
use residual::pipeline::preprocess::{
    CenterCrop, ChannelOrder, CropRounding, Filter, Recipe, RecipeSteps, Resize, Scratch, preprocess_into,
};

/// 451x300 and 600x400.
const PHOTOS: [&str; 2] = ["cat.jpg", "coffee.jpg"];

fn photo(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/inputs").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Shortest edge 256, centre crop 224: torchvision's first ResNet weights.
fn recipe(filter: Filter) -> Recipe {
    Recipe::new(RecipeSteps {
        resize: Resize::ShortestEdge(256),
        filter,
        crop: Some(CenterCrop::new(224, 224, CropRounding::RoundHalfEven)),
        rescale: 1.0 / 255.0,
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
        channel_order: ChannelOrder::Rgb,
    })
    .expect("a published recipe")
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for name in PHOTOS {
        let bytes = photo(name);
        let image = open(&bytes, &DecodeOptions::default()).and_then(Pending::decode).expect("a sound photo");
        group.throughput(Throughput::Elements(u64::from(image.width()) * u64::from(image.height())));
        group.bench_function(name, |b| {
            b.iter(|| open(black_box(&bytes), &DecodeOptions::default()).and_then(Pending::decode));
        });
    }
    group.finish();
}

fn preprocess(c: &mut Criterion) {
    let mut group = c.benchmark_group("preprocess");
    for name in PHOTOS {
        let image = open(&photo(name), &DecodeOptions::default()).and_then(Pending::decode).expect("a sound photo");
        for (label, filter) in
            [("bilinear", Filter::Bilinear), ("bicubic", Filter::Bicubic), ("lanczos", Filter::Lanczos)]
        {
            let recipe = recipe(filter);
            let mut scratch = Scratch::default();
            let mut values = vec![0.0; recipe.sample_shape().map_or(0, SampleShape::len)];
            group.bench_function(format!("{name}/{label}"), |b| {
                b.iter(|| preprocess_into(black_box(&image), &recipe, &mut scratch, &mut values));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, decode, preprocess);
criterion_main!(benches);
