//! Who is heard first, and what becomes of the rest.

use super::*;
use crate::pipeline::preprocess::{ChannelOrder, Filter, Resize};

const PROCESSOR: &[u8] = br#"{"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224},
    "resample": 3, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}"#;
const TIMM: &[u8] = br#"{"architecture": "resnet50", "pretrained_cfg": {"input_size": [3, 224, 224], "crop_pct": 0.95,
    "test_input_size": [3, 288, 288], "test_crop_pct": 1.0}}"#;

fn preset(name: &str) -> Preset {
    name.parse().unwrap()
}

fn section(toml: &str) -> RecipeSection {
    toml::from_str(toml).unwrap()
}

fn metadata(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Everything at once; tests take away from it.
struct Everything {
    section: RecipeSection,
    metadata: BTreeMap<String, String>,
}

impl Everything {
    fn new() -> Self {
        Self { section: section("preset = \"torchvision-v2\""), metadata: metadata(&[("residual.preset", "mlperf")]) }
    }

    fn evidence(&self) -> Evidence<'_> {
        Evidence {
            explicit: Some(preset("zoo-notebook")),
            residual: Some((Path::new("m/residual.toml"), &self.section)),
            metadata: Some(&self.metadata),
            preprocessor: Some((Path::new("m/preprocessor_config.json"), PROCESSOR)),
            config: Some((Path::new("m/config.json"), TIMM)),
            catalog: Some(preset("onnx-zoo")),
            input_size: None,
        }
    }
}

fn text(evidence: &Evidence<'_>) -> String {
    resolve(evidence).unwrap_err().to_string()
}

#[test]
fn each_source_is_heard_when_those_above_it_are_silent() {
    let everything = Everything::new();
    let mut evidence = everything.evidence();
    let mut heard = Vec::new();
    let mut hear = |evidence: &Evidence<'_>| {
        let resolved = resolve(evidence).unwrap();
        assert_eq!(serde_json::to_value(resolved.source).unwrap(), resolved.source.as_str());
        heard.push((resolved.source.to_string(), resolved.recipe.steps().clone()));
    };
    hear(&evidence);
    evidence.explicit = None;
    hear(&evidence);
    evidence.residual = None;
    hear(&evidence);
    evidence.metadata = None;
    hear(&evidence);
    evidence.preprocessor = None;
    hear(&evidence);
    evidence.config = None;
    hear(&evidence);
    evidence.catalog = None;
    hear(&evidence);
    let (sources, steps): (Vec<String>, Vec<_>) = heard.into_iter().unzip();
    assert_eq!(
        sources,
        ["setting", "residual.toml", "onnx_metadata", "preprocessor_config.json", "config.json", "catalog", "assumed"]
    );
    assert_eq!(steps[0], preset("zoo-notebook").steps(None));
    assert_eq!(steps[1], preset("torchvision-v2").steps(None));
    assert_eq!(steps[2], preset("mlperf").steps(None));
    assert_eq!(steps[3], preset("hf-resnet").steps(None));
    assert_eq!(steps[4], preset("timm-a1").steps(None));
    assert_eq!(steps[5], preset("onnx-zoo").steps(None));
    assert_eq!(steps[6], preset("torchvision-v1").steps(None));
}

#[test]
fn what_stands_below_a_whole_recipe_is_not_read() {
    let residual = section("preset = \"mlperf\"");
    let evidence = Evidence {
        residual: Some((Path::new("residual.toml"), &residual)),
        preprocessor: Some((Path::new("preprocessor_config.json"), b"{ broken")),
        ..Evidence::default()
    };
    assert_eq!(resolve(&evidence).unwrap().source, RecipeSource::ResidualToml);
    let alone = Evidence { residual: None, ..evidence };
    assert!(text(&alone).starts_with("read preprocessor_config.json: "));
}

#[test]
fn a_setting_wins_over_residual_toml_and_says_so() {
    let residual = section("[recipe]\nfilter = \"bicubic\"");
    let evidence = Evidence {
        explicit: Some(preset("torchvision-v1")),
        residual: Some((Path::new("m/residual.toml"), &residual)),
        ..Evidence::default()
    };
    let resolved = resolve(&evidence).unwrap();
    assert_eq!(resolved.recipe.steps().filter, Filter::Bilinear);
    assert_eq!(resolved.notes, ["the preset that was set wins over m/residual.toml"]);
}

#[test]
fn single_keys_replace_steps_of_whatever_lies_below() {
    let residual = section("[recipe]\nfilter = \"lanczos\"\nrescale = 1.0");
    let inside = metadata(&[("residual.recipe", r#"{"filter": "box", "channel_order": "bgr"}"#)]);
    let evidence = Evidence {
        residual: Some((Path::new("residual.toml"), &residual)),
        metadata: Some(&inside),
        preprocessor: Some((Path::new("preprocessor_config.json"), PROCESSOR)),
        ..Evidence::default()
    };
    let resolved = resolve(&evidence).unwrap();
    let steps = resolved.recipe.steps();
    assert_eq!((steps.filter, steps.rescale, steps.channel_order), (Filter::Lanczos, 1.0, ChannelOrder::Bgr));
    assert_eq!(steps.resize, Resize::ShortestEdge(256));
    assert_eq!(resolved.source, RecipeSource::PreprocessorConfig);
    assert_eq!(
        resolved.notes,
        ["metadata residual.recipe of the model sets filter, channel_order", "residual.toml sets filter, rescale"]
    );
}

#[test]
fn keys_on_an_assumed_recipe_leave_it_assumed_and_all_keys_do_not() {
    let some = section("[recipe]\nresize = { shortest_edge = 40 }\ncrop = { width = 32, height = 32 }");
    let path = Path::new("residual.toml");
    let evidence = Evidence { residual: Some((path, &some)), ..Evidence::default() };
    let resolved = resolve(&evidence).unwrap();
    assert_eq!(resolved.source, RecipeSource::Assumed);
    assert_eq!((resolved.sample_shape.width, resolved.notes.len()), (32, 2));
    let json = serde_json::to_value(&resolved.recipe).unwrap();
    let all = RecipeSection { preset: None, recipe: serde_json::from_value(json).unwrap() };
    let again = resolve(&Evidence { residual: Some((path, &all)), ..Evidence::default() }).unwrap();
    assert_eq!((again.source, again.notes), (RecipeSource::ResidualToml, vec![]));
    assert_eq!(again.recipe, resolved.recipe);
}

#[test]
fn nothing_at_all_is_a_warning_and_not_a_guess_in_silence() {
    let resolved = resolve(&Evidence::default()).unwrap();
    assert_eq!(resolved.source, RecipeSource::Assumed);
    assert!(resolved.notes[0].contains("torchvision-v1 is assumed; name the right preset in residual.toml"));
}

#[test]
fn a_preset_follows_the_graph_and_a_file_has_to_agree_with_it() {
    let input_size = Some((288, 288));
    let resolved = resolve(&Evidence { input_size, ..Evidence::default() }).unwrap();
    assert_eq!(resolved.recipe.steps().resize, Resize::ShortestEdge(329));
    assert!(
        resolved
            .notes
            .contains(&"torchvision-v1 is published for 224x224; resize and crop are brought to 288x288".to_owned())
    );
    let file = Evidence { preprocessor: Some((Path::new("p.json"), PROCESSOR)), input_size, ..Evidence::default() };
    assert!(
        text(&file).starts_with("read p.json: it prepares images of 224x224, and the graph takes 288x288; correct it")
    );
    let timm = Evidence { config: Some((Path::new("config.json"), TIMM)), input_size, ..Evidence::default() };
    assert_eq!(resolve(&timm).unwrap().recipe.steps().resize, Resize::ShortestEdge(288));
    let other = Evidence { input_size: Some((256, 256)), ..timm };
    assert!(text(&other).starts_with("read config.json: it prepares images of 224x224, and the graph takes 256x256"));
    // The keys of residual.toml mend that.
    let residual = section("[recipe]\nresize = { shortest_edge = 270 }\ncrop = { width = 256, height = 256 }");
    let mended = Evidence { residual: Some((Path::new("residual.toml"), &residual)), ..other };
    assert_eq!(resolve(&mended).unwrap().sample_shape.width, 256);
}

#[test]
fn an_error_names_the_place_that_caused_it() {
    let of = |toml: &str| {
        let residual = section(toml);
        text(&Evidence {
            residual: Some((Path::new("residual.toml"), &residual)),
            input_size: Some((224, 224)),
            ..Evidence::default()
        })
    };
    assert!(of("[recipe]\nstd = [1, 0, 1]").starts_with("read residual.toml: std of channel 1 is 0"));
    assert!(of("[recipe]\ncrop = \"none\"").starts_with("read residual.toml: no fixed size of the model's input"));
    assert!(
        of("preset = \"mlperf\"\n[recipe]\ncrop = { width = 200, height = 224 }")
            .starts_with("read residual.toml: it prepares images of 200x224, and the graph takes 224x224")
    );
}

#[test]
fn metadata_may_hold_a_whole_recipe() {
    let recipe = Recipe::new(preset("mlperf").steps(None)).unwrap();
    let json = serde_json::to_string(&recipe).unwrap();
    let metadata = metadata(&[("residual.recipe", json.as_str())]);
    let resolved = resolve(&Evidence { metadata: Some(&metadata), ..Evidence::default() }).unwrap();
    assert_eq!((resolved.recipe, resolved.source), (recipe, RecipeSource::OnnxMetadata));
}

#[test]
fn metadata_that_cannot_be_understood_is_named() {
    for (pairs, expected) in [
        ([("residual.preset", "v1")], "read metadata residual.preset of the model: the preset \"v1\"; expected one of"),
        (
            [("residual.recipe", "{\"crop\": 3}")],
            "read metadata residual.recipe of the model: invalid type: integer `3`",
        ),
        (
            [("Image.BitmapPixelFormat", "Gray8")],
            "read metadata Image.BitmapPixelFormat of the model: the pixel format \"gray8\"",
        ),
        (
            [("image.nominalpixelrange", "0_1")],
            "read metadata Image.NominalPixelRange of the model: the pixel range \"0_1\"",
        ),
        (
            [("Image.ColorSpaceGamma", "Linear")],
            "read metadata Image.ColorSpaceGamma of the model: the gamma \"linear\"",
        ),
    ] {
        let metadata = metadata(&pairs);
        let text = text(&Evidence { metadata: Some(&metadata), ..Evidence::default() });
        assert!(text.starts_with(expected), "{text}");
    }
}

#[test]
fn onnx_image_keys_tell_values_and_order_but_no_size() {
    let of = |range: &str| {
        let metadata = metadata(&[
            ("Image.BitmapPixelFormat", "Bgr8"),
            ("Image.ColorSpaceGamma", "SRGB"),
            ("Image.NominalPixelRange", range),
        ]);
        resolve(&Evidence { metadata: Some(&metadata), ..Evidence::default() }).unwrap()
    };
    // The darkest and the brightest pixel of each range.
    for (range, low, high) in [
        ("NominalRange_0_255", 0.0, 255.0),
        ("Normalized_0_1", 0.0, 1.0),
        ("normalized_1_1", -1.0, 1.0),
        ("NominalRange_16_235", 16.0, 235.0),
    ] {
        let resolved = of(range);
        let steps = resolved.recipe.steps();
        let value = |v: f64| (v * steps.rescale - f64::from(steps.mean[0])) / f64::from(steps.std[0]);
        assert!((value(0.0) - low).abs() < 1e-9 && (value(255.0) - high).abs() < 1e-9, "{range}");
        assert_eq!((steps.channel_order, resolved.source), (ChannelOrder::Bgr, RecipeSource::Assumed));
        assert!(
            resolved.notes.contains(&"metadata Image.* of the model sets rescale, mean, std, channel_order".to_owned())
        );
    }
}

#[test]
fn ultralytics_exports_tell_their_recipe_from_8_1_on() {
    let of = |version: &str, imgsz: &str| {
        let metadata =
            metadata(&[("author", "Ultralytics"), ("task", "classify"), ("version", version), ("imgsz", imgsz)]);
        resolve(&Evidence { metadata: Some(&metadata), ..Evidence::default() }).map_err(|error| error.to_string())
    };
    let resolved = of("8.3.40", "[224, 224]").unwrap();
    assert_eq!((resolved.source, resolved.recipe.steps().mean), (RecipeSource::OnnxMetadata, [0.0; 3]));
    assert_eq!(resolved.recipe.steps().resize, Resize::ShortestEdge(224));
    assert_eq!(of("8.1.0", "[192, 320]").unwrap().recipe.steps().resize, Resize::Exact { width: 320, height: 192 });
    assert_eq!(of("8.0.99", "[224, 224]").unwrap().source, RecipeSource::Assumed);
    assert!(of("8.3.40", "big").unwrap_err().contains("imgsz is \"big\"; expected [height, width]"));
}

#[test]
fn timms_wrapper_file_leaves_the_word_to_timms_config() {
    let evidence = Evidence {
        preprocessor: Some((Path::new("p.json"), br#"{"image_processor_type": "TimmWrapperImageProcessor"}"#)),
        config: Some((Path::new("config.json"), TIMM)),
        ..Evidence::default()
    };
    assert_eq!(resolve(&evidence).unwrap().source, RecipeSource::Config);
}
