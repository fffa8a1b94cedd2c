//! Networks that `synth` writes, counted by `inspect`: two ways that share no code must come to the published numbers.

use residual::graph::build::{BatchNorm, BatchNormForm, GraphForm, Network, Weights, build, named};
use residual::graph::summarise;

/// Numbers that cost no time: only shapes are counted.
struct Zeros;

impl Weights for Zeros {
    type Error = std::convert::Infallible;

    fn weight(&mut self, _: &str, shape: &[usize]) -> Result<Vec<f32>, Self::Error> {
        Ok(vec![0.0; shape.iter().product()])
    }

    fn bias(&mut self, _: &str, len: usize) -> Result<Vec<f32>, Self::Error> {
        Ok(vec![0.0; len])
    }

    fn batch_norm(&mut self, _: &str, channels: usize) -> Result<BatchNorm, Self::Error> {
        let of = |value| vec![value; channels];
        Ok(BatchNorm { scale: of(1.0), bias: of(0.0), mean: of(0.0), variance: of(1.0), epsilon: 1e-5 })
    }
}

#[test]
fn parameters_macs_and_shortcuts_are_those_that_were_published() {
    // Parameters and GMACs: torchvision's documentation of its ResNets. ResNet-20: He et al. 2015, section 4.2, and
    // its 0.27 M parameters in table 6, the MACs by hand from its layers.
    for (name, parameters, gmacs, identity, projection, zero_pad) in [
        ("resnet18", 11_689_512, 1.814, 5, 3, 0),
        ("resnet34", 21_797_672, 3.664, 13, 3, 0),
        ("resnet50", 25_557_032, 4.089, 12, 4, 0),
        ("resnet101", 44_549_160, 7.801, 29, 4, 0),
        ("resnet152", 60_192_808, 11.514, 46, 4, 0),
        ("resnet20", 269_722, 0.040_551, 7, 0, 2),
    ] {
        let (architecture, dataset) = named(name, None, None).unwrap();
        let form = GraphForm { batch_norm: BatchNormForm::Explicit, size: dataset.size(), ..GraphForm::default() };
        let model = build(&Network::new(&architecture), &form, &mut Zeros).unwrap();
        let summary = summarise(&model, None);
        assert_eq!(summary.parameters, parameters, "{name}");
        let macs = summary.macs.unwrap() as f64 / 1e9;
        assert!((macs / gmacs - 1.0).abs() < 0.005, "{name}: {macs} GMACs, published {gmacs}");
        let found = (summary.shortcuts.identity, summary.shortcuts.projection, summary.shortcuts.zero_pad);
        assert_eq!(found, (identity, projection, zero_pad), "{name}");
    }
}
