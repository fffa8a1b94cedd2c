//! Nodes that move, cut and lengthen an image without computing anything new.

use super::constant::{self, Constant};
use super::flat::Call;
use super::read::{as_constant, as_flow, layers_of};
use super::shape;
use super::{Dims, Fact, Flow, Op, Reader};

impl<'a> Reader<'a> {
    /// `Concat` of an image with zeros lengthens it; of images it is itself.
    pub(super) fn concat(&mut self, call: &Call<'a>, facts: &[Option<Fact<'a>>]) -> Fact<'a> {
        let flows: Vec<&Flow> = facts.iter().flatten().filter_map(as_flow).collect();
        let first = flows.first().copied().cloned().expect("a layer reads a flow");
        // The quantised form has scale and zero point of the result in front, and behind each input its own.
        let is_quantised = call.op() == "QLinearConcat";
        let parts = facts.iter().enumerate().filter(|(at, _)| !is_quantised || (*at >= 2 && (at - 2) % 3 == 0));
        let parts: Vec<&Option<Fact<'a>>> = parts.map(|(_, part)| part).collect();
        let rank = first.dims.as_ref().map_or(4, Vec::len);
        let axis = constant::axis(call.int("axis").unwrap_or(1), rank);
        let along = |fact: &Option<Fact<'a>>| match fact {
            Some(Fact::Flow(flow)) => flow.dims.as_ref()?.get(axis?).copied().flatten(),
            Some(Fact::Constant(constant)) => constant.dims.get(axis?).copied(),
            None => None,
        };
        let total = parts.iter().try_fold(0_u64, |sum, part| sum.checked_add(along(part)?));
        let mut dims = first.dims.clone();
        if let (Some(dims), Some(axis)) = (&mut dims, axis) {
            dims[axis] = total;
        }
        let is_zero = |fact: &&Option<Fact<'a>>| match fact {
            Some(Fact::Constant(constant)) => self.reads_zero(constant),
            Some(Fact::Flow(_)) | None => true,
        };
        let only_zeros = parts.iter().all(is_zero);
        let lengthens = flows.len() == 1 && only_zeros && axis == Some(first.channel_axis);
        let op = if lengthens { Op::Pad { on_channels: true } } else { Op::Concat };
        let inputs = layers_of(facts);
        self.push(op, &inputs, 0, Flow { dims, ..first })
    }

    /// Whether `constant` holds nothing but zeros; each tensor is read once.
    pub(super) fn reads_zero(&mut self, constant: &Constant<'a>) -> bool {
        *self.zeros.entry(constant.root).or_insert_with(|| constant.reads_zero())
    }

    pub(super) fn pad(
        &mut self,
        call: &Call<'a>,
        pads: Option<&Constant<'a>>,
        axes: Option<&Constant<'a>>,
        input: &Flow,
    ) -> Fact<'a> {
        let given = pads.and_then(Constant::ints);
        let given = given.or_else(|| call.ints("pads").or_else(|| call.ints("paddings")).map(<[i64]>::to_vec));
        let rank = input.dims.as_ref().map_or(4, Vec::len);
        let axes: Vec<usize> = match axes.and_then(Constant::ints) {
            Some(axes) => axes.iter().filter_map(|at| constant::axis(*at, rank)).collect(),
            None => (0..rank).collect(),
        };
        let mut dims = input.dims.clone();
        let mut on_channels = false;
        match given.filter(|given| given.len() == 2 * axes.len()) {
            Some(given) => {
                for (index, axis) in axes.iter().enumerate() {
                    let sum = i128::from(given[index]) + i128::from(given[index + axes.len()]);
                    on_channels |= *axis == input.channel_axis && sum > 0;
                    if let Some(dim) = dims.as_mut().map(|dims| &mut dims[*axis]) {
                        *dim = dim.and_then(|dim| u64::try_from(i128::from(dim) + sum).ok());
                    }
                }
            }
            None => dims = None,
        }
        let layer = input.layer;
        self.push(Op::Pad { on_channels }, &[layer], 0, Flow { dims, ..input.clone() })
    }

    /// Each part is a slice of its own.
    pub(super) fn split(&mut self, call: &Call<'a>, sizes: Option<&Constant<'a>>, input: &Flow) -> Option<Fact<'a>> {
        let rank = input.dims.as_ref().map_or(4, Vec::len);
        let axis = constant::axis(call.int("axis").unwrap_or(0), rank);
        let sizes = sizes.and_then(Constant::ints).or_else(|| call.ints("split").map(<[i64]>::to_vec));
        let parts = call.outputs.len() as u64;
        let mut first = None;
        for (index, output) in call.outputs.iter().enumerate() {
            let mut dims = input.dims.clone();
            if let (Some(dims), Some(axis)) = (&mut dims, axis) {
                let given = sizes.as_ref().map(|sizes| sizes.get(index).and_then(|size| u64::try_from(*size).ok()));
                dims[axis] = given.unwrap_or_else(|| dims[axis].and_then(|all| all.checked_div(parts)));
            }
            let part = self.push(Op::Slice { steps: [1, 1] }, &[input.layer], 0, Flow { dims, ..input.clone() });
            match (index, output) {
                (0, _) => first = Some(part),
                (_, Some(output)) => self.facts[*output] = Some(part),
                (_, None) => {}
            }
        }
        first
    }

    pub(super) fn slice(&mut self, call: &Call<'a>, facts: &[Option<Fact<'a>>], input: &Flow) -> Fact<'a> {
        let list = |index: usize, name: &str| -> Option<Vec<i64>> {
            let given = facts.get(index).and_then(Option::as_ref).and_then(as_constant).and_then(Constant::ints);
            given.or_else(|| call.ints(name).map(<[i64]>::to_vec))
        };
        let (starts, ends) = (list(1, "starts").unwrap_or_default(), list(2, "ends").unwrap_or_default());
        let axes = list(3, "axes").unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = list(4, "steps").unwrap_or_else(|| vec![1; starts.len()]);
        let mut dims = input.dims.clone();
        let rank = input.dims.as_ref().map_or(4, Vec::len);
        let mut taken = [1; 2];
        for (index, axis) in axes.iter().enumerate() {
            let by = steps.get(index).map_or(1, |step| step.unsigned_abs().max(1));
            let Some(axis) = constant::axis(*axis, rank) else {
                continue;
            };
            // Rows and columns are the axes that are neither batch nor channels, in this order.
            let side = (1..axis).filter(|at| *at != input.channel_axis).count();
            if axis != 0 && axis != input.channel_axis && side < taken.len() {
                taken[side] = taken[side].max(by);
            }
            let (Some(start), Some(end)) = (starts.get(index), ends.get(index)) else {
                continue;
            };
            if let Some(dim) = dims.as_mut().map(|dims| &mut dims[axis]) {
                *dim = dim.and_then(|dim| {
                    let size = i128::from(dim);
                    let place = |at: i64| if at < 0 { i128::from(at) + size } else { i128::from(at) }.clamp(0, size);
                    u64::try_from((place(*end) - place(*start)).max(0)).ok().map(|kept| kept.div_ceil(by))
                });
            }
        }
        let layer = input.layer;
        self.push(Op::Slice { steps: taken }, &[layer], 0, Flow { dims, ..input.clone() })
    }
}

pub(super) fn transpose(call: &Call<'_>, input: Flow) -> Flow {
    let rank = input.dims.as_ref().map_or_else(|| call.ints("perm").map_or(0, <[i64]>::len), Vec::len);
    let Some(order) = constant::order(call, rank) else {
        return Flow { dims: None, ..input };
    };
    let channel_axis = order.iter().position(|axis| *axis == input.channel_axis).unwrap_or(1);
    let dims = input.dims.map(|dims| order.iter().map(|axis| dims[*axis]).collect());
    Flow { dims, channel_axis, ..input }
}

/// Another shape of the same values; where the target is not known neither is the shape.
pub(super) fn reshape(call: &Call<'_>, target: Option<&Constant<'_>>, input: &Flow) -> Flow {
    let target = target.and_then(Constant::ints);
    let axes = || target.clone().or_else(|| call.ints("axes").map(<[i64]>::to_vec));
    let dims = input.dims.as_deref();
    let dims: Dims = match call.op() {
        "Reshape" => {
            let target = target.clone().or_else(|| call.ints("shape").map(<[i64]>::to_vec));
            let unknown =
                |target: &[i64]| target.iter().map(|size| u64::try_from(*size).ok().filter(|size| *size > 0)).collect();
            target.and_then(|target| match dims {
                Some(dims) => constant::reshaped(dims, &target),
                None => (target.len() <= constant::RANK_MAX).then(|| unknown(&target)),
            })
        }
        "Flatten" => dims.and_then(|dims| {
            let at = usize::try_from(call.int("axis").unwrap_or(1)).ok().filter(|at| *at <= dims.len())?;
            let (rows, columns) = dims.split_at(at);
            Some(vec![shape::product(rows.iter().copied()), shape::product(columns.iter().copied())])
        }),
        "Squeeze" => dims.and_then(|dims| match axes() {
            Some(axes) => constant::squeezed(dims, Some(&axes)),
            // The first size is the batch, which only looks like a 1.
            None => Some(
                dims.iter().enumerate().filter(|(at, dim)| *at == 0 || **dim != Some(1)).map(|(_, dim)| *dim).collect(),
            ),
        }),
        _ => dims.and_then(|dims| constant::unsqueezed(dims, &axes()?)),
    };
    // In a flattened image the channels are second; wherever else they went, nobody asks any more.
    Flow { dims, channel_axis: 1, layer: input.layer }
}
