//! Trained weights from a safetensors file: which network they belong to, and their numbers for the graph builder.
//!
//! The network is found from names and shapes alone. What these cannot tell comes from [`Hints`]: where a bottleneck
//! has its stride.

mod config;
mod detect;
mod file;
mod naming;

use std::fmt;

pub use config::{ConfigError, Hints};
pub use file::{FileError, HEADER_BYTES_MAX, WeightsFile};
pub use naming::Naming;

use crate::graph::build::{Architecture, BatchNorm, Network, Weights};

/// Batch norm's epsilon is not saved with the weights. All three libraries use PyTorch's default in their ResNets.
const EPSILON: f32 = 1e-5;

/// Tensors that an error names before it only counts.
const NAMED_TENSORS_MAX: usize = 6;

/// Why the tensors of a file are no network that can be built.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// No naming fits.
    #[error(
        "these are no ResNet weights that are known here: there is neither layer1.0.conv1.weight (torchvision, timm) nor \
         stages.0.blocks.0.conv1.weight (timm's resnetv2) nor resnet.encoder.stages.0.layers.0.layer.0.convolution.weight \
         (transformers); found {found}"
    )]
    Naming {
        /// Some of the names.
        found: Names,
    },
    /// A tensor that decides on the network is missing.
    #[error("tensor {name} is missing{advice}")]
    Missing {
        /// Its name in the file.
        name: String,
        /// What that may mean.
        advice: &'static str,
    },
    /// A tensor has a shape that no ResNet has.
    #[error("tensor {name} has the shape {found:?}; {expected}")]
    Shape {
        /// Its name in the file.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// What it should be.
        expected: String,
    },
    /// Names and shapes say one network, and not all of its tensors are there, or others are.
    #[error("the weights look like {architecture}, {}{advice}", differences(missing, unexpected))]
    Differs {
        /// The network that was recognised.
        architecture: String,
        /// Its tensors that are not in the file, by their names there.
        missing: Names,
        /// Tensors in the file that it does not have.
        unexpected: Names,
        /// What that may mean.
        advice: &'static str,
    },
}

/// A list of tensors that shows the first few.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(Vec<String>);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(NAMED_TENSORS_MAX)];
        f.write_str(if shown.is_empty() { "nothing" } else { "" })?;
        f.write_str(&shown.join(", "))?;
        match self.0.len() - shown.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

fn differences(missing: &Names, unexpected: &Names) -> String {
    match (missing.0.is_empty(), unexpected.0.is_empty()) {
        (false, true) => format!("but lack {missing}"),
        (true, _) => format!("but also have {unexpected}"),
        (false, false) => format!("but lack {missing}, and also have {unexpected}"),
    }
}

/// Weights of a network that was recognised and of which every tensor is there, with its right shape.
#[derive(Debug)]
pub struct Checkpoint {
    file: WeightsFile,
    naming: Naming,
    prefix: &'static str,
    architecture: Architecture,
    network: Network,
}

impl Checkpoint {
    /// Recognises the network in `file`.
    ///
    /// # Errors
    /// Where the tensors are no ResNet's, or one of another kind than can be built.
    pub fn new(file: WeightsFile, hints: Hints) -> Result<Self, WeightsError> {
        let prefix = detect::prefix(&file);
        let naming = Naming::of(|name| file.shape(&format!("{prefix}{name}")).is_some()).ok_or_else(|| {
            WeightsError::Naming { found: Names(file.shapes().map(|(name, _)| name.to_owned()).collect()) }
        })?;
        let architecture = detect::architecture(&file, naming, prefix, hints)?;
        let network = Network::new(&architecture);
        let checkpoint = Self { file, naming, prefix, architecture, network };
        checkpoint.check()?;
        Ok(checkpoint)
    }

    /// The network that the weights belong to.
    #[must_use]
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Its layers.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Whose names the tensors have.
    #[must_use]
    pub fn naming(&self) -> Naming {
        self.naming
    }

    /// Holds the file's tensors against the network's, both ways.
    fn check(&self) -> Result<(), WeightsError> {
        let mut missing = Vec::new();
        let mut known = std::collections::BTreeSet::new();
        for parameter in self.network.parameters() {
            let name = self.in_file(&parameter.name);
            match self.file.shape(&name) {
                None => missing.push(name.clone()),
                Some(found) if fits(found, &parameter.shape) => {}
                Some(found) => {
                    let expected = format!("{} would have {:?} there", self.architecture, parameter.shape);
                    return Err(WeightsError::Shape { name, found: found.to_vec(), expected });
                }
            }
            known.insert(name);
        }
        let unexpected: Vec<String> = self
            .file
            .shapes()
            .map(|(name, _)| name)
            // How many batches the running statistics have seen; nothing is computed from it.
            .filter(|name| !known.contains(*name) && !name.ends_with(".num_batches_tracked"))
            .map(str::to_owned)
            .collect();
        if missing.is_empty() && unexpected.is_empty() {
            return Ok(());
        }
        let advice = if unexpected.iter().any(|name| name.contains(".se.")) {
            "; squeeze-and-excitation networks cannot be converted, export the model to ONNX instead"
        } else if !missing.is_empty() && missing.iter().all(|name| name.contains(".running_")) {
            "; networks with group norm instead of batch norm cannot be converted, export the model to ONNX instead"
        } else {
            ""
        };
        let architecture = self.architecture.to_string();
        Err(WeightsError::Differs { architecture, missing: Names(missing), unexpected: Names(unexpected), advice })
    }

    fn in_file(&self, name: &str) -> String {
        format!("{}{}", self.prefix, self.naming.in_file(name))
    }
}

/// timm's newer heads are 1x1 convolutions: `[classes, channels, 1, 1]` holds the same numbers as `[classes, channels]`.
fn fits(found: &[usize], expected: &[usize]) -> bool {
    found.strip_prefix(expected).is_some_and(|rest| rest.iter().all(|&side| side == 1))
}

impl Weights for Checkpoint {
    type Error = FileError;

    fn weight(&mut self, name: &str, _shape: &[usize]) -> Result<Vec<f32>, FileError> {
        // The shape was checked when the file was recognised.
        self.file.read(&self.in_file(name))
    }

    fn bias(&mut self, name: &str, _len: usize) -> Result<Vec<f32>, FileError> {
        self.file.read(&self.in_file(name))
    }

    fn batch_norm(&mut self, name: &str, _channels: usize) -> Result<BatchNorm, FileError> {
        let mut read = |suffix: &str| self.file.read(&self.in_file(&format!("{name}.{suffix}")));
        Ok(BatchNorm {
            scale: read("weight")?,
            bias: read("bias")?,
            mean: read("running_mean")?,
            variance: read("running_var")?,
            epsilon: EPSILON,
        })
    }
}

#[cfg(test)]
mod tests;
