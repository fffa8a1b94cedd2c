//! Pools, and what amounts to one.

use super::constant::{self, Constant};
use super::flat::Call;
use super::shape::{self, Moves};
use super::{Fact, Flow, Op, Reader, Window};

impl<'a> Reader<'a> {
    pub(super) fn pool(&mut self, call: &Call<'a>, input: &Flow) -> Fact<'a> {
        let kernel = call.ints("kernel_shape").unwrap_or_default();
        let kernel: Vec<u64> = kernel.iter().take(3).map(|size| u64::try_from(*size).unwrap_or(1).max(1)).collect();
        let moves = Moves::of(call, kernel);
        let is_last = call.op() == "NhwcMaxPool" || call.int("channels_last") == Some(1);
        let channel_axis = if is_last { 3 } else { 1 };
        let sides = shape::spatial(&input.dims, channel_axis);
        let channels = input.dims.as_ref().and_then(|dims| dims.get(channel_axis).copied().flatten());
        let is_average = !matches!(call.op(), "MaxPool" | "NhwcMaxPool");
        let covers =
            |sides: &Vec<Option<u64>>| sides.iter().zip(&moves.kernel).all(|(side, size)| *side == Some(*size));
        let is_global = is_average && !moves.pads() && sides.as_ref().is_some_and(covers);
        let placed = sides
            .filter(|sides| sides.len() == moves.kernel.len())
            .map(|sides| sides.iter().enumerate().map(|(axis, side)| moves.places(axis, *side)).collect());
        let dims = placed.and_then(|sides| shape::image(channels, sides, channel_axis));
        let layer = input.layer;
        let flow = Flow { dims, channel_axis, ..input.clone() };
        let window = Window { kernel: moves.kernel, stride: moves.stride, is_global };
        self.push(if is_average { Op::AveragePool(window) } else { Op::MaxPool(window) }, &[layer], 0, flow)
    }

    pub(super) fn global_pool(&mut self, input: &Flow, keeps: bool) -> Fact<'a> {
        let channels = input.dims.as_ref().and_then(|dims| dims.get(input.channel_axis).copied().flatten());
        let dims = match input.dims.as_ref().map(Vec::len) {
            Some(rank) if keeps && rank > 2 => shape::image(channels, vec![Some(1); rank - 2], input.channel_axis),
            Some(_) if !keeps => Some(vec![Some(1), channels]),
            Some(_) | None => None,
        };
        let flow = Flow { dims, ..input.clone() };
        self.push(Op::GlobalPool, &[flow.layer], 0, flow)
    }

    /// A mean over exactly the spatial axes is a global pool.
    pub(super) fn reduce_mean(
        &mut self,
        call: &Call<'a>,
        axes: Option<&Constant<'a>>,
        input: &Flow,
    ) -> Option<Fact<'a>> {
        let rank = input.dims.as_ref().map_or(4, Vec::len);
        let given = axes.and_then(Constant::ints).or_else(|| call.ints("axes").map(<[i64]>::to_vec));
        let mut axes: Vec<usize> =
            given.unwrap_or_default().iter().filter_map(|at| constant::axis(*at, rank)).collect();
        axes.sort_unstable();
        let spatial: Vec<usize> = (1..rank).filter(|at| *at != input.channel_axis).collect();
        if axes == spatial && rank > 2 {
            return Some(self.global_pool(input, call.int("keepdims").unwrap_or(1) == 1));
        }
        let layer = input.layer;
        Some(self.push(Op::Other(call.op()), &[layer], 0, Flow { dims: None, ..input.clone() }))
    }
}
