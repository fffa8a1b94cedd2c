//! Networks for tests: which layers a ResNet has. How they are written into a graph is left to `net.rs`.

mod net;
mod pieces;

pub(crate) use net::{Net, Shape, Style};
pub(crate) use pieces::ints;

use super::proto::ModelProto;
use pieces::int;

/// How a network is built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) blocks: &'static [u64],
    pub(crate) is_bottleneck: bool,
    /// Channels of the first stage, before the fourfold of bottlenecks.
    pub(crate) base: u64,
    /// Channels inside a bottleneck for each 64 of the base.
    pub(crate) width: u64,
    pub(crate) groups: u64,
    pub(crate) stem: Stem,
    pub(crate) shortcut: Shortcut,
    /// The stride of bottlenecks lies in their first convolution.
    pub(crate) strides_early: bool,
    pub(crate) is_pre_activated: bool,
    pub(crate) has_batch_norm: bool,
    pub(crate) has_attention: bool,
    pub(crate) classes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stem {
    Plain,
    Deep,
    Small,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shortcut {
    A,
    B,
    C,
    AveragePool,
}

impl Plan {
    /// A ResNet v1.5 for ImageNet, batch norms explicit.
    pub(crate) const fn imagenet(blocks: &'static [u64], is_bottleneck: bool) -> Self {
        Self {
            blocks,
            is_bottleneck,
            base: 64,
            width: 64,
            groups: 1,
            stem: Stem::Plain,
            shortcut: Shortcut::B,
            strides_early: false,
            is_pre_activated: false,
            has_batch_norm: true,
            has_attention: false,
            classes: 1000,
        }
    }

    /// ResNet-20 for CIFAR-10.
    pub(crate) const fn cifar(shortcut: Shortcut) -> Self {
        Self { base: 16, stem: Stem::Small, shortcut, classes: 10, ..Self::imagenet(&[3, 3, 3], false) }
    }

    /// The model in `style`.
    pub(crate) fn model(&self, style: Style) -> ModelProto {
        let mut net = Net::new(style);
        let mut x = "x".to_owned();
        if style == Style::ChannelsLast {
            x = net.node("Transpose", &[&x], &[ints("perm", &[0, 3, 1, 2])]);
        }
        let x = self.stem(&mut net, &x);
        let mut x = x;
        let mut channels = if self.stem == Stem::Deep { 64 } else { self.base };
        for (stage, blocks) in self.blocks.iter().enumerate() {
            for block in 0..*blocks {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let base = self.base << stage;
                (x, channels) = self.block(&mut net, &x, channels, base, stride);
            }
        }
        if self.is_pre_activated {
            x = net.norm(&x, channels, true);
            x = net.relu(&x);
        }
        net.head(&x, channels, self.classes);
        net.model()
    }

    fn stem(&self, net: &mut Net, x: &str) -> String {
        let bn = self.has_batch_norm;
        let x = match self.stem {
            Stem::Plain => net.conv_norm(x, Shape { stride: 2, ..Shape::new(3, 64, 7) }, bn),
            Stem::Small => {
                return {
                    let x = net.conv_norm(x, Shape::new(3, self.base, 3), bn);
                    net.relu(&x)
                };
            }
            Stem::Deep => {
                let x = net.conv_norm(x, Shape { stride: 2, ..Shape::new(3, 32, 3) }, bn);
                let x = net.relu(&x);
                let x = net.conv_norm(&x, Shape::new(32, 32, 3), bn);
                let x = net.relu(&x);
                net.conv_norm(&x, Shape::new(32, 64, 3), bn)
            }
        };
        let x = net.relu(&x);
        let pads = if net.style == Style::ChannelsLast { (net.pad(&x), [0; 4]) } else { (x, [1; 4]) };
        net.node(
            "MaxPool",
            &[&pads.0],
            &[ints("kernel_shape", &[3, 3]), ints("strides", &[2, 2]), ints("pads", &pads.1)],
        )
    }

    fn block(&self, net: &mut Net, x: &str, inputs: u64, base: u64, stride: i64) -> (String, u64) {
        let bn = self.has_batch_norm;
        let outputs = if self.is_bottleneck { 4 * base } else { base };
        let mut start = x.to_owned();
        let mut y = start.clone();
        if self.is_pre_activated {
            y = net.norm(x, inputs, true);
            y = net.relu(&y);
        }
        let needs = stride > 1 || inputs != outputs;
        if self.is_pre_activated && needs {
            start.clone_from(&y);
        }
        let shapes: Vec<Shape> = if self.is_bottleneck {
            let width = base * self.width / 64;
            let (early, late) = if self.strides_early { (stride, 1) } else { (1, stride) };
            vec![
                Shape { stride: early, ..Shape::new(inputs, width, 1) },
                Shape { stride: late, groups: self.groups, ..Shape::new(width, width, 3) },
                Shape::new(width, outputs, 1),
            ]
        } else {
            vec![Shape { stride, ..Shape::new(inputs, outputs, 3) }, Shape::new(outputs, outputs, 3)]
        };
        for (index, shape) in shapes.iter().enumerate() {
            if self.is_pre_activated {
                if index > 0 {
                    y = net.norm(&y, shape.inputs, bn);
                    y = net.relu(&y);
                }
                y = net.conv(&y, *shape);
            } else {
                if index > 0 {
                    y = net.relu(&y);
                }
                y = net.conv_norm(&y, *shape, bn);
            }
        }
        if self.has_attention {
            y = net.attention(&y, outputs);
        }
        let project = |net: &mut Net, x: &str, shape: Shape| {
            if self.is_pre_activated { net.conv(x, shape) } else { net.conv_norm(x, shape, bn) }
        };
        let shape = Shape { stride, ..Shape::new(inputs, outputs, 1) };
        let shortcut = match self.shortcut {
            Shortcut::C => project(net, &start, shape),
            _ if !needs => start,
            Shortcut::A => net.zero_pad(&start, inputs, outputs),
            Shortcut::B => project(net, &start, shape),
            Shortcut::AveragePool if stride == 1 => project(net, &start, shape),
            Shortcut::AveragePool => {
                let window = [ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2]), int("ceil_mode", 1)];
                let pooled = net.node("AveragePool", &[&start], &window);
                project(net, &pooled, Shape { stride: 1, ..shape })
            }
        };
        let sum = net.add(&y, &shortcut);
        (if self.is_pre_activated { sum } else { net.relu(&sum) }, outputs)
    }
}
