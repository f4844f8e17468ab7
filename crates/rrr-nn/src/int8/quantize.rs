//! From watched f32 layers to integers.

use super::calibrate::Observed;
use super::images::halved_mean;
use super::{Int8Tensor, QuantizedSequence};
use crate::folded::FoldedConv;
use crate::{Normalize, Tensor};
use rrr_kernels::int8::{ACTIVATION_MAX, Int8Conv};

/// Largest magnitude of a weight.
const WEIGHT_MAX: f32 = 127.0;

/// A convolution (of one or two inputs) as integers.
struct Quantized {
    /// Per input, `[cout][cin][kernel][kernel]`.
    weights: Vec<Vec<i8>>,
    /// What one unit of the sum stands for, per output channel.
    scale: Vec<f32>,
}

/// What is known of an activation's channels.
pub(super) struct Channels {
    /// What one unit stands for.
    steps: Vec<f32>,
    means: Vec<f32>,
}

/// Quantises sequence `index` of those observed, which reads images, or `input`; also what it puts out.
///
/// `last` says that no convolution reads what it puts out, which so may use 8 bits.
pub(super) fn quantize(
    observed: &Observed,
    index: usize,
    normalize: Normalize,
    input: Option<&Channels>,
    last: bool,
) -> (QuantizedSequence, Channels) {
    let mut out = QuantizedSequence::default();
    let layers = &observed.sequences[index];
    let behind = |layer: &str, levels| {
        let seen = &observed.ranges[layer][index];
        Channels { steps: seen.steps(levels), means: seen.means() }
    };
    let mut own = None;
    if let Some(conv1) = &layers.conv1 {
        let (q, bias) = quantize_pixels(conv1, normalize);
        let y = behind("maxpool", ACTIVATION_MAX);
        out.add(conv1, q, bias, &y);
        own = Some(y);
    }
    for (i, b) in layers.blocks.iter().enumerate() {
        let levels = if last && i + 1 == layers.blocks.len() { u8::MAX } else { ACTIVATION_MAX };
        let a1 = behind(b.conv1.name(), ACTIVATION_MAX);
        let a2 = behind(b.conv2.name(), ACTIVATION_MAX);
        let y = behind(b.conv3.name(), levels);
        let x = own.as_ref().or(input).expect("a sequence without conv1 reads activations");
        let mut add = |layer: &FoldedConv, from: &[&Channels], to: &Channels| {
            let real = layer.weights();
            let q = quantize_weights(layer, &real, from);
            let bias = bias(layer, &real, from, &q);
            out.add(layer, q, bias, to);
        };
        add(&b.conv1, &[x], &a1);
        add(&b.conv2, &[&a1], &a2);
        // Only a sum with a downsample reads `x`.
        add(&b.conv3, &[&a2, x], &y);
        own = Some(y);
    }
    (out, own.expect("a sequence has layers"))
}

impl QuantizedSequence {
    /// Adds a convolution, or a sum of two.
    fn add(&mut self, layer: &FoldedConv, q: Quantized, bias: Vec<f32>, y: &Channels) {
        for (term, data) in layer.terms.iter().zip(q.weights) {
            let shape = term.conv.weight_shape().to_vec();
            self.weights.insert(format!("{}.weight", term.name), Int8Tensor { shape, data });
        }
        let mut value = |what: &str, data: Vec<f32>| {
            self.values.insert(format!("{}.{what}", layer.name()), Tensor { shape: vec![data.len()], data });
        };
        value("scale", q.scale);
        value("bias", bias);
        value("step", y.steps.clone());
    }
}

/// Quantises a layer that reads `from`, whose sum is one integer sum.
fn quantize_weights(layer: &FoldedConv, weights: &[Vec<f32>], from: &[&Channels]) -> Quantized {
    let conv = match layer.other() {
        None => Int8Conv::new(layer.conv()),
        Some(other) => Int8Conv::sum(layer.conv(), other),
    };
    // With the steps of the activations that they multiply.
    let real: Vec<Vec<f32>> = layer
        .terms
        .iter()
        .zip(weights)
        .zip(from)
        .map(|((term, weights), x)| {
            let [_, cin, kernel, _] = term.conv.weight_shape();
            weights.iter().enumerate().map(|(i, w)| w * x.steps[i / (kernel * kernel) % cin]).collect()
        })
        .collect();
    round(&conv, &real)
}

/// Rounds weights, for each input `[cout][cin][kernel][kernel]`, to integers of one scale per output channel.
fn round(conv: &Int8Conv, real: &[Vec<f32>]) -> Quantized {
    let channels = conv.cout();
    let mut out = Quantized { weights: vec![Vec::new(); real.len()], scale: Vec::with_capacity(channels) };
    for o in 0..channels {
        let channel = |part: &Vec<f32>| -> Vec<f32> {
            part[part.len() / channels * o..part.len() / channels * (o + 1)].to_vec()
        };
        let real: Vec<Vec<f32>> = real.iter().map(channel).collect();
        let largest = real.iter().flatten().fold(0f32, |m, w| m.max(w.abs()));
        let mut scale = if largest > 0.0 { largest / WEIGHT_MAX } else { 1.0 };
        let integers = loop {
            let integers: Vec<Vec<i8>> = real
                .iter()
                .map(|part| part.iter().map(|w| (w / scale).round_ties_even() as i8).collect())
                .collect();
            let parts: Vec<&[i8]> = integers.iter().map(Vec::as_slice).collect();
            let share = conv.share_of_16_bits(&parts);
            if share <= 1.0 {
                break integers;
            }
            scale *= share.max(1.002);
        };
        out.scale.push(scale);
        out.weights.iter_mut().zip(integers).for_each(|(all, part)| all.extend(part));
    }
    out
}

/// The bias of a quantised convolution: less what rounding the weights adds to the sum on average.
fn bias(layer: &FoldedConv, weights: &[Vec<f32>], from: &[&Channels], q: &Quantized) -> Vec<f32> {
    let mut bias: Vec<f64> = vec![0.0; q.scale.len()];
    for (((term, weights), x), rounded) in layer.terms.iter().zip(weights).zip(from).zip(&q.weights) {
        let [_, cin, kernel, _] = term.conv.weight_shape();
        let area = kernel * kernel;
        for (o, bias) in bias.iter_mut().enumerate() {
            *bias += f64::from(term.bias()[o]);
            for i in 0..cin {
                let at = (o * cin + i) * area..(o * cin + i + 1) * area;
                let exact: f64 = weights[at.clone()].iter().map(|w| f64::from(*w)).sum();
                let units: i32 = rounded[at].iter().map(|w| i32::from(*w)).sum();
                let real = f64::from(units) * f64::from(q.scale[o]) / f64::from(x.steps[i]);
                *bias -= (real - exact) * f64::from(x.means[i]);
            }
        }
    }
    bias.into_iter().map(|b| b as f32).collect()
}

/// Quantises the convolution of pixels, which takes in their normalisation; also its bias.
fn quantize_pixels(conv1: &FoldedConv, normalize: Normalize) -> (Quantized, Vec<f32>) {
    let (real, own) = (conv1.weights().remove(0), conv1.terms[0].bias());
    let area = real.len() / own.len() / 3;
    // What one unit of a halved pixel stands for.
    let step = |i: usize| 2.0 / (255.0 * normalize.std[i / area % 3]);
    let weight: Vec<f32> = real.iter().enumerate().map(|(i, w)| w * step(i)).collect();
    let q = round(&Int8Conv::new(conv1.conv()), &[weight]);
    let bias =
        own.iter().zip(q.weights[0].chunks_exact(3 * area)).zip(&q.scale).map(|((bias, weights), scale)| {
            // A pixel of the mean counts as zero, with the weights as they are now.
            let mean: f64 = (0..3)
                .map(|c| {
                    let sum: i32 = weights[c * area..(c + 1) * area].iter().map(|w| i32::from(*w)).sum();
                    f64::from(sum) * f64::from(halved_mean(normalize.mean[c]))
                })
                .sum();
            (f64::from(*bias) - mean * f64::from(*scale)) as f32
        });
    let bias = bias.collect();
    (q, bias)
}
