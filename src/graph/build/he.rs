//! Numbers for a network that nobody trained: He initialisation, the same on every machine.

use std::collections::HashMap;
use std::convert::Infallible;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};

use super::network::{Network, Op};
use super::numbers::{BatchNorm, Weights};

/// PyTorch's default, which torchvision and timm keep.
const EPSILON: f32 = 1e-5;
/// How far scale, bias and mean of a batch norm stray from 1, 0 and 0, so that folding them is no empty act.
const SPREAD: f64 = 0.1;

/// Weights from a normal distribution with variance 2 / fan-out, 2 / fan-in for the classifier (He et al. 2015,
/// arXiv:1502.01852; fan-out as torchvision's ResNets). The tracked variance of each batch norm is what the layers before
/// it are expected to give, so that activations neither grow nor vanish with depth and f16 holds them.
///
/// A tensor depends on the seed and its name alone: folded or not, with 10 classes or 1000, it is the same. The
/// generator's stream is fixed by its definition (Blackman and Vigna 2018, xoshiro256++), and the only function beyond
/// IEEE 754's exact ones is a logarithm that is computed in software.
#[derive(Debug)]
pub struct HeWeights {
    seed: u64,
    /// For each batch norm, the mean square that its input is expected to have.
    mean_squares: HashMap<String, f64>,
}

impl HeWeights {
    /// Weights for `network`; another seed, other weights.
    #[must_use]
    pub fn new(network: &Network, seed: u64) -> Self {
        Self { seed, mean_squares: expected_mean_squares(network) }
    }

    fn normals(&self, name: &str, len: usize, deviation: f64) -> impl Iterator<Item = f64> + use<> {
        Normals::new(self.seed, name).take(len).map(move |normal| normal * deviation)
    }
}

impl Weights for HeWeights {
    type Error = Infallible;

    fn weight(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Infallible> {
        let fan = match shape {
            [out, _, height, width] => out * height * width,
            [_, inputs] => *inputs,
            _ => shape.iter().product(),
        };
        let deviation = (2.0 / fan.max(1) as f64).sqrt();
        Ok(self.normals(name, shape.iter().product(), deviation).map(|value| value as f32).collect())
    }

    fn bias(&mut self, _name: &str, len: usize) -> Result<Vec<f32>, Infallible> {
        Ok(vec![0.0; len])
    }

    fn batch_norm(&mut self, name: &str, channels: usize) -> Result<BatchNorm, Infallible> {
        let mean_square = self.mean_squares.get(name).copied().unwrap_or(1.0);
        let tensor = |suffix: &str, center: f64, spread: f64| {
            let normals = self.normals(&format!("{name}.{suffix}"), channels, spread);
            // Three deviations at most: a scale or a variance stays positive.
            normals.map(|value| (center + value.clamp(-3.0 * spread, 3.0 * spread)) as f32).collect()
        };
        Ok(BatchNorm {
            scale: tensor("weight", 1.0, SPREAD),
            bias: tensor("bias", 0.0, SPREAD),
            mean: tensor("running_mean", 0.0, SPREAD * mean_square.sqrt()),
            variance: tensor("running_var", mean_square, SPREAD * mean_square),
            epsilon: EPSILON,
        })
    }
}

/// What a batch norm will see if the picture is normalised: each layer's mean square, from those before it.
fn expected_mean_squares(network: &Network) -> HashMap<String, f64> {
    let layers = network.layers();
    let mut squares: Vec<f64> = Vec::with_capacity(layers.len());
    let mut norms = HashMap::new();
    for layer in layers {
        let from = layer.inputs.first().map_or(1.0, |&input| squares[input]);
        squares.push(match layer.op {
            Op::Input | Op::Subsample { .. } | Op::AveragePool { .. } | Op::GlobalAveragePool => from,
            // fan-in times the weights' variance, 2 / fan-out; the kernel's area is in both.
            Op::Conv { inputs, groups, .. } => from * 2.0 * inputs as f64 / (groups * layer.channels) as f64,
            Op::BatchNorm => {
                norms.insert(layer.name.clone(), from);
                1.0
            }
            // Half of what is centred at zero is lost. A sum's identity is positive and stays: here this is an upper
            // bound, and has to be one, since too small a bound would let each block multiply the next one's input.
            Op::Relu if layers[layer.inputs[0]].op == Op::Add => from,
            Op::Relu => from / 2.0,
            // Between 1, where neighbours agree, and 5, where nine of them are independent.
            Op::MaxPool => from * 3.0,
            Op::ZeroPad { .. } => from,
            Op::Add => layer.inputs.iter().map(|&input| squares[input]).sum(),
            Op::Linear { inputs } => from * 2.0 * inputs as f64,
        });
    }
    norms
}

/// Standard normal numbers by the polar method (Marsaglia and Bray 1964): two at a time from two uniform ones.
struct Normals {
    generator: Xoshiro256PlusPlus,
    spare: Option<f64>,
}

impl Normals {
    fn new(seed: u64, name: &str) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(seed.to_le_bytes());
        hasher.update(name.as_bytes());
        Self { generator: Xoshiro256PlusPlus::from_seed(hasher.finalize().into()), spare: None }
    }

    /// In -1..1.
    fn uniform(&mut self) -> f64 {
        // The upper 53 bits, as many as an f64 holds.
        (self.generator.next_u64() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}

impl Iterator for Normals {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        if let Some(spare) = self.spare.take() {
            return Some(spare);
        }
        loop {
            let (x, y) = (self.uniform(), self.uniform());
            let square = x * x + y * y;
            if square > 0.0 && square < 1.0 {
                // std's logarithm is the system's, and systems differ in the last bit.
                let factor = (-2.0 * libm::log(square) / square).sqrt();
                self.spare = Some(y * factor);
                return Some(x * factor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::super::names::named;
    use super::*;

    #[test]
    fn weights_have_the_variance_of_the_paper() {
        let network = Network::new(&named("resnet18", None, None).unwrap().0);
        let mut weights = HeWeights::new(&network, 0);
        for (name, shape, fan) in
            [("layer2.0.conv1.weight", &[128, 64, 3, 3][..], 128.0 * 9.0), ("fc.weight", &[1000, 512], 512.0)]
        {
            let values = weights.weight(name, shape).unwrap();
            let moment = |power: i32| {
                values.iter().map(|&value| f64::from(value).powi(power)).sum::<f64>() / values.len() as f64
            };
            let variance: f64 = 2.0 / fan;
            // Of 70,000 numbers and more: the mean's deviation is a 270th of one number's, the variance's 0.5 %.
            assert!(moment(1).abs() < 0.02 * variance.sqrt(), "{name}: {}", moment(1));
            assert!((moment(2) / variance - 1.0).abs() < 0.03, "{name}: {}", moment(2) / variance);
            // A normal distribution's fourth moment is three variances squared; a uniform one's 1.8.
            assert!((moment(4) / variance.powi(2) - 3.0).abs() < 0.2, "{name}: {}", moment(4) / variance.powi(2));
        }
    }

    #[test]
    fn the_stream_is_the_same_everywhere() {
        let mut hasher = Sha256::new();
        for value in Normals::new(42, "conv1.weight").take(10_000) {
            hasher.update((value as f32).to_le_bytes());
        }
        let hash: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, "e765a3d0cfcfe8c2a6fe7f73aca794572e5abedcc45d567ce7240c76b7c8b4c6");
    }

    #[test]
    fn expected_activations_grow_slowly_with_depth() {
        for name in ["resnet152", "resnet110", "resnet152-v2"] {
            let network = Network::new(&named(name, None, None).unwrap().0);
            let squares = expected_mean_squares(&network);
            let (least, most) =
                squares.values().fold((f64::MAX, 0.0_f64), |(least, most), &value| (least.min(value), most.max(value)));
            // Far from f16's 65504, and from its smallest normal number, 6e-5.
            assert!(least > 0.01 && most < 1000.0, "{name}: {least} {most}");
        }
    }
}
