//! Where each tensor of a sequence lies in flat, packed buffers.
//!
//! The trainable tensors of a sequence share one buffer, in network order (a downsample behind `conv1`), `fc` last; convolutions are packed
//! as the kernels want them and vectors padded to whole blocks. So gradients, moments and averages are
//! buffers of the same shape, and the optimiser is one pass over them. Padding is zero and stays zero.

use crate::{SequenceSpec, State, Tensor};
use rrr_kernels::{BLOCK, Buffer, Conv, blocks};
use std::ops::Range;

/// A convolution and the batch norm behind it.
#[derive(Clone, Debug)]
pub(crate) struct ConvBn {
    /// State-dict name of the convolution, for example `layer3.0.conv2`.
    pub name: String,
    /// State-dict name of the batch norm, for example `layer3.0.bn2`.
    pub bn: String,
    pub conv: Conv,
    /// Packed weights in the parameters.
    pub weight: Range<usize>,
    /// Scale, then shift, of `padded` values each, in the parameters.
    pub affine: Range<usize>,
    /// Running mean, then running variance, in the statistics; batch mean and inverse deviation lie likewise.
    pub stats: Range<usize>,
    /// Weights repacked for the input gradient, in a buffer of their own; empty for an image.
    pub transposed: Range<usize>,
}

/// A bottleneck.
#[derive(Clone, Debug)]
pub(crate) struct Bottleneck {
    pub conv1: ConvBn,
    pub conv2: ConvBn,
    pub conv3: ConvBn,
    pub downsample: Option<ConvBn>,
}

/// The classifier: a 1x1 convolution of pooled features, with bias.
#[derive(Clone, Debug)]
pub(crate) struct Classifier {
    pub conv: Conv,
    pub weight: Range<usize>,
    pub bias: Range<usize>,
    pub transposed: Range<usize>,
}

/// The layers of a [`SequenceSpec`] with their places.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub conv1: Option<ConvBn>,
    pub blocks: Vec<Bottleneck>,
    pub fc: Option<Classifier>,
    pub params: usize,
    pub stats: usize,
    pub transposed: usize,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    name: String,
    shape: Vec<usize>,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Weight(Conv, Range<usize>),
    Vector(Range<usize>),
    Statistic(Range<usize>),
}

impl Layout {
    pub fn new(spec: &SequenceSpec) -> Self {
        let mut l = Self {
            conv1: None,
            blocks: Vec::new(),
            fc: None,
            params: 0,
            stats: 0,
            transposed: 0,
            entries: Vec::new(),
        };
        l.conv1 = spec.conv1.map(|cout| l.conv_bn("conv1", "bn1", Conv::image(cout), [cout, 3, 7, 7]));
        for b in &spec.blocks {
            let mut add = |conv: &str, bn: &str, cin, cout, kernel, stride| {
                let names = (format!("{}.{conv}", b.name), format!("{}.{bn}", b.name));
                let conv = Conv::new(cin, cout, kernel, stride);
                l.conv_bn(&names.0, &names.1, conv, [cout, cin, kernel, kernel])
            };
            // What reads the same input lies side by side.
            let conv1 = add("conv1", "bn1", b.cin, b.width, 1, 1);
            let downsample =
                b.downsample.then(|| add("downsample.0", "downsample.1", b.cin, b.cout, 1, b.stride));
            let conv2 = add("conv2", "bn2", b.width, b.width, 3, b.stride);
            let conv3 = add("conv3", "bn3", b.width, b.cout, 1, 1);
            l.blocks.push(Bottleneck { conv1, conv2, conv3, downsample });
        }
        l.fc = spec.classes.map(|classes| {
            let features = spec.features();
            let conv = Conv::new(features, classes, 1, 1);
            let weight = take(&mut l.params, conv.packed_len());
            let bias = take(&mut l.params, blocks(classes) * BLOCK);
            l.entry("fc.weight", &[classes, features], Place::Weight(conv, weight.clone()));
            l.entry("fc.bias", &[classes], Place::Vector(bias.start..bias.start + classes));
            Classifier { conv, weight, bias, transposed: take(&mut l.transposed, conv.transposed_len()) }
        });
        l
    }

    fn conv_bn(&mut self, name: &str, bn: &str, conv: Conv, shape: [usize; 4]) -> ConvBn {
        let channels = conv.cout();
        let padded = blocks(channels) * BLOCK;
        let weight = take(&mut self.params, conv.packed_len());
        self.entry(&format!("{name}.weight"), &shape, Place::Weight(conv, weight.clone()));
        let affine = take(&mut self.params, 2 * padded);
        let stats = take(&mut self.stats, 2 * padded);
        for (i, suffix) in ["weight", "bias"].into_iter().enumerate() {
            let start = affine.start + i * padded;
            self.entry(&format!("{bn}.{suffix}"), &[channels], Place::Vector(start..start + channels));
        }
        for (i, suffix) in ["running_mean", "running_var"].into_iter().enumerate() {
            let start = stats.start + i * padded;
            self.entry(&format!("{bn}.{suffix}"), &[channels], Place::Statistic(start..start + channels));
        }
        let transposed = if shape[2] == 7 { 0 } else { conv.transposed_len() };
        ConvBn {
            name: name.to_owned(),
            bn: bn.to_owned(),
            conv,
            weight,
            affine,
            stats,
            transposed: take(&mut self.transposed, transposed),
        }
    }

    fn entry(&mut self, name: &str, shape: &[usize], place: Place) {
        self.entries.push(Entry { name: name.to_owned(), shape: shape.to_vec(), place });
    }

    /// Parameters of the classifier, the last ones.
    pub fn classifier(&self) -> Range<usize> {
        self.fc.as_ref().map_or(self.params, |fc| fc.weight.start)..self.params
    }

    /// All convolutions with batch norms; their places follow one another.
    pub fn convs(&self) -> impl Iterator<Item = &ConvBn> {
        let blocks = self.blocks.iter().flat_map(|b| {
            [Some(&b.conv1), b.downsample.as_ref(), Some(&b.conv2), Some(&b.conv3)].into_iter().flatten()
        });
        self.conv1.iter().chain(blocks)
    }

    /// All convolutions with batch norms, those together that read the same input.
    pub fn units(&self) -> impl Iterator<Item = Vec<ConvBn>> {
        let blocks = self.blocks.iter().flat_map(|b| {
            let first = [&b.conv1].into_iter().chain(&b.downsample).cloned().collect();
            [first, vec![b.conv2.clone()], vec![b.conv3.clone()]]
        });
        self.conv1.iter().map(|conv1| vec![conv1.clone()]).chain(blocks)
    }

    /// Packs the trainable tensors that are in `state`, those in `range` of the parameters.
    ///
    /// `to` begins at the start of `range`. Shapes must have been checked.
    pub fn pack(&self, state: &State, range: Range<usize>, to: &mut [f32]) {
        for entry in &self.entries {
            let (Place::Weight(_, at) | Place::Vector(at)) = &entry.place else { continue };
            if at.start < range.start || at.end > range.end {
                continue;
            }
            let to = &mut to[at.start - range.start..at.end - range.start];
            let values = &state[&entry.name].data;
            match &entry.place {
                Place::Weight(conv, _) => conv.pack(values, to),
                _ => to.copy_from_slice(values),
            }
        }
    }

    /// The inverse of [`Layout::pack`].
    pub fn unpack(&self, from: &[f32], range: Range<usize>, state: &mut State) {
        for entry in &self.entries {
            let (Place::Weight(_, at) | Place::Vector(at)) = &entry.place else { continue };
            if at.start < range.start {
                continue;
            }
            let from = &from[at.start - range.start..at.end - range.start];
            let data = match &entry.place {
                Place::Weight(conv, _) => conv.unpack(from),
                _ => from.to_vec(),
            };
            state.insert(entry.name.clone(), Tensor { shape: entry.shape.clone(), data });
        }
    }

    /// Copies the running statistics of `state`.
    pub fn pack_stats(&self, state: &State) -> Buffer {
        let mut stats = Buffer::zeros(self.stats);
        for entry in &self.entries {
            if let Place::Statistic(at) = &entry.place {
                stats[at.clone()].copy_from_slice(&state[&entry.name].data);
            }
        }
        stats
    }

    /// The inverse of [`Layout::pack_stats`].
    pub fn unpack_stats(&self, stats: &[f32], state: &mut State) {
        for entry in &self.entries {
            if let Place::Statistic(at) = &entry.place {
                let tensor = Tensor { shape: entry.shape.clone(), data: stats[at.clone()].to_vec() };
                state.insert(entry.name.clone(), tensor);
            }
        }
    }

    /// Names and shapes of the trainable tensors in `range` of the parameters.
    pub fn trainable(&self, range: Range<usize>) -> impl Iterator<Item = (&str, &[usize])> {
        self.entries.iter().filter_map(move |e| match &e.place {
            Place::Weight(_, at) | Place::Vector(at) if at.start >= range.start => {
                Some((e.name.as_str(), e.shape.as_slice()))
            }
            _ => None,
        })
    }
}

fn take(end: &mut usize, len: usize) -> Range<usize> {
    let start = *end;
    *end += len;
    start..*end
}
