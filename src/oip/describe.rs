//! What a client may read about the server and its models: metadata and configuration.

use schemars::JsonSchema;
use serde::Serialize;

use super::tensor::Datatype;
use super::{Face, Oip, OipError};
use crate::models::Handle;
use crate::pipeline::SampleShape;
use crate::pipeline::infer::{Element, Provider, TensorLayout};

/// Name of the photo side's input.
pub const IMAGE_INPUT: &str = "image";
/// Output of the photo side: a probability for each class.
pub const PROBABILITIES: &str = "probabilities";
/// Output of the photo side: the best class.
pub const CLASS_INDEX: &str = "class_index";
/// Output of the photo side: the best class's name.
pub const LABEL: &str = "label";

/// What of the protocol's extensions works here.
const EXTENSIONS: [&str; 6] =
    ["binary_tensor_data", "classification", "model_configuration", "model_repository", "parameters", "statistics"];
/// The protocol's name for ONNX graphs.
const PLATFORM_GRAPH: &str = "onnxruntime_onnx";
/// The photo side is no graph.
const PLATFORM_IMAGE: &str = "residual_image";
/// The label file that a model's configuration names. Labels themselves come with the classification extension.
const LABEL_FILE: &str = "labels.txt";

/// The server.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ServerMetadata {
    /// `residual`.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// What of the protocol's extensions works.
    pub extensions: Vec<&'static str>,
}

/// One face of one model.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ModelMetadata {
    /// Its name.
    pub name: String,
    /// The versions that there are.
    pub versions: Vec<String>,
    /// What runs it.
    pub platform: &'static str,
    /// What it takes.
    pub inputs: Vec<TensorMetadata>,
    /// What it returns.
    pub outputs: Vec<TensorMetadata>,
}

/// One tensor of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TensorMetadata {
    /// Its name.
    pub name: String,
    /// Type of its elements.
    pub datatype: Datatype,
    /// Its dimensions; -1 is the batch.
    pub shape: Vec<i64>,
}

/// One face of one model, as Triton's configuration files have it. Dimensions are without the batch.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ModelConfig {
    /// Its name.
    pub name: String,
    /// What runs it.
    pub platform: &'static str,
    /// The part of the server that runs it.
    pub backend: &'static str,
    /// Which versions are served.
    pub version_policy: VersionPolicy,
    /// Images in one request, at most.
    pub max_batch_size: usize,
    /// What it takes.
    pub input: Vec<InputConfig>,
    /// What it returns.
    pub output: Vec<OutputConfig>,
    /// Images of different requests share a run.
    pub dynamic_batching: DynamicBatching,
    /// Instances and where they run.
    pub instance_group: Vec<GroupConfig>,
    /// The graph's file, in Triton's layout.
    pub default_model_filename: &'static str,
    /// One answer for each request.
    pub model_transaction_policy: TransactionPolicy,
}

/// All versions that there are.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct VersionPolicy {
    /// An empty object.
    pub all: Empty,
}

/// An empty object.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct Empty {}

/// One input in a configuration.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct InputConfig {
    /// Its name.
    pub name: String,
    /// `TYPE_FP32`.
    pub data_type: &'static str,
    /// `FORMAT_NCHW`, `FORMAT_NHWC`, or `FORMAT_NONE` for photos.
    pub format: &'static str,
    /// Its dimensions without the batch.
    pub dims: Vec<i64>,
}

/// One output in a configuration.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct OutputConfig {
    /// Its name.
    pub name: String,
    /// `TYPE_FP32`.
    pub data_type: &'static str,
    /// Its dimensions without the batch.
    pub dims: Vec<i64>,
    /// That its values have labels; empty if not.
    pub label_filename: &'static str,
}

/// How images of different requests share a run.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DynamicBatching {
    /// Images of a run, at most.
    pub preferred_batch_size: Vec<usize>,
    /// How long an image waits for company while cores are free.
    pub max_queue_delay_microseconds: u64,
}

/// Equal instances.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct GroupConfig {
    /// Name of the group.
    pub name: String,
    /// `KIND_CPU` or `KIND_GPU`.
    pub kind: &'static str,
    /// How many.
    pub count: usize,
}

/// How requests and answers pair.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TransactionPolicy {
    /// An answer may come in parts: never here.
    pub decoupled: bool,
}

impl Oip {
    /// What the server is.
    #[must_use]
    pub fn server(&self) -> ServerMetadata {
        ServerMetadata { name: "residual", version: env!("CARGO_PKG_VERSION"), extensions: EXTENSIONS.to_vec() }
    }

    /// What a model takes and returns.
    ///
    /// # Errors
    /// [`OipError`] if it is not served.
    pub fn metadata(&self, name: &str, version: Option<&str>) -> Result<ModelMetadata, OipError> {
        self.admit()?;
        let face = self.face(name, version)?;
        let model = &face.engine().spec().name;
        let versions = self.models.rows().into_iter().filter(|row| row.name == *model && row.handle.is_some());
        Ok(ModelMetadata {
            name: face.name(),
            versions: versions.map(|row| row.version.to_string()).collect(),
            platform: platform(&face),
            inputs: vec![input(&face)],
            outputs: outputs(&face),
        })
    }

    /// Images that one request may have: of tensors no more than fit into its bytes.
    fn images_max(&self, face: &Face) -> usize {
        let max = self.limits.request_images_max;
        match face {
            Face::Tensor(engine) => {
                let sample = engine.spec().sample_shape.len() * engine.contract().signature.input.element.bytes();
                // 1 KiB is for what goes with them.
                let fit = self.limits.request_bytes_max.saturating_sub(1024) / sample as u64;
                max.min(usize::try_from(fit).unwrap_or(usize::MAX)).max(1)
            }
            Face::Image(_) => max,
        }
    }

    /// How a model is served.
    ///
    /// # Errors
    /// [`OipError`] if it is not served.
    pub fn config(&self, name: &str, version: Option<&str>) -> Result<ModelConfig, OipError> {
        self.admit()?;
        let face = self.face(name, version)?;
        let execution = face.engine().execution();
        let input = input(&face);
        let output = |output: TensorMetadata| OutputConfig {
            data_type: output.datatype.config_name(),
            dims: output.shape[1..].to_vec(),
            label_filename: if [CLASS_INDEX, LABEL].contains(&output.name.as_str()) { "" } else { LABEL_FILE },
            name: output.name,
        };
        let (name, kind) = (face.name(), kind(execution.provider));
        let groups = execution.layout.instance_groups.iter().enumerate();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a delay of seconds at most")]
        let delay = (execution.batch_delay_ms * 1e3) as u64;
        Ok(ModelConfig {
            platform: platform(&face),
            backend: match face {
                Face::Tensor(_) => "onnxruntime",
                Face::Image(_) => "residual",
            },
            version_policy: VersionPolicy { all: Empty {} },
            max_batch_size: self.images_max(&face),
            input: vec![InputConfig {
                data_type: input.datatype.config_name(),
                format: format(&face),
                dims: input.shape[1..].to_vec(),
                name: input.name,
            }],
            output: outputs(&face).into_iter().map(output).collect(),
            dynamic_batching: DynamicBatching {
                preferred_batch_size: vec![execution.batch_images_max],
                max_queue_delay_microseconds: delay,
            },
            instance_group: groups
                .map(|(index, group)| GroupConfig { name: format!("{name}_{index}"), kind, count: group.instances })
                .collect(),
            default_model_filename: "model.onnx",
            model_transaction_policy: TransactionPolicy { decoupled: false },
            name,
        })
    }
}

/// What a face takes.
pub(super) fn input(face: &Face) -> TensorMetadata {
    match face {
        Face::Tensor(engine) => graph_input(engine),
        Face::Image(_) => {
            TensorMetadata { name: IMAGE_INPUT.to_owned(), datatype: Datatype::Bytes, shape: vec![-1, 1] }
        }
    }
}

/// The graph's own input, with the height and width that are served.
pub(super) fn graph_input(engine: &Handle) -> TensorMetadata {
    let input = &engine.contract().signature.input;
    let SampleShape { height, width } = engine.spec().sample_shape;
    let (height, width) = (i64::from(height), i64::from(width));
    let shape = match input.layout {
        TensorLayout::Nchw => vec![-1, 3, height, width],
        TensorLayout::Nhwc => vec![-1, height, width, 3],
    };
    TensorMetadata { name: input.name.clone(), datatype: input.element.into(), shape }
}

/// What a face returns.
pub(super) fn outputs(face: &Face) -> Vec<TensorMetadata> {
    let tensor =
        |name: &str, datatype, width| TensorMetadata { name: name.to_owned(), datatype, shape: vec![-1, width] };
    let width = i64::try_from(width(face)).unwrap_or(i64::MAX);
    let scores: Datatype = scores_element(face).into();
    match face {
        Face::Tensor(engine) => vec![tensor(&engine.contract().signature.output.name, scores, width)],
        Face::Image(_) => vec![
            tensor(PROBABILITIES, scores, width),
            tensor(CLASS_INDEX, Datatype::Int64, 1),
            tensor(LABEL, Datatype::Bytes, 1),
        ],
    }
}

/// Values of one image in the output that holds the scores.
pub(super) fn width(face: &Face) -> usize {
    match face {
        Face::Tensor(engine) => engine.contract().signature.output.width(),
        Face::Image(engine) => engine.spec().labels.len(),
    }
}

/// Type of those values.
pub(super) fn scores_element(face: &Face) -> Element {
    match face {
        Face::Tensor(engine) => engine.contract().signature.output.element,
        Face::Image(_) => Element::F32,
    }
}

fn platform(face: &Face) -> &'static str {
    match face {
        Face::Tensor(_) => PLATFORM_GRAPH,
        Face::Image(_) => PLATFORM_IMAGE,
    }
}

fn format(face: &Face) -> &'static str {
    match face {
        Face::Tensor(engine) => match engine.contract().signature.input.layout {
            TensorLayout::Nchw => "FORMAT_NCHW",
            TensorLayout::Nhwc => "FORMAT_NHWC",
        },
        Face::Image(_) => "FORMAT_NONE",
    }
}

fn kind(provider: Provider) -> &'static str {
    match provider {
        Provider::Cpu | Provider::Openvino => "KIND_CPU",
        Provider::Cuda | Provider::Tensorrt => "KIND_GPU",
    }
}
