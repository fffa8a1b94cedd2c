//! A model as a network of layers: constants resolved, exporters' detours taken out, one kind of layer where ONNX has
//! ten operators. What the network is called is left to others.

mod constant;
mod flat;
mod fold;
mod layer;
mod pool;
mod read;
mod rearrange;
mod shape;
mod weights;

use std::collections::{BTreeMap, HashMap};

use super::proto::{DimensionValue, ModelProto, TypeValue, ValueInfoProto};
use constant::{Constant, RANK_MAX};
use flat::{Call, Flat, ValueId};
pub(super) use layer::{Conv, Dense, Layer, LayerId, Op, Window};
pub(super) use shape::Dims;

/// Sizes that are assumed where neither the file nor the caller says: what ImageNet and CIFAR networks were trained on.
const SIDE_ASSUMED: u64 = 224;
const SIDE_ASSUMED_SMALL: u64 = 32;

/// Where the size of the image comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SizeSource {
    /// The caller.
    Given,
    /// The file.
    File,
    /// Neither.
    Assumed,
}

/// How a file stores its weights and does its arithmetic, as its operators tell.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Quantised {
    /// Activations are converted to integers and back.
    pub(super) pairs: bool,
    /// Weights alone are.
    pub(super) weights: bool,
    /// Layers compute on integers.
    pub(super) operators: bool,
    /// Scales are computed for each image.
    pub(super) dynamic: bool,
}

/// A model as a network. See the module.
pub(super) struct View<'a> {
    /// In an order in which they can run.
    pub(super) layers: Vec<Layer<'a>>,
    /// Width and height of the image.
    pub(super) size: Option<(u64, u64)>,
    pub(super) size_source: SizeSource,
    pub(super) quantised: Quantised,
    /// How often each operator occurs, functions taken apart.
    pub(super) operators: BTreeMap<String, u64>,
    /// Whether functions were too large to be taken apart.
    pub(super) is_cut: bool,
}

/// What is known about a tensor.
#[derive(Clone, Debug)]
enum Fact<'a> {
    Constant(Constant<'a>),
    Flow(Flow),
}

/// A tensor that depends on the image: the result of a layer, perhaps in another shape.
#[derive(Clone, Debug)]
struct Flow {
    layer: LayerId,
    dims: Dims,
    /// Where its channels are.
    channel_axis: usize,
}

/// The state of reading one model from its first node to its last.
struct Reader<'a> {
    facts: Vec<Option<Fact<'a>>>,
    layers: Vec<Layer<'a>>,
    /// Answers of [`Constant::reads_zero`].
    zeros: HashMap<ValueId, bool>,
    quantised: Quantised,
    /// Whether a layer with weights has been seen; before it, constants normalise the image.
    has_weights: bool,
}

impl<'a> View<'a> {
    /// Reads `model`; `size` is width and height of the image where the caller wants others than the file's.
    pub(super) fn new(model: &'a ModelProto, size: Option<(u32, u32)>) -> Self {
        let flat = Flat::new(model);
        let given = size.map(|(width, height)| (u64::from(width), u64::from(height)));
        let image = image_input(&flat);
        let fixed = image.and_then(|(index, is_nhwc)| sides(flat.inputs[index].1, is_nhwc));
        let mut reader = Reader::new(&flat, image, given.or(fixed));
        for call in &flat.calls {
            reader.read(call);
        }
        let (size, size_source) = match (given, fixed) {
            (Some(size), _) => (Some(size), SizeSource::Given),
            (None, Some(size)) => (Some(size), SizeSource::File),
            (None, None) => (image.map(|_| assumed(&reader.layers)), SizeSource::Assumed),
        };
        if size_source == SizeSource::Assumed && size.is_some() {
            reader = Reader::new(&flat, image, size);
            for call in &flat.calls {
                reader.read(call);
            }
        }
        let mut operators = BTreeMap::new();
        for call in &flat.calls {
            let name = match call.domain() {
                "" | "ai.onnx" => call.op().to_owned(),
                domain => format!("{domain}.{}", call.op()),
            };
            *operators.entry(name).or_insert(0) += 1;
        }
        let Reader { layers, quantised, .. } = reader;
        Self { layers, size, size_source, quantised, operators, is_cut: flat.is_cut }
    }
}

impl<'a> Reader<'a> {
    /// Starts with what the graph is given: its weights, and an image of `size`, width and height.
    fn new(flat: &Flat<'a>, image: Option<(usize, bool)>, size: Option<(u64, u64)>) -> Self {
        let mut facts: Vec<Option<Fact<'a>>> = vec![None; flat.values];
        for (id, tensor) in &flat.constants {
            facts[*id] = Constant::of_tensor(*id, tensor).map(Fact::Constant);
        }
        let mut layers = Vec::new();
        for (index, (id, info)) in flat.inputs.iter().enumerate() {
            let mut dims = declared(info);
            let mut channel_axis = 1;
            if let Some((_, is_nhwc)) = image.filter(|(image, _)| *image == index) {
                let sides = size.map_or([None, None], |(width, height)| [Some(height), Some(width)]);
                channel_axis = if is_nhwc { 3 } else { 1 };
                let channels = dims.as_ref().and_then(|dims| dims.get(channel_axis).copied().flatten());
                dims = shape::image(channels, sides.to_vec(), channel_axis);
            }
            facts[*id] = Some(Fact::Flow(Flow { layer: layers.len(), dims: dims.clone(), channel_axis }));
            layers.push(Layer { op: Op::Input, inputs: Vec::new(), dims, parameters: 0, macs: Some(0) });
        }
        Self { facts, layers, zeros: HashMap::new(), quantised: Quantised::default(), has_weights: false }
    }
}

/// The input that is the image, and whether its channels come last: the first of rank 4, or whose rank is not told.
fn image_input(flat: &Flat<'_>) -> Option<(usize, bool)> {
    let is_image = |(_, info): &(ValueId, &ValueInfoProto)| declared(info).is_none_or(|dims| dims.len() == 4);
    let index = flat.inputs.iter().position(is_image)?;
    let (id, info) = flat.inputs[index];
    let dims = declared(info).unwrap_or_default();
    let few = |at: usize| matches!(dims.get(at), Some(Some(1 | 3 | 4)));
    let is_nhwc = match (few(1), few(3)) {
        (true, _) => false,
        (false, true) => true,
        (false, false) => transposes_to_nchw(flat, id),
    };
    Some((index, is_nhwc))
}

/// Whether the first node that reads `id` moves its channels from the end to the front.
fn transposes_to_nchw(flat: &Flat<'_>, id: ValueId) -> bool {
    let first = flat.calls.iter().find(|call: &&Call<'_>| call.inputs.contains(&Some(id)));
    first.is_some_and(|call| call.op() == "Transpose" && call.ints("perm") == Some(&[0, 3, 1, 2]))
}

/// The shape that an input is declared to have.
fn declared(info: &ValueInfoProto) -> Dims {
    let Some(TypeValue::Tensor(tensor)) = info.r#type.as_ref()?.value.as_ref() else {
        return None;
    };
    let dims = &tensor.shape.as_ref()?.dim;
    let size = |value: &Option<DimensionValue>| match value {
        Some(DimensionValue::Value(size)) => u64::try_from(*size).ok().filter(|size| *size > 0),
        Some(DimensionValue::Param(_)) | None => None,
    };
    (dims.len() <= RANK_MAX).then(|| dims.iter().map(|dim| size(&dim.value)).collect())
}

/// Width and height of a declared image, if both are fixed.
fn sides(info: &ValueInfoProto, is_nhwc: bool) -> Option<(u64, u64)> {
    let dims = declared(info)?;
    let (height, width) = if is_nhwc { (dims[1], dims[2]) } else { (dims[2], dims[3]) };
    Some((width?, height?))
}

/// The size that a network was made for, by how it begins: one that keeps every pixel of its input was made for small
/// images.
fn assumed(layers: &[Layer<'_>]) -> (u64, u64) {
    let mut first = layers.iter().filter(|layer| matches!(layer.op, Op::Conv(_) | Op::MaxPool(_)));
    let keeps =
        matches!(first.next().map(|layer| &layer.op), Some(Op::Conv(conv)) if conv.step() == 1 && conv.is_square(3));
    let pools = matches!(first.next().map(|layer| &layer.op), Some(Op::MaxPool(_)));
    let side = if keeps && !pools { SIDE_ASSUMED_SMALL } else { SIDE_ASSUMED };
    (side, side)
}
