//! Recognising bottleneck ResNets by the names and shapes of their tensors.

use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::error::{Error, shape as shape_text};

/// The layout of a bottleneck ResNet with torchvision's and timm's names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResNetLayout {
    /// Blocks of each stage: 3, 8, 36, 3 for ResNet-152.
    pub blocks: [usize; 4],
    /// Output channels of `conv1`.
    pub stem_width: usize,
    /// Channels of each stage's 3x3 convolutions: 64, 128, 256, 512 unless wide.
    pub widths: [usize; 4],
    /// Output channels of each stage: 256, 512, 1024, 2048.
    pub outputs: [usize; 4],
    /// Outputs of `fc`, where there is one.
    pub classes: Option<usize>,
    /// What the names begin with: empty or ending with a dot.
    pub prefix: String,
}

impl ResNetLayout {
    /// Name (without the prefix) and shape of every tensor: `conv1`, `bn1`, the stages and `fc`.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let mut list = Vec::new();
        let mut conv_bn = |conv: String, bn: String, shape: [usize; 4]| {
            let channels = shape[0];
            list.push((format!("{conv}.weight"), shape.to_vec()));
            for part in ["weight", "bias", "running_mean", "running_var"] {
                list.push((format!("{bn}.{part}"), vec![channels]));
            }
        };
        conv_bn("conv1".into(), "bn1".into(), [self.stem_width, 3, 7, 7]);
        let mut input = self.stem_width;
        for stage in 0..4 {
            let (width, output) = (self.widths[stage], self.outputs[stage]);
            for block in 0..self.blocks[stage] {
                let at = format!("layer{}.{block}", stage + 1);
                conv_bn(format!("{at}.conv1"), format!("{at}.bn1"), [width, input, 1, 1]);
                conv_bn(format!("{at}.conv2"), format!("{at}.bn2"), [width, width, 3, 3]);
                conv_bn(format!("{at}.conv3"), format!("{at}.bn3"), [output, width, 1, 1]);
                if block == 0 {
                    conv_bn(
                        format!("{at}.downsample.0"),
                        format!("{at}.downsample.1"),
                        [output, input, 1, 1],
                    );
                }
                input = output;
            }
        }
        if let Some(classes) = self.classes {
            list.push(("fc.weight".into(), vec![classes, self.outputs[3]]));
            list.push(("fc.bias".into(), vec![classes]));
        }
        list
    }
}

const MARK: &str = "layer1.0.conv1.weight";

/// Finds out which bottleneck ResNet a checkpoint holds, under whatever prefix.
///
/// Only the convolutions and `fc` are looked at; [`load_state`](crate::load_state) with [`ResNetLayout::tensors`]
/// checks the rest.
///
/// # Errors
/// If it is none: ResNets of basic blocks (18, 34), grouped convolutions (ResNeXt), deep stems and anything else.
pub fn detect_resnet(checkpoint: &Checkpoint) -> Result<ResNetLayout, Error> {
    let not = |reason: String| Error::NotAResNet { path: checkpoint.path().into(), reason };
    let prefix =
        prefix(checkpoint).ok_or_else(|| not(format!("it has no tensor {MARK} under any prefix")))?;
    let shape = |name: &str| checkpoint.tensor(&format!("{prefix}{name}")).map(|t| t.shape.as_slice());
    let conv = |name: &str| match shape(name) {
        Some(&[a, b, c, d]) => Ok([a, b, c, d]),
        Some(other) => Err(not(format!("{name} has the shape {}", shape_text(other)))),
        None => Err(not(format!("{name} is missing"))),
    };

    if shape("conv1.weight").is_none() && shape("conv1.0.weight").is_some() {
        return Err(not("its stem has three convolutions instead of one 7x7".into()));
    }
    let stem_width = match conv("conv1.weight")? {
        [width, 3, 7, 7] => width,
        other => return Err(not(format!("conv1.weight is {} instead of Nx3x7x7", shape_text(&other)))),
    };
    if shape("layer1.0.conv2.weight").is_some() && shape("layer1.0.conv3.weight").is_none() {
        return Err(not("its blocks have two convolutions (the basic blocks of ResNet-18 and 34)".into()));
    }
    let (mut blocks, mut widths, mut outputs) = ([0; 4], [0; 4], [0; 4]);
    let mut input = stem_width;
    for stage in 0..4 {
        let layer = format!("layer{}", stage + 1);
        blocks[stage] = (0..).take_while(|b| shape(&format!("{layer}.{b}.conv1.weight")).is_some()).count();
        if blocks[stage] == 0 {
            return Err(not(format!("it has no {layer}")));
        }
        for block in 0..blocks[stage] {
            let at = format!("{layer}.{block}");
            let conv1 = conv(&format!("{at}.conv1.weight"))?;
            let conv2 = conv(&format!("{at}.conv2.weight"))?;
            let conv3 = conv(&format!("{at}.conv3.weight"))?;
            if block == 0 {
                (widths[stage], outputs[stage]) = (conv1[0], conv3[0]);
                let skip = conv(&format!("{at}.downsample.0.weight"))?;
                if skip != [outputs[stage], input, 1, 1] {
                    return Err(not(format!("{at}.downsample.0.weight is {}", shape_text(&skip))));
                }
            }
            let (width, output) = (widths[stage], outputs[stage]);
            if conv2[1] < width && conv2[0] == width {
                return Err(not(format!("{at}.conv2 is a grouped convolution (ResNeXt)")));
            }
            let expected = [[width, input, 1, 1], [width, width, 3, 3], [output, width, 1, 1]];
            for (i, (found, expected)) in [conv1, conv2, conv3].iter().zip(&expected).enumerate() {
                if found != expected {
                    let (found, expected) = (shape_text(found), shape_text(expected));
                    return Err(not(format!("{at}.conv{}.weight is {found} instead of {expected}", i + 1)));
                }
            }
            if shape(&format!("{at}.se.fc1.weight")).is_some()
                || shape(&format!("{at}.se.conv.weight")).is_some()
            {
                return Err(not(format!("{at} has an attention module")));
            }
            input = output;
        }
    }
    let classes = match shape("fc.weight") {
        Some(&[classes, features]) if features == input => Some(classes),
        Some(other) => return Err(not(format!("fc.weight is {} instead of Nx{input}", shape_text(other)))),
        None => None,
    };
    Ok(ResNetLayout { blocks, stem_width, widths, outputs, classes, prefix: prefix.into() })
}

/// The prefix of the first stage; of several (a model and its average) the one with the most tensors, then the
/// shortest, then the first in alphabetical order.
fn prefix(checkpoint: &Checkpoint) -> Option<&str> {
    let names = || checkpoint.tensors().iter().map(|t| t.name.as_str());
    names()
        .filter_map(|name| name.strip_suffix(MARK))
        .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'))
        .min_by_key(|&prefix| {
            let under = names().filter(|name| name.starts_with(prefix)).count();
            (std::cmp::Reverse(under), prefix.len(), prefix)
        })
}
