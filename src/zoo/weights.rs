//! Weights without a graph: the graph is written in memory, of the size that the recipe makes.

use std::path::Path;

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::recipe::{self, Evidence, RecipeSource};
use super::{Beside, Choices, Found, Graph, Opened, ZooError, assemble, hex};
use crate::graph::build::{Dataset, GraphForm, build};
use crate::graph::weights::{Checkpoint, Hints, Naming, WeightsFile};
use crate::pipeline::infer::ModelSource;

const NO_CONFIG: &str = "no config.json beside the weights: the stride of a bottleneck is taken to be in its 3x3 \
    convolution and the activation to be ReLU, as in most; names and shapes do not tell";

/// Opens a safetensors file of torchvision, timm or transformers.
pub(super) fn open(found: &Found, path: &Path, beside: &Beside, choices: &Choices) -> Result<Opened, ZooError> {
    let wrong = |cause: Box<dyn std::error::Error + Send + Sync>| ZooError::Weights { path: path.to_owned(), cause };
    let hints = match &beside.config {
        Some((_, file)) => Hints::from_config(&file.bytes)
            .map_err(|cause| ZooError::Weights { path: file.path.clone(), cause: cause.into() })?,
        None => Hints::default(),
    };
    // Before the tensors: should others come to lie there meanwhile, a later look finds another hash and loads them.
    let sha256 = sha256_of(path).map_err(|cause| ZooError::Read { path: path.to_owned(), cause })?;
    let file = WeightsFile::open(path).map_err(|cause| wrong(cause.into()))?;
    let mut checkpoint = Checkpoint::new(file, hints).map_err(|cause| wrong(cause.into()))?;

    let for_small_pictures = checkpoint.architecture().is_for_small_pictures();
    let size = square_size(path, &beside.evidence(choices), for_small_pictures)?;
    let network = checkpoint.network().clone();
    let form = GraphForm { size, description: checkpoint.architecture().to_string(), ..GraphForm::default() };
    let model = build(&network, &form, &mut checkpoint).map_err(|cause| wrong(cause.into()))?;
    let graph = Graph { path: path.to_owned(), sha256, model };
    let mut spec = assemble(found, &graph, beside, choices)?;
    if checkpoint.naming() == Naming::Transformers && beside.config.is_none() {
        spec.warnings.push(NO_CONFIG.to_owned());
    }
    // Here the weights are there twice, which is the most.
    let source = ModelSource::Memory(graph.model.encode_to_vec().into());
    Ok(Opened { spec, source, more_files: beside.labels_file().into_iter().collect() })
}

/// The side, in pixels, of the square input that weights are given a graph for: that of the recipe's samples. `weights`
/// is named in errors.
///
/// # Errors
/// Where what tells the recipe cannot be understood, and where its samples are not square.
pub fn square_size(weights: &Path, evidence: &Evidence<'_>, for_small_pictures: bool) -> Result<usize, ZooError> {
    let resolved = recipe::resolve(evidence)?;
    match (resolved.source, resolved.sample_shape) {
        // Nothing tells the size; a stem of 3x3 is for pictures of 32 pixels.
        (RecipeSource::Assumed, _) if for_small_pictures => Ok(Dataset::Cifar.size()),
        (_, shape) if shape.width == shape.height => Ok(shape.width as usize),
        (_, shape) => Err(ZooError::Value {
            path: weights.to_owned(),
            found: format!("a recipe for pictures of {}x{}", shape.width, shape.height),
            expected:
                "square ones, since a graph is only written for those; choose a size with `residual convert --size`"
                    .to_owned(),
        }),
    }
}

/// Of the weights as they are on disk, by which they are known, and not of the graph made of them.
fn sha256_of(path: &Path) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    std::io::copy(&mut std::fs::File::open(path)?, &mut HashWriter(&mut hasher))?;
    Ok(hex(&hasher.finalize()))
}

/// Feeds a hasher from `io::copy`, so that a file of any size is read in small pieces.
struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of(preprocessor: Option<&str>, config: Option<&str>, for_small_pictures: bool) -> Result<usize, String> {
        let evidence = Evidence {
            preprocessor: preprocessor.map(|json| (Path::new("p.json"), json.as_bytes())),
            config: config.map(|json| (Path::new("c.json"), json.as_bytes())),
            ..Evidence::default()
        };
        square_size(Path::new("w"), &evidence, for_small_pictures).map_err(|error| error.to_string())
    }

    #[test]
    fn the_size_is_that_of_the_recipe() {
        let timm = Some(r#"{"architecture": "resnet50", "pretrained_cfg": {"input_size": [3, 160, 160]}}"#);
        let wrapper = r#"{"image_processor_type": "TimmWrapperImageProcessor", "size": {"height": 224, "width": 224}}"#;
        let deit = r#"{"image_processor_type": "DeiTImageProcessor", "size": 256, "crop_size": 224}"#;
        let deit_whole = r#"{"image_processor_type": "DeiTImageProcessor"}"#;
        let conv_next = r#"{"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 192}}"#;
        for (preprocessor, config, expected) in [
            (None, timm, 160),
            (Some(wrapper), timm, 160),
            (Some(deit), None, 224),
            (Some(deit_whole), timm, 224),
            (Some(conv_next), None, 192),
            (None, Some(r#"{"architecture": "resnet50", "input_size": [3, 288, 288], "crop_pct": 1.0}"#), 288),
        ] {
            let found = [true, false].map(|small| size_of(preprocessor, config, small));
            assert_eq!(found, [Ok(expected), Ok(expected)], "{preprocessor:?}, {config:?}");
        }
    }

    #[test]
    fn where_nothing_tells_it_the_stem_does() {
        let transformers = Some(r#"{"id2label": {"0": "cat"}}"#);
        for config in [None, transformers] {
            assert_eq!([true, false].map(|small| size_of(None, config, small)), [Ok(32), Ok(224)]);
        }
    }

    #[test]
    fn only_square_samples_have_a_graph_made_for_them() {
        let error = size_of(None, Some(r#"{"pretrained_cfg": {"input_size": [3, 200, 100]}}"#), false).unwrap_err();
        assert!(error.contains("a recipe for pictures of 100x200; expected square ones"), "{error}");
        let error = size_of(None, Some(r#"{"pretrained_cfg": {"input_size": [3, 5000, 5000]}}"#), false).unwrap_err();
        assert!(error.starts_with("read c.json: ") && error.contains("4096"), "{error}");
    }
}
