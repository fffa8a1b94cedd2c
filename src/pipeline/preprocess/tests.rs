//! Golden arrays from Pillow, OpenCV and numpy (`tests/golden/make.py`), and the properties that hold for any picture.
//!
//! The tolerance is zero everywhere: the arithmetic is integer once the weights are fixed, and the weights agree. Where
//! OpenCV adds up f32, the order is the same too.

use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::Value;

use super::geometry::Geometry;
use super::*;
use crate::pipeline::types::{ImageFormat, ImageInfo, View};

const FILTERS: [Filter; 8] = [
    Filter::Nearest,
    Filter::Box,
    Filter::Bilinear,
    Filter::Hamming,
    Filter::Bicubic,
    Filter::Lanczos,
    Filter::OpencvArea,
    Filter::OpencvLinear,
];

fn golden(name: &str) -> Vec<u8> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/preprocess")).join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn image(width: u32, height: u32, rgb: Vec<u8>) -> Image {
    Image::new(ImageInfo { width, height, format: ImageFormat::Png }, rgb)
}

fn source() -> Image {
    image(101, 67, golden("source.rgb"))
}

/// The picture that a case starts from: `source.rgb`, also as what is left of a larger picture, or its part of 96x64 pixels, whose sides divide well.
fn source_of(case: &Value) -> Image {
    if let Some(view) = case.get("view") {
        let part = |at: usize| view[at].as_f64().unwrap();
        let view = View { left: part(0), top: part(1), width: part(2), height: part(3) };
        let [width, height] = [0, 1].map(|at| number(&case["uploaded"][at]));
        let info = ImageInfo { width, height, format: ImageFormat::Jpeg };
        return Image::reduced(info, (101, 67), view, golden("source.rgb"));
    }
    match case.get("source").and_then(Value::as_str) {
        None => source(),
        Some("even") => image(96, 64, golden("source-even.rgb")),
        Some(other) => panic!("source {other}"),
    }
}

fn steps() -> RecipeSteps {
    RecipeSteps {
        resize: Resize::None,
        filter: Filter::Bilinear,
        crop: None,
        rescale: 1.0 / 255.0,
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
        channel_order: ChannelOrder::Rgb,
    }
}

fn number(value: &Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

fn steps_of_case(case: &Value) -> RecipeSteps {
    let resize = &case["resize"];
    let (kind, size) = resize.as_object().unwrap().iter().next().unwrap();
    let resize = match (kind.as_str(), size) {
        ("shortest_edge", edge) => Resize::ShortestEdge(number(edge)),
        ("exact", size) => Resize::Exact { width: number(&size[0]), height: number(&size[1]) },
        ("cover", size) => Resize::Cover { width: number(&size[0]), height: number(&size[1]) },
        ("contain", size) => Resize::Contain { width: number(&size[0]), height: number(&size[1]) },
        _ => panic!("resize of {case}"),
    };
    let name = case["filter"].as_str().unwrap();
    let filter = FILTERS.into_iter().find(|filter| serde_json::to_value(filter).unwrap() == name).unwrap();
    let crop = case.get("crop").map(|crop| CenterCrop {
        width: number(&crop["width"]),
        height: number(&crop["height"]),
        rounding: match crop["rounding"].as_str().unwrap() {
            "floor" => CropRounding::Floor,
            "floor-pad-after" => CropRounding::FloorPadAfter,
            "round-half-even" => CropRounding::RoundHalfEven,
            other => panic!("rounding {other}"),
        },
        fill: crop.get("fill").map_or([0; 3], |fill| [0, 1, 2].map(|at| u8::try_from(number(&fill[at])).unwrap())),
    });
    let channel_order = match case.get("order").and_then(Value::as_str) {
        None | Some("rgb") => ChannelOrder::Rgb,
        Some("bgr") => ChannelOrder::Bgr,
        Some(other) => panic!("order {other}"),
    };
    RecipeSteps { resize, filter, crop, channel_order, ..steps() }
}

fn cases() -> Vec<Value> {
    serde_json::from_slice(&golden("manifest.json")).unwrap()
}

#[test]
fn pixels_equal_pillow_and_opencv() {
    let mut compared = 0;
    for case in cases() {
        let name = case["name"].as_str().unwrap();
        if name.starts_with("values-") {
            continue;
        }
        let expected = golden(&format!("{name}.rgb"));
        let found = sample_pixels(&source_of(&case), &steps_of_case(&case)).unwrap();
        let off: Vec<(usize, u8, u8)> = (0..expected.len().max(found.len()))
            .filter_map(|at| match (found.get(at), expected.get(at)) {
                (Some(found), Some(expected)) if found == expected => None,
                (found, expected) => Some((at, *found.unwrap_or(&0), *expected.unwrap_or(&0))),
            })
            .collect();
        assert!(off.is_empty(), "{name}: {} of {} differ, first {:?}", off.len(), expected.len(), off[0]);
        compared += 1;
    }
    assert!(compared >= 100, "only {compared} golden arrays were found");
}

#[test]
fn values_equal_numpy_in_every_bit() {
    let source = source();
    for case in cases().iter().filter(|case| case["name"].as_str().unwrap().starts_with("values-")) {
        let name = case["name"].as_str().unwrap();
        let expected: Vec<f32> =
            golden(&format!("{name}.f32")).chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let sample = preprocess(&source, &Recipe::new(steps_of_case(case)).unwrap()).unwrap();
        assert_eq!(sample.shape(), SampleShape { height: 32, width: 32 });
        let off = sample.values().iter().zip(&expected).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        assert_eq!((sample.values().len(), off), (expected.len(), 0), "{name}");
    }
}

#[test]
fn padding_has_the_colour_of_the_crop_in_the_order_of_the_model() {
    let fill = [200, 100, 50];
    let crop = Some(CenterCrop { fill, ..CenterCrop::new(5, 5, CropRounding::Floor) });
    let plain = RecipeSteps { rescale: 1.0, mean: [0.0; 3], std: [1.0; 3], crop, ..steps() };
    for (channel_order, corner) in
        [(ChannelOrder::Rgb, [200.0, 100.0, 50.0]), (ChannelOrder::Bgr, [50.0, 100.0, 200.0])]
    {
        let recipe = Recipe::new(RecipeSteps { channel_order, ..plain.clone() }).unwrap();
        let sample = preprocess(&image(3, 3, vec![7; 27]), &recipe).unwrap();
        assert_eq!([0, 25, 50].map(|at| sample.values()[at]), corner);
        assert_eq!(sample.values()[12], 7.0);
    }
}

#[test]
fn rescaling_by_the_rounded_fraction_is_division_by_255() {
    let identity = RecipeSteps { mean: [0.0; 3], std: [1.0; 3], ..steps() };
    let recipe = Recipe::new(identity).unwrap();
    for (v, value) in recipe.values()[0].iter().enumerate() {
        assert_eq!(*value, v as f32 / 255.0, "{v}: torchvision divides, transformers multiplies");
    }
}

#[test]
fn extreme_picture_computes_only_its_crop() {
    let tall = image(1, 20_000, (0..60_000).map(|i| (i % 251) as u8).collect());
    let crop = Some(CenterCrop::new(224, 224, CropRounding::Floor));
    let recipe = Recipe::new(RecipeSteps { resize: Resize::ShortestEdge(256), crop, ..steps() }).unwrap();
    let mut scratch = Scratch::default();
    let mut values = vec![0.0; 3 * 224 * 224];
    preprocess_into(&tall, &recipe, &mut scratch, &mut values).unwrap();
    assert!(values.iter().all(|value| value.is_finite()));
}

#[test]
fn only_filters_that_average_let_the_decoder_shrink_a_picture() {
    let resized = |steps| resized_size(4032, 3024, &Recipe::new(steps).unwrap()).unwrap();
    let resize = Resize::ShortestEdge(256);
    for filter in FILTERS {
        let averages = !matches!(filter, Filter::Nearest | Filter::OpencvArea | Filter::OpencvLinear);
        assert_eq!(resized(RecipeSteps { resize, filter, ..steps() }), averages.then_some((341, 256)), "{filter:?}");
    }
    let crop = Some(CenterCrop::new(224, 224, CropRounding::Floor));
    assert_eq!(resized(RecipeSteps { resize, crop, ..steps() }), Some((341, 256)));
    assert_eq!(resized(RecipeSteps { crop, ..steps() }), None);
}

#[test]
fn extreme_picture_without_crop_is_refused() {
    let tall = image(1, 20_000, vec![0; 60_000]);
    let recipe = Recipe::new(RecipeSteps { resize: Resize::ShortestEdge(256), ..steps() }).unwrap();
    let error = preprocess(&tall, &recipe).unwrap_err();
    assert_eq!(error.to_string(), "sample would be 256x5120000, 1310720000 pixels, at most 16777216 allowed");
}

#[test]
fn buffer_of_the_wrong_length_is_refused() {
    let recipe = Recipe::new(RecipeSteps { resize: Resize::Exact { width: 4, height: 4 }, ..steps() }).unwrap();
    let error = preprocess_into(&source(), &recipe, &mut Scratch::default(), &mut [0.0; 47]).unwrap_err();
    assert_eq!(error, PreprocessError::WrongLength { found: 47, expected: 48 });
}

#[test]
fn empty_picture_is_refused() {
    let recipe = Recipe::new(steps()).unwrap();
    let error = preprocess(&image(0, 3, Vec::new()), &recipe).unwrap_err();
    assert_eq!(error, PreprocessError::EmptyImage { width: 0, height: 3 });
}

#[test]
fn impossible_recipes_are_refused() {
    let crop = |width, height| Some(CenterCrop::new(width, height, CropRounding::Floor));
    let refused = [
        (RecipeSteps { resize: Resize::ShortestEdge(0), ..steps() }, "resize 0x0 is outside 1..=4096 pixels a side"),
        (RecipeSteps { crop: crop(224, 4097), ..steps() }, "crop 224x4097 is outside 1..=4096 pixels a side"),
        (RecipeSteps { rescale: 0.0, ..steps() }, "rescale factor 0 is not a positive finite number"),
        (RecipeSteps { mean: [0.0, f32::NAN, 0.0], ..steps() }, "mean of channel 1 is NaN, which is not finite"),
        (
            RecipeSteps { std: [1.0, 1.0, 0.0], ..steps() },
            "std of channel 2 is 0, which is not a positive finite number",
        ),
    ];
    for (steps, text) in refused {
        assert_eq!(Recipe::new(steps).unwrap_err().to_string(), text);
    }
    assert!(Recipe::new(RecipeSteps { crop: crop(4096, 1), ..steps() }).is_ok());
}

#[test]
fn shape_is_known_where_crop_or_exact_size_fix_it() {
    let crop = Some(CenterCrop::new(5, 7, CropRounding::Floor));
    let shape = |steps| Recipe::new(steps).unwrap().sample_shape();
    let exact = Resize::Exact { width: 3, height: 4 };
    assert_eq!(shape(RecipeSteps { crop, ..steps() }), Some(SampleShape { height: 7, width: 5 }));
    assert_eq!(shape(RecipeSteps { resize: exact, ..steps() }), Some(SampleShape { height: 4, width: 3 }));
    assert_eq!(shape(RecipeSteps { resize: exact, crop, ..steps() }), Some(SampleShape { height: 7, width: 5 }));
    for resize in
        [Resize::ShortestEdge(9), Resize::Cover { width: 9, height: 9 }, Resize::Contain { width: 9, height: 9 }]
    {
        assert_eq!(shape(RecipeSteps { resize, ..steps() }), None);
    }
    assert_eq!(shape(steps()), None);
}

#[test]
fn recipe_shows_its_steps_as_json() {
    let recipe = Recipe::new(RecipeSteps { resize: Resize::ShortestEdge(256), ..steps() }).unwrap();
    let json = serde_json::to_value(&recipe).unwrap();
    assert_eq!(json["resize"]["shortest_edge"], 256);
    assert_eq!(json["filter"], "bilinear");
    assert_eq!(json.as_object().unwrap().len(), 7);
    let fill = [124, 116, 104];
    for (fill, shown) in [([0; 3], Value::Null), (fill, serde_json::json!(fill))] {
        let crop = Some(CenterCrop { fill, ..CenterCrop::new(8, 8, CropRounding::RoundHalfEven) });
        let json = serde_json::to_value(Recipe::new(RecipeSteps { crop, ..steps() }).unwrap()).unwrap();
        assert_eq!((&json["crop"]["fill"], &json["crop"]["rounding"]), (&shown, &Value::from("round_half_even")));
    }
}

fn any_resize() -> impl Strategy<Value = Resize> {
    prop_oneof![
        Just(Resize::None),
        (1..90_u32, 1..90_u32).prop_map(|(width, height)| Resize::Exact { width, height }),
        (1..60_u32).prop_map(Resize::ShortestEdge),
        (1..60_u32, 1..60_u32).prop_map(|(width, height)| Resize::Cover { width, height }),
        (1..60_u32, 1..60_u32).prop_map(|(width, height)| Resize::Contain { width, height }),
    ]
}

fn any_steps() -> impl Strategy<Value = RecipeSteps> {
    let rounding =
        prop::sample::select(vec![CropRounding::Floor, CropRounding::FloorPadAfter, CropRounding::RoundHalfEven]);
    let crop = (1..70_u32, 1..70_u32, rounding, any::<[u8; 3]>())
        .prop_map(|(width, height, rounding, fill)| CenterCrop { width, height, rounding, fill });
    (any_resize(), prop::sample::select(FILTERS.to_vec()), prop::option::of(crop))
        .prop_map(|(resize, filter, crop)| RecipeSteps { resize, filter, crop, ..steps() })
}

/// Cheap noise: the tests need any picture, not a pretty one.
fn noise(width: u32, height: u32, seed: u32) -> Image {
    let mut state = seed | 1;
    let rgb = (0..width * height * 3)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 11) as u8
        })
        .collect();
    image(width, height, rgb)
}

proptest! {
    #[test]
    fn fused_equals_resize_then_crop(steps in any_steps(), width in 1..80_u32, height in 1..80_u32, seed: u32) {
        let picture = noise(width, height, seed);
        let geometry = Geometry::new(width, height, &steps).unwrap();
        let Geometry { x, y } = geometry;
        let fused = sample_pixels(&picture, &steps).unwrap();
        let whole = resize::resize_whole(picture.rgb(), &geometry, steps.filter);
        let mut expected = steps.crop.map_or([0; 3], |crop| crop.fill).repeat(x.output * y.output);
        for row in 0..y.window {
            let from = ((y.first + row) * x.resized + x.first) * 3;
            let to = ((y.padding + row) * x.output + x.padding) * 3;
            expected[to..to + x.window * 3].copy_from_slice(&whole[from..from + x.window * 3]);
        }
        prop_assert_eq!(fused, expected);
    }

    #[test]
    fn constant_picture_stays_constant(
        steps in any_steps(), width in 1..80_u32, height in 1..80_u32, colour: [u8; 3],
    ) {
        let picture = image(width, height, colour.repeat((width * height) as usize));
        let steps = RecipeSteps { crop: None, ..steps };
        let pixels = sample_pixels(&picture, &steps).unwrap();
        prop_assert!(pixels.chunks_exact(3).all(|pixel| pixel == colour));
    }

    #[test]
    fn sample_has_the_announced_shape(steps in any_steps(), width in 1..80_u32, height in 1..80_u32, seed: u32) {
        let recipe = Recipe::new(steps).unwrap();
        let sample = preprocess(&noise(width, height, seed), &recipe).unwrap();
        if let Some(shape) = recipe.sample_shape() {
            prop_assert_eq!(sample.shape(), shape);
        }
        prop_assert_eq!(sample.shape(), sample_shape(width, height, &recipe).unwrap());
        prop_assert_eq!(sample.values().len(), sample.shape().len());
    }

    #[test]
    fn scratch_carries_nothing_over(first in any_steps(), second in any_steps(), seed: u32) {
        let (a, b) = (noise(61, 43, seed), noise(40, 57, !seed));
        let (first, second) = (Recipe::new(first).unwrap(), Recipe::new(second).unwrap());
        let mut scratch = Scratch::default();
        let mut values = vec![0.0; sample_shape(61, 43, &first).unwrap().len()];
        preprocess_into(&a, &first, &mut scratch, &mut values).unwrap();
        let mut values = vec![0.0; sample_shape(40, 57, &second).unwrap().len()];
        preprocess_into(&b, &second, &mut scratch, &mut values).unwrap();
        let fresh = preprocess(&b, &second).unwrap();
        prop_assert_eq!(values.as_slice(), fresh.values());
    }
}

#[test]
fn a_recipe_whose_numbers_lead_beyond_f32_is_refused() {
    let steps = RecipeSteps {
        resize: Resize::None,
        filter: Filter::Bilinear,
        crop: None,
        rescale: 1e38,
        mean: [0.0; 3],
        std: [1.0, 0.5, 1.0],
        channel_order: ChannelOrder::Rgb,
    };
    // 3e38 fits, 4e38 does not; half the deviation halves what fits.
    let refused = Recipe::new(steps.clone()).unwrap_err();
    assert_eq!(refused, RecipeError::NotFinite { channel: 0, pixel: 4, found: f32::INFINITY });
    let refused = Recipe::new(RecipeSteps { rescale: 1e36, ..steps.clone() }).unwrap_err();
    assert_eq!(refused, RecipeError::NotFinite { channel: 1, pixel: 171, found: f32::INFINITY });
    assert!(Recipe::new(RecipeSteps { rescale: 1e35, ..steps }).is_ok());
}
