//! One copy of the weights for all sessions of a model on the CPU provider.
//!
//! ONNX Runtime optimises a graph when it loads it, and on x86 that includes writing the convolutions' weights anew in the
//! order of its kernels. Each session would do that for itself, keep its own copy, and take half a second for a ResNet-50.
//! So the first session also writes the optimised graph down; the weights are taken out of it, once, and every session is
//! loaded from what remains, without optimising again, and is lent the weights. Weights that a kernel packs once more are
//! packed once for all ([`PrepackedWeights`]).

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::{bf16, f16};
use ort::session::builder::{PrepackedWeights, SessionBuilder};
use ort::value::{DynValue, PrimitiveTensorElementType, Tensor};
use prost::Message as _;

use crate::graph::proto::DataType;
use crate::graph::{self, Weight, take_weights};

/// Smaller weights stay in the graph: they cost nothing, and shapes are among them.
const SHARED_BYTES_MIN: usize = 1024;

/// A file in memory that the runtime writes an optimised graph to.
#[derive(Debug)]
pub(super) struct Optimised {
    file: File,
    path: PathBuf,
    /// Deletes a file that has a name.
    _named: Option<tempfile::TempPath>,
}

/// An optimised graph and its weights, lent to any number of sessions.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    graph: Arc<[u8]>,
    weights: Arc<Vec<(String, Arc<DynValue>)>>,
    /// None where a kernel of the graph packs its weights and cannot share the result: those of int8 do not.
    prepacked: Option<PrepackedWeights>,
    /// Where weights outside of the file lie, which the runtime maps into memory once for all.
    folder: Option<PathBuf>,
}

impl Optimised {
    /// An empty file.
    pub(super) fn create() -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd as _;
            let file = File::from(rustix::fs::memfd_create("residual-graph", rustix::fs::MemfdFlags::CLOEXEC)?);
            let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
            Ok(Self { file, path, _named: None })
        }
        #[cfg(not(target_os = "linux"))]
        {
            let (file, path) = tempfile::NamedTempFile::new()?.into_parts();
            Ok(Self { file, path: path.to_path_buf(), _named: Some(path) })
        }
    }

    /// Where the runtime writes to.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the graph apart. Weights outside of the file are in `folder`.
    pub(super) fn share(mut self, folder: Option<PathBuf>) -> Result<Shared, String> {
        let mut bytes = Vec::new();
        self.file.rewind().and_then(|()| self.file.read_to_end(&mut bytes)).map_err(|error| error.to_string())?;
        // Its memory, before that of the weights is taken.
        drop(self);
        let mut model = graph::decode(bytes.into()).map_err(|error| error.to_string())?;
        let taken = take_weights(&mut model, SHARED_BYTES_MIN);
        let mut weights = Vec::with_capacity(taken.len());
        for weight in taken {
            let value = value(&weight)?;
            weights.push((weight.name, Arc::new(value)));
        }
        let graph = model.encode_to_vec().into();
        Ok(Shared { graph, weights: Arc::new(weights), prepacked: Some(PrepackedWeights::new()), folder })
    }
}

impl Shared {
    /// The same, and each session packs for itself.
    pub(super) fn without_packing(&self) -> Self {
        Self { prepacked: None, ..self.clone() }
    }

    /// Loads one more session.
    pub(super) fn commit(&self, mut builder: SessionBuilder) -> Result<ort::session::Session, ort::Error> {
        if let Some(prepacked) = &self.prepacked {
            builder = builder.with_prepacked_weights(prepacked)?;
        }
        if let Some(folder) = &self.folder {
            builder = builder.with_config_entry(super::session::WEIGHTS_FOLDER, folder.to_string_lossy())?;
        }
        for (name, value) in self.weights.iter() {
            // The first call puts the weight in the place that the graph left open, and would copy it; the second makes
            // the session use ours.
            builder = builder.with_external_initializer(name, Arc::clone(value))?;
            builder = builder.with_initializer(name, Arc::clone(value))?;
        }
        builder.commit_from_memory(&self.graph)
    }
}

/// A weight as the runtime takes it, in memory of its own.
fn value(weight: &Weight) -> Result<DynValue, String> {
    fn tensor<T: PrimitiveTensorElementType + std::fmt::Debug + Clone + 'static, const N: usize>(
        weight: &Weight,
        read: fn([u8; N]) -> T,
    ) -> Result<DynValue, String> {
        let (chunks, rest) = weight.bytes.as_chunks::<N>();
        let values: Vec<T> = chunks.iter().map(|&chunk| read(chunk)).collect();
        let text = |error: ort::Error| format!("weight {:?}: {error}", weight.name);
        if !rest.is_empty() {
            return Err(format!("weight {:?} ends inside a value", weight.name));
        }
        Tensor::from_array((weight.dims.clone(), values)).map(Tensor::into_dyn).map_err(text)
    }
    match weight.data_type {
        DataType::Float => tensor(weight, f32::from_le_bytes),
        DataType::Double => tensor(weight, f64::from_le_bytes),
        DataType::Float16 => tensor(weight, f16::from_le_bytes),
        DataType::Bfloat16 => tensor(weight, bf16::from_le_bytes),
        DataType::Int8 => tensor(weight, i8::from_le_bytes),
        DataType::Uint8 => tensor(weight, u8::from_le_bytes),
        DataType::Int32 => tensor(weight, i32::from_le_bytes),
        DataType::Int64 => tensor(weight, i64::from_le_bytes),
        other => Err(format!("weight {:?} is of type {other:?}, which is not shared", weight.name)),
    }
}
