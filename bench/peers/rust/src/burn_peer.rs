//! Burn on its CPU backend Flex: the network written out with batch norms already folded, as convolutions with bias.

use crate::{Forward, Work};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::{relu, softmax};
use burn::tensor::{Device, Tensor, TensorData};
use std::error::Error;

const BRANCHES: usize = 8;
const CLASSES: usize = 20;

struct Bottleneck {
    convs: [Conv2d; 3],
    down: Conv2d,
}

impl Bottleneck {
    fn new(cin: usize, width: usize, stride: usize, device: &Device) -> Self {
        let convs = [
            conv(cin, width, 1, 1, device),
            conv(width, width, 3, stride, device),
            conv(width, 4 * width, 1, 1, device),
        ];
        Self { convs, down: conv(cin, 4 * width, 1, stride, device) }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [a, b, c] = &self.convs;
        let skip = self.down.forward(x.clone());
        relu(c.forward(relu(b.forward(relu(a.forward(x))))) + skip)
    }
}

fn conv(cin: usize, cout: usize, kernel: usize, stride: usize, device: &Device) -> Conv2d {
    let pad = kernel / 2;
    Conv2dConfig::new([cin, cout], [kernel, kernel])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
        .init(device)
}

struct Network {
    conv1: Conv2d,
    pool: MaxPool2d,
    stem: [Bottleneck; 2],
    branches: Vec<([Bottleneck; 2], Linear)>,
}

impl Network {
    fn new(device: &Device) -> Self {
        let branch = || {
            let blocks = [Bottleneck::new(512, 79, 2, device), Bottleneck::new(316, 170, 2, device)];
            (blocks, LinearConfig::new(680, CLASSES).init(device))
        };
        let pad = PaddingConfig2d::Explicit(1, 1, 1, 1);
        Self {
            conv1: conv(3, 64, 7, 2, device),
            pool: MaxPool2dConfig::new([3, 3]).with_strides([2, 2]).with_padding(pad).init(),
            stem: [Bottleneck::new(64, 64, 1, device), Bottleneck::new(256, 128, 2, device)],
            branches: (0..BRANCHES).map(|_| branch()).collect(),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.pool.forward(relu(self.conv1.forward(x)));
        let x = self.stem.iter().fold(x, |x, block| block.forward(x));
        let probabilities = self.branches.iter().map(|(blocks, fc)| {
            let y = blocks.iter().fold(x.clone(), |y, block| block.forward(y));
            let [n, channels, ..] = y.dims();
            let pooled = y.mean_dim(3).mean_dim(2).reshape([n, channels]);
            softmax(fc.forward(pooled), 1)
        });
        probabilities.reduce(|a, b| a + b).expect("there are branches") / BRANCHES as f32
    }
}

pub fn load(work: &Work) -> Result<Forward, Box<dyn Error>> {
    rayon::ThreadPoolBuilder::new().num_threads(work.threads).build_global()?;
    let device = Device::flex();
    let network = Network::new(&device);
    let data = TensorData::new(work.input.clone(), [work.batch, 3, work.size, work.size]);
    let input = Tensor::<4>::from_data(data, &device);
    Ok(Box::new(move || {
        let out = network.forward(input.clone()).into_data();
        Ok(out.to_vec::<f32>().map_err(|e| format!("{e:?}"))?)
    }))
}
