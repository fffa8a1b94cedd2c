//! From upload bytes to a sample, and its parts: `cargo bench --bench preprocess`.
//!
//! `phone` is a photo of 12 megapixels. `image's decoder` is zune-jpeg, which the `image` crate would use: the group
//! `phone photo` compares what a server on that crate pays with what is paid here.

mod photo;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use residual::pipeline::decode::{Canvas, DecodeError, DecodeOptions, Pending, ScaledDecode, open};
use residual::pipeline::prepare::open_for;
use residual::pipeline::preprocess::{
    CenterCrop, ChannelOrder, CropRounding, Filter, Recipe, RecipeSteps, Resize, Scratch, preprocess_into,
};
use residual::pipeline::{Image, ImageFormat, ImageInfo, SampleShape};
use zune_jpeg::zune_core::bytestream::ZCursor;

const SMALL: [&str; 2] = ["cat.jpg", "coffee.jpg"];

/// Shortest edge 256, centre crop 224: torchvision's first ResNet weights.
fn recipe(filter: Filter) -> Recipe {
    steps(Resize::ShortestEdge(256), filter)
}

fn steps(resize: Resize, filter: Filter) -> Recipe {
    Recipe::new(RecipeSteps {
        resize,
        filter,
        crop: Some(CenterCrop::new(224, 224, CropRounding::RoundHalfEven)),
        rescale: 1.0 / 255.0,
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
        channel_order: ChannelOrder::Rgb,
    })
    .expect("a published recipe")
}

fn whole(bytes: &[u8]) -> Image {
    open(bytes, &DecodeOptions::default()).and_then(Pending::decode).expect("a sound photo")
}

/// As a server does it: the picture's memory serves the next one.
fn decode_into(pending: Result<Pending<'_>, DecodeError>, canvas: &mut Canvas) {
    let image = pending.and_then(|pending| pending.decode_into(canvas)).expect("a sound photo");
    canvas.take_back(black_box(image));
}

fn with_zune(bytes: &[u8]) -> Image {
    let mut decoder = zune_jpeg::JpegDecoder::new(ZCursor::new(bytes));
    let rgb = decoder.decode().expect("a sound photo");
    let (width, height) = decoder.dimensions().expect("a decoded photo has a size");
    let info = ImageInfo { width: width as u32, height: height as u32, format: ImageFormat::Jpeg };
    Image::new(info, rgb)
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    let mut canvas = Canvas::default();
    let options = DecodeOptions::default();
    for name in SMALL {
        let bytes = photo::committed(name);
        let image = whole(&bytes);
        group.throughput(Throughput::Elements(u64::from(image.width()) * u64::from(image.height())));
        group.bench_function(name, |b| b.iter(|| decode_into(open(black_box(&bytes), &options), &mut canvas)));
        group.bench_function(format!("{name}/image's decoder"), |b| b.iter(|| with_zune(black_box(&bytes))));
    }
    let bytes = photo::phone();
    let recipe = recipe(Filter::Bilinear);
    group.sample_size(10).throughput(Throughput::Elements((photo::PHONE.0 * photo::PHONE.1) as u64));
    group.bench_function("phone/exact", |b| b.iter(|| decode_into(open(black_box(&bytes), &options), &mut canvas)));
    group.bench_function("phone/scaled", |b| {
        b.iter(|| decode_into(open_for(black_box(&bytes), &options, &recipe), &mut canvas));
    });
    group.bench_function("phone/image's decoder", |b| b.iter(|| with_zune(black_box(&bytes))));
    group.finish();
}

fn preprocess(c: &mut Criterion) {
    let mut group = c.benchmark_group("preprocess");
    let filters = [
        ("bilinear", Filter::Bilinear),
        ("bicubic", Filter::Bicubic),
        ("lanczos", Filter::Lanczos),
        ("opencv_linear", Filter::OpencvLinear),
        ("opencv_area", Filter::OpencvArea),
    ];
    for name in SMALL {
        let image = whole(&photo::committed(name));
        for (label, filter) in filters {
            bench_preprocess(&mut group, &format!("{name}/{label}"), &image, &recipe(filter));
        }
    }
    // A picture that is neither resized nor cropped much: what is left is normalising 224x224 pixels.
    bench_preprocess(
        &mut group,
        "normalise alone",
        &whole(&photo::committed("coffee.jpg")),
        &steps(Resize::None, Filter::Bilinear),
    );
    let phone = whole(&photo::phone());
    group.sample_size(10);
    bench_preprocess(&mut group, "phone/bilinear", &phone, &recipe(Filter::Bilinear));
    group.finish();
}

type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn bench_preprocess(group: &mut Group<'_>, name: &str, image: &Image, recipe: &Recipe) {
    let mut scratch = Scratch::default();
    let mut values = vec![0.0; recipe.sample_shape().map_or(0, SampleShape::len)];
    group.bench_function(name, |b| {
        b.iter(|| preprocess_into(black_box(image), recipe, &mut scratch, &mut values).expect("buffers fit"));
    });
}

/// Decode and preprocess together.
fn phone_photo(c: &mut Criterion) {
    let mut group = c.benchmark_group("phone photo");
    group.sample_size(10);
    let bytes = photo::phone();
    let recipe = recipe(Filter::Bilinear);
    let mut values = vec![0.0; recipe.sample_shape().map_or(0, SampleShape::len)];
    group.bench_function("image's decoder, exact", |b| {
        let mut scratch = Scratch::default();
        b.iter(|| preprocess_into(&with_zune(black_box(&bytes)), &recipe, &mut scratch, &mut values).expect("fits"));
    });
    for (name, scaled_decode) in [("exact", ScaledDecode::Off), ("scaled", ScaledDecode::Auto)] {
        let options = DecodeOptions { scaled_decode, ..DecodeOptions::default() };
        let (mut canvas, mut scratch) = (Canvas::default(), Scratch::default());
        group.bench_function(name, |b| {
            b.iter(|| {
                let pending = open_for(black_box(&bytes), &options, &recipe).expect("a sound photo");
                let image = pending.decode_into(&mut canvas).expect("a sound photo");
                preprocess_into(&image, &recipe, &mut scratch, &mut values).expect("fits");
                canvas.take_back(image);
            });
        });
    }
    group.finish();
}

/// What it costs to gather an upload in one buffer, beside what it costs to decode it.
fn body(c: &mut Criterion) {
    let upload = vec![7_u8; 110 << 10];
    let mut group = c.benchmark_group("body");
    group.throughput(Throughput::Bytes(upload.len() as u64));
    group.bench_function("copy of 110 KiB", |b| {
        b.iter(|| {
            let mut buffer = Vec::with_capacity(upload.len());
            for chunk in black_box(&upload).chunks(16 << 10) {
                buffer.extend_from_slice(chunk);
            }
            buffer
        });
    });
    group.finish();
}

criterion_group!(benches, decode, preprocess, phone_photo, body);
criterion_main!(benches);
