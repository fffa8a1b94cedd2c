//! Which network a file's tensors belong to: stem, blocks, widths, groups and shortcuts from names and shapes.

use super::{Hints, Naming, WeightsError, WeightsFile};
use crate::graph::build::{Architecture, Block, CLASSES_MAX, Order, Shortcut, Stage, Stem};

/// What wrappers put before every name: `DataParallel`, and modules that hold the network in a field.
const PREFIXES: [&str; 3] = ["module.", "model.", "backbone."];

/// The prefix that all tensors share, or nothing.
pub(super) fn prefix(file: &WeightsFile) -> &'static str {
    let shared = |prefix: &&str| file.shapes().all(|(name, _)| name.starts_with(prefix));
    PREFIXES.into_iter().find(shared).unwrap_or_default()
}

/// Reads the network off the tensors. Only those are looked at that decide; that all others fit is checked by the caller.
pub(super) fn architecture(
    file: &WeightsFile,
    naming: Naming,
    prefix: &str,
    hints: Hints,
) -> Result<Architecture, WeightsError> {
    let tensors = Tensors { file, naming, prefix };
    let order = match naming {
        Naming::Torchvision | Naming::Transformers => Order::PostActivation,
        Naming::TimmV2 => Order::PreActivation,
    };
    let block = if tensors.has("layer1.0.conv3.weight") { Block::Bottleneck(hints.stride) } else { Block::Basic };
    let mut stages = Vec::new();
    while tensors.has(&format!("layer{}.0.conv1.weight", stages.len() + 1)) {
        let first = stages.is_empty() && !hints.first_stage_strides;
        stages.push(tensors.stage(stages.len() + 1, block, if first { 1 } else { 2 })?);
    }
    let Some([classes, _]) = tensors.sides("fc.weight")?.first_chunk().copied() else {
        return Err(tensors.wrong("fc.weight", "a classifier has [classes, channels]".to_owned()));
    };
    if classes > CLASSES_MAX {
        return Err(tensors.wrong("fc.weight", format!("at most {CLASSES_MAX} classes are possible")));
    }
    Ok(Architecture { stem: tensors.stem()?, block, order, shortcut: tensors.shortcut(&stages), stages, classes })
}

/// A file seen through our names.
struct Tensors<'a> {
    file: &'a WeightsFile,
    naming: Naming,
    prefix: &'a str,
}

impl Tensors<'_> {
    fn in_file(&self, name: &str) -> String {
        format!("{}{}", self.prefix, self.naming.in_file(name))
    }

    fn has(&self, name: &str) -> bool {
        self.file.shape(&self.in_file(name)).is_some()
    }

    /// A tensor's shape, without empty sides.
    fn sides(&self, name: &str) -> Result<&[usize], WeightsError> {
        let name_in_file = self.in_file(name);
        match self.file.shape(&name_in_file) {
            None if name.starts_with("fc.") => Err(WeightsError::Missing {
                name: name_in_file,
                advice: ": there is no classifier; these are the weights of a feature extractor",
            }),
            None => Err(WeightsError::Missing { name: name_in_file, advice: "" }),
            Some(sides) if sides.contains(&0) => Err(self.wrong(name, "no side may be empty".to_owned())),
            Some(sides) => Ok(sides),
        }
    }

    /// `[out, in / groups, kernel, kernel]` of a convolution.
    fn conv(&self, name: &str) -> Result<[usize; 4], WeightsError> {
        <[usize; 4]>::try_from(self.sides(name)?)
            .map_err(|_| self.wrong(name, "a convolution has [out, in, height, width]".to_owned()))
    }

    fn wrong(&self, name: &str, expected: String) -> WeightsError {
        let name = self.in_file(name);
        let found = self.file.shape(&name).unwrap_or_default().to_vec();
        WeightsError::Shape { name, found, expected }
    }

    fn stem(&self) -> Result<Stem, WeightsError> {
        if self.has("conv1.0.weight") {
            let mut widths = [0; 3];
            for (width, name) in widths.iter_mut().zip(["conv1.0.weight", "conv1.3.weight", "conv1.6.weight"]) {
                [*width, ..] = self.conv(name)?;
            }
            return Ok(Stem::Deep { widths });
        }
        match self.conv("conv1.weight")? {
            [width, 3, 7, 7] => Ok(Stem::Imagenet { width }),
            // Nothing tells whether pooling follows. Whoever trains with this stem, trains for small pictures, without.
            [width, 3, 3, 3] => Ok(Stem::Cifar { width }),
            _ => Err(self.wrong("conv1.weight", "[width, 3, 7, 7] or [width, 3, 3, 3] can be converted".to_owned())),
        }
    }

    /// Stage `number`, from 1.
    fn stage(&self, number: usize, block: Block, stride: usize) -> Result<Stage, WeightsError> {
        let name = |conv: &str| format!("layer{number}.0.{conv}.weight");
        let mut blocks = 1;
        while self.has(&format!("layer{number}.{blocks}.conv1.weight")) {
            blocks += 1;
        }
        let [inner, ..] = self.conv(&name("conv1"))?;
        let [_, inputs, ..] = self.conv(&name("conv2"))?;
        let (outer, groups) = match block {
            Block::Basic => (self.conv(&name("conv2"))?[0], 1),
            Block::Bottleneck(_) if inner % inputs == 0 => (self.conv(&name("conv3"))?[0], inner / inputs),
            Block::Bottleneck(_) => {
                return Err(
                    self.wrong(&name("conv2"), format!("its inputs must divide {inner}, the inputs of all groups"))
                );
            }
        };
        Ok(Stage { blocks, stride, inner, outer, groups })
    }

    fn shortcut(&self, stages: &[Stage]) -> Shortcut {
        let projects_always = stages
            .iter()
            .enumerate()
            .any(|(index, stage)| stage.blocks > 1 && self.has(&format!("layer{}.1.downsample.0.weight", index + 1)));
        // In torchvision's naming `downsample.1` is the batch norm; behind a pooling it is the convolution.
        let pooled = (1..=stages.len()).any(|number| {
            let name = self.in_file(&format!("layer{number}.0.downsample.1.weight"));
            self.file.shape(&name).is_some_and(|sides| sides.len() == 4)
        });
        match (pooled, projects_always) {
            (true, _) => Shortcut::PooledProjection,
            (false, true) => Shortcut::ProjectionAlways,
            (false, false) => Shortcut::Projection,
        }
    }
}
