//! Burn on its CPU backend Flex: the exported weights, the network written out as convolutions with bias.

use crate::{Forward, Work};
use burn::module::Param;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::{relu, softmax};
use burn::tensor::{Device, Tensor, TensorData};
use pytorch_reader::PytorchReader;
use std::error::Error;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A PyTorch state dict.
struct Weights {
    file: PytorchReader,
    device: Device,
}

impl Weights {
    fn has(&self, layer: &str) -> bool {
        self.file.get(&format!("{layer}.weight")).is_some()
    }

    fn tensor<const D: usize>(&self, name: &str) -> Result<Tensor<D>> {
        let tensor = self.file.get(name).ok_or_else(|| format!("no {name} in the weights"))?;
        let bytes = tensor.read()?;
        let values = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Ok(Tensor::from_data(TensorData::new::<f32, _>(values, tensor.shape()), &self.device))
    }

    fn conv(&self, layer: &str, stride: usize) -> Result<Conv2d> {
        let weight = self.tensor::<4>(&format!("{layer}.weight"))?;
        let [cout, cin, kernel, _] = weight.dims();
        let pad = kernel / 2;
        let mut conv = Conv2dConfig::new([cin, cout], [kernel, kernel])
            .with_stride([stride, stride])
            .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
            .init(&self.device);
        conv.weight = Param::from_tensor(weight);
        conv.bias = Some(Param::from_tensor(self.tensor(&format!("{layer}.bias"))?));
        Ok(conv)
    }

    fn linear(&self, layer: &str) -> Result<Linear> {
        let weight = self.tensor::<2>(&format!("{layer}.weight"))?;
        let [cout, cin] = weight.dims();
        let mut linear = LinearConfig::new(cin, cout).init(&self.device);
        let transposed = weight.transpose().into_data();
        linear.weight = Param::from_tensor(Tensor::from_data(transposed, &self.device));
        linear.bias = Some(Param::from_tensor(self.tensor(&format!("{layer}.bias"))?));
        Ok(linear)
    }

    /// The bottlenecks `prefix.FIRST`, `prefix.FIRST + 1` and so on; the second and later ones with a downsample have
    /// stride 2, and the first one `stride`.
    fn blocks(&self, prefix: &str, first: usize, stride: usize) -> Result<Vec<Bottleneck>> {
        let mut blocks = Vec::new();
        for layer in (first..).map(|i| format!("{prefix}.{i}")).take_while(|l| self.has(&format!("{l}.conv1"))) {
            let down = self.has(&format!("{layer}.down"));
            let stride = if !down { 1 } else if blocks.is_empty() { stride } else { 2 };
            blocks.push(Bottleneck {
                conv1: self.conv(&format!("{layer}.conv1"), 1)?,
                conv2: self.conv(&format!("{layer}.conv2"), stride)?,
                conv3: self.conv(&format!("{layer}.conv3"), 1)?,
                down: down.then(|| self.conv(&format!("{layer}.down"), stride)).transpose()?,
            });
        }
        Ok(blocks)
    }
}

struct Bottleneck {
    conv1: Conv2d,
    conv2: Conv2d,
    conv3: Conv2d,
    down: Option<Conv2d>,
}

impl Bottleneck {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = relu(self.conv1.forward(x.clone()));
        let y = relu(self.conv2.forward(y));
        let y = self.conv3.forward(y);
        relu(y + self.down.as_ref().map_or(x.clone(), |down| down.forward(x)))
    }
}

struct Network {
    conv1: Conv2d,
    pool: MaxPool2d,
    stem: Vec<Bottleneck>,
    branches: Vec<(Vec<Bottleneck>, Linear)>,
    average: AdaptiveAvgPool2d,
}

impl Network {
    fn new(weights: &Weights) -> Result<Self> {
        let pad = PaddingConfig2d::Explicit(1, 1, 1, 1);
        let mut branches = Vec::new();
        for branch in (0..).map(|i| format!("tails.{i}")).take_while(|b| weights.has(&format!("{b}.0.conv1"))) {
            let blocks = weights.blocks(&branch, 0, 2)?;
            // After the blocks, the pooling and the flattening.
            let classifier = weights.linear(&format!("{branch}.{}", blocks.len() + 2))?;
            branches.push((blocks, classifier));
        }
        Ok(Self {
            conv1: weights.conv("stem.0.conv1", 2)?,
            pool: MaxPool2dConfig::new([3, 3]).with_strides([2, 2]).with_padding(pad).init(),
            stem: weights.blocks("stem", 1, 1)?,
            branches,
            average: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.pool.forward(relu(self.conv1.forward(x)));
        let x = self.stem.iter().fold(x, |x, block| block.forward(x));
        let probabilities = self.branches.iter().map(|(blocks, classifier)| {
            let y = blocks.iter().fold(x.clone(), |y, block| block.forward(y));
            softmax(classifier.forward(self.average.forward(y).flatten(1, 3)), 1)
        });
        probabilities.reduce(|a, b| a + b).expect("there are branches") / self.branches.len() as f32
    }
}

pub fn load(work: &Work) -> Result<Forward> {
    rayon::ThreadPoolBuilder::new().num_threads(work.threads).build_global()?;
    let device = Device::flex();
    let file = PytorchReader::new(work.model.with_file_name("network.pt"))?;
    let network = Network::new(&Weights { file, device: device.clone() })?;
    let data = TensorData::new(work.input.clone(), [work.batch, 3, work.size, work.size]);
    let input = Tensor::<4>::from_data(data, &device);
    Ok(Box::new(move || {
        let out = network.forward(input.clone()).into_data();
        Ok(out.try_to_vec::<f32>()?)
    }))
}
