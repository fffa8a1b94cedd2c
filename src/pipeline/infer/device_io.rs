//! Batches on their way to a GPU and scores on their way back, through page-locked ("pinned") memory.
//!
//! From ordinary memory the driver copies a batch twice, and the caller waits. Here each batch is written to a tensor in
//! pinned memory that is kept for the next batch of that size, and bound to the session: the copy to the GPU is queued on
//! the session's own stream, beside whatever another session computes.

use std::collections::HashMap;

use half::{bf16, f16};
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, Session, SessionOutputs};
use ort::value::{PrimitiveTensorElementType, Tensor};

use super::tensors::Values;
use super::{Batch, Brake};

/// The pinned tensors of one session.
#[derive(Debug)]
pub(super) struct DeviceIo {
    binding: IoBinding,
    allocator: Allocator,
    output: MemoryInfo<'static>,
    tensors: Tensors,
}

/// One tensor for each number of images that a run had so far; batches come in few sizes.
#[derive(Debug, Default)]
struct Tensors {
    u8: HashMap<usize, Tensor<u8>>,
    f16: HashMap<usize, Tensor<f16>>,
    bf16: HashMap<usize, Tensor<bf16>>,
    f32: HashMap<usize, Tensor<f32>>,
    f64: HashMap<usize, Tensor<f64>>,
}

impl DeviceIo {
    /// Pinned memory of GPU `device`.
    pub(super) fn pinned(session: &Session, device: u32) -> Result<Self, ort::Error> {
        let device = i32::try_from(device).unwrap_or(i32::MAX);
        let memory = |kind| MemoryInfo::new(AllocationDevice::CUDA_PINNED, device, AllocatorType::Device, kind);
        Self::new(session, memory(MemoryType::CPUInput)?, memory(MemoryType::CPUOutput)?)
    }

    fn new(session: &Session, input: MemoryInfo<'static>, output: MemoryInfo<'static>) -> Result<Self, ort::Error> {
        let (binding, allocator) = (session.create_binding()?, Allocator::new(session, input)?);
        Ok(Self { binding, allocator, output, tensors: Tensors::default() })
    }

    /// Runs `batch`. The scores are in memory that the CPU can read when this returns.
    pub(super) fn run<'s>(
        &'s mut self,
        session: &'s mut Session,
        brake: &'s Brake,
        batch: &Batch,
        input: &str,
        output: &str,
    ) -> Result<SessionOutputs<'s>, ort::Error> {
        let Self { binding, allocator, output: memory, tensors } = self;
        let shape = batch.dimensions();
        match batch.values() {
            Values::U8(values) => bind(binding, allocator, &mut tensors.u8, input, shape, values),
            Values::F16(values) => bind(binding, allocator, &mut tensors.f16, input, shape, values),
            Values::Bf16(values) => bind(binding, allocator, &mut tensors.bf16, input, shape, values),
            Values::F32(values) => bind(binding, allocator, &mut tensors.f32, input, shape, values),
            Values::F64(values) => bind(binding, allocator, &mut tensors.f64, input, shape, values),
        }?;
        binding.bind_output_to_device(output, memory)?;
        let outputs = session.run_binding_with_options(binding, brake.options())?;
        Ok(outputs)
    }
}

fn bind<T: PrimitiveTensorElementType + std::fmt::Debug + Copy + 'static>(
    binding: &mut IoBinding,
    allocator: &Allocator,
    tensors: &mut HashMap<usize, Tensor<T>>,
    input: &str,
    shape: [usize; 4],
    values: &[T],
) -> Result<(), ort::Error> {
    let tensor = match tensors.entry(shape[0]) {
        std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
        std::collections::hash_map::Entry::Vacant(entry) => entry.insert(Tensor::new(allocator, shape)?),
    };
    tensor.extract_tensor_mut().1.copy_from_slice(values);
    binding.bind_input(input, tensor)
}
