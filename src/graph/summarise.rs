//! From a model to what Residual says about it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use super::external::{self, ExternalTensor};
use super::proto::{DataType, DimensionValue, ModelProto, TypeValue, ValueInfoProto};
use super::resnet::Network;
use super::summary::{Dim, ExternalSummary, InputSize, Port, Quantisation, QuantisationFormat, Summary, total};
use super::view::{Op, SizeSource, View};
use super::{GraphError, Printable};

/// Most inputs, outputs, external files and operators that are listed each; more are counted in a note.
const LIST_LEN_MAX: usize = 64;

/// Says what `model` is. `size` is width and height of the image, where the caller wants others than the file's.
#[must_use]
pub fn summarise(model: &ModelProto, size: Option<(u32, u32)>) -> Summary {
    let view = View::new(model, size);
    let network = Network::of(&view);
    let mut notes = network.notes.clone();
    if view.is_cut {
        notes.push("the file's functions call each other too often or in circles; not all were looked at".to_owned());
    }
    if view.size_source == SizeSource::Assumed
        && let Some((width, height)) = view.size
    {
        notes.push(format!("the file leaves the image's size free; counted for {width}x{height}"));
    }
    let graph = model.graph.as_ref();
    let weights: HashSet<&str> =
        graph.iter().flat_map(|graph| &graph.initializer).filter_map(|tensor| tensor.name.as_deref()).collect();
    let is_real = |info: &&ValueInfoProto| !weights.contains(info.name.as_deref().unwrap_or_default());
    let inputs: Vec<&ValueInfoProto> = graph.iter().flat_map(|graph| &graph.input).filter(is_real).collect();
    let outputs: Vec<&ValueInfoProto> = graph.iter().flat_map(|graph| &graph.output).collect();
    let external = files(&external::external_data(model).unwrap_or_default());
    for (what, len) in [("inputs", inputs.len()), ("outputs", outputs.len()), ("external files", external.len())] {
        if len > LIST_LEN_MAX {
            notes.push(format!("{len} {what}, {LIST_LEN_MAX} listed"));
        }
    }
    if view.operators.len() > LIST_LEN_MAX {
        notes.push(format!("{} kinds of operators, {LIST_LEN_MAX} listed", view.operators.len()));
    }
    let mut operators: Vec<(&String, &u64)> = view.operators.iter().collect();
    operators.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let parts = &network.parts;
    Summary {
        name: network.name.text.clone(),
        is_resnet: network.name.is_resnet,
        family: network.name.family.clone(),
        depth: network.name.depth,
        variant: network.name.variant.clone(),
        parameters: total(view.layers.iter().map(|layer| layer.parameters)),
        macs: view.layers.iter().try_fold(0_u64, |sum, layer| sum.checked_add(layer.macs?)),
        input_size: view.size.map(|(width, height)| InputSize { width, height, source: source(view.size_source) }),
        classes: view.layers.iter().rev().find_map(|layer| match &layer.op {
            Op::Dense(dense) => Some(dense.outputs),
            _ => None,
        }),
        stem: parts.stem.clone(),
        stages: parts.stages.clone(),
        head: parts.head.clone(),
        shortcuts: network.shortcuts,
        shortcut_option: network.shortcut_option,
        activation: network.activation,
        batch_norm: network.batch_norm,
        quantisation: Quantisation { format: format(&view), weights: network.data_type.map(data_type) },
        opset: opset(model),
        ir_version: model.ir_version,
        producer: producer(model),
        inputs: inputs.into_iter().take(LIST_LEN_MAX).map(port).collect(),
        outputs: outputs.into_iter().take(LIST_LEN_MAX).map(port).collect(),
        external_data: external.into_iter().take(LIST_LEN_MAX).collect(),
        operators: operators
            .into_iter()
            .take(LIST_LEN_MAX)
            .map(|(name, count)| (Printable(name).to_string(), *count))
            .collect(),
        notes,
    }
}

impl Summary {
    /// Looks which files of weights are there; `path` is that of the model.
    ///
    /// # Errors
    /// What [`check_external`](super::check_external) says about the first file that cannot be used. The summary is
    /// complete all the same.
    pub fn look_up_external(&mut self, path: &Path, model: &ModelProto) -> Result<(), GraphError> {
        let directory = path.parent().unwrap_or(Path::new(""));
        let parts = external::external_data(model)?;
        // In the order of the summary, whose texts may be cut.
        let locations: BTreeSet<&str> = parts.iter().map(|part| part.location.as_str()).collect();
        for (file, location) in self.external_data.iter_mut().zip(locations) {
            file.present = Some(directory.join(location).is_file());
        }
        super::check_external(path, model).map(|_| ())
    }
}

const fn source(source: SizeSource) -> &'static str {
    match source {
        SizeSource::Given => "given",
        SizeSource::File => "file",
        SizeSource::Assumed => "assumed",
    }
}

fn format(view: &View<'_>) -> QuantisationFormat {
    let quantised = view.quantised;
    if quantised.dynamic {
        QuantisationFormat::Dynamic
    } else if quantised.operators {
        QuantisationFormat::Qoperator
    } else if quantised.pairs {
        QuantisationFormat::Qdq
    } else if quantised.weights {
        QuantisationFormat::WeightOnly
    } else {
        QuantisationFormat::None
    }
}

/// The files that hold `parts`, each once.
fn files(parts: &[ExternalTensor]) -> Vec<ExternalSummary> {
    let mut files: BTreeMap<&str, ExternalSummary> = BTreeMap::new();
    for part in parts {
        let file = files.entry(&part.location).or_insert_with(|| ExternalSummary {
            location: Printable(&part.location).to_string(),
            tensors: 0,
            bytes: 0,
            present: None,
        });
        file.tensors += 1;
        file.bytes = file.bytes.max(part.offset.saturating_add(part.length.unwrap_or(0)));
    }
    files.into_values().collect()
}

fn opset(model: &ModelProto) -> Option<i64> {
    let standard = |domain: Option<&str>| matches!(domain, None | Some("" | "ai.onnx"));
    model.opset_import.iter().find(|opset| standard(opset.domain.as_deref()))?.version
}

fn producer(model: &ModelProto) -> Option<String> {
    let name = model.producer_name.as_deref().filter(|name| !name.is_empty())?;
    let version = model.producer_version.as_deref().filter(|version| !version.is_empty());
    let text = version.map_or_else(|| name.to_owned(), |version| format!("{name} {version}"));
    Some(Printable(&text).to_string())
}

fn port(info: &ValueInfoProto) -> Port {
    let value = info.r#type.as_ref().and_then(|kind| kind.value.as_ref());
    let (dtype, dims) = match value {
        Some(TypeValue::Tensor(tensor)) => {
            let dims = tensor.shape.as_ref().map(|shape| {
                let dim = |value: &Option<DimensionValue>| match value {
                    Some(DimensionValue::Value(size)) => Dim::Fixed(*size),
                    Some(DimensionValue::Param(name)) if !name.is_empty() => Dim::Named(Printable(name).to_string()),
                    Some(DimensionValue::Param(_)) | None => Dim::Free,
                };
                shape.dim.iter().take(LIST_LEN_MAX).map(|size| dim(&size.value)).collect()
            });
            (data_type(tensor.elem_type.unwrap_or(0)), dims)
        }
        Some(TypeValue::Sequence(_)) => ("sequence", None),
        Some(TypeValue::Map(_)) => ("map", None),
        Some(TypeValue::SparseTensor(_)) => ("sparse", None),
        Some(TypeValue::Optional(_)) => ("optional", None),
        None => ("unknown", None),
    };
    Port { name: Printable(info.name.as_deref().unwrap_or_default()).to_string(), dtype: dtype.to_owned(), dims }
}

/// The short name of a type of elements.
fn data_type(number: i32) -> &'static str {
    match DataType::try_from(number) {
        Ok(DataType::Undefined) | Err(_) => "unknown",
        Ok(DataType::Float) => "f32",
        Ok(DataType::Uint8) => "u8",
        Ok(DataType::Int8) => "i8",
        Ok(DataType::Uint16) => "u16",
        Ok(DataType::Int16) => "i16",
        Ok(DataType::Int32) => "i32",
        Ok(DataType::Int64) => "i64",
        Ok(DataType::String) => "string",
        Ok(DataType::Bool) => "bool",
        Ok(DataType::Float16) => "f16",
        Ok(DataType::Double) => "f64",
        Ok(DataType::Uint32) => "u32",
        Ok(DataType::Uint64) => "u64",
        Ok(DataType::Complex64) => "c64",
        Ok(DataType::Complex128) => "c128",
        Ok(DataType::Bfloat16) => "bf16",
        Ok(DataType::Float8e4m3fn | DataType::Float8e4m3fnuz | DataType::Float8e5m2 | DataType::Float8e5m2fnuz) => "f8",
        Ok(DataType::Uint4) => "u4",
        Ok(DataType::Int4) => "i4",
        Ok(DataType::Float4e2m1) => "f4",
    }
}

#[cfg(test)]
mod tests;
