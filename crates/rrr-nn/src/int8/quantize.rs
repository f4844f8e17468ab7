//! From watched f32 layers to integers.

use super::calibrate::Watched;
use super::fold::Folded;
use super::{Int8Tensor, QuantizedSequence};
use crate::{Normalize, SequenceSpec, Tensor};
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

/// Quantises a sequence that reads images, or activations of a `step`; also the step of what it puts out.
///
/// `last` says that no convolution reads what it puts out, which so may use 8 bits.
pub(super) fn quantize(
    watched: &Watched,
    spec: &SequenceSpec,
    normalize: Normalize,
    step: Option<f32>,
    last: bool,
) -> (QuantizedSequence, f32) {
    let mut out = QuantizedSequence::default();
    let mut seen = watched.seen.iter();
    let mut steps = |levels| seen.next().expect("one per activation").step(levels);
    let mut x = step;
    if let Some(conv1) = &watched.layers.conv1 {
        let (q, bias) = quantize_pixels(conv1, normalize);
        let step = steps(ACTIVATION_MAX);
        out.add(&["conv1"], &[conv1], q, bias, step);
        x = Some(step);
    }
    let mut x = x.expect("a sequence without conv1 reads activations");
    for (i, (b, spec)) in watched.layers.blocks.iter().zip(&spec.blocks).enumerate() {
        let name = |conv: &str| format!("{}.{conv}", spec.name);
        let levels = if last && i + 1 == watched.layers.blocks.len() { u8::MAX } else { ACTIVATION_MAX };
        let (step1, step2, step3) = (steps(ACTIVATION_MAX), steps(ACTIVATION_MAX), steps(levels));
        for (conv, layer, (from, to)) in
            [("conv1", &b.conv1, (x, step1)), ("conv2", &b.conv2, (step1, step2))]
        {
            let q = quantize_weights(&Int8Conv::new(layer.conv), &[(&layer.weight, from)]);
            out.add(&[&name(conv)], &[layer], q, layer.bias.clone(), to);
        }
        let mut bias = b.conv3.bias.clone();
        match &b.downsample {
            Some(d) => {
                let conv = Int8Conv::sum(b.conv3.conv, d.conv);
                let q = quantize_weights(&conv, &[(&b.conv3.weight, step2), (&d.weight, x)]);
                bias.iter_mut().zip(&d.bias).for_each(|(b, d)| *b += d);
                out.add(&[&name("conv3"), &name("downsample.0")], &[&b.conv3, d], q, bias, step3);
            }
            None => {
                let q = quantize_weights(&Int8Conv::new(b.conv3.conv), &[(&b.conv3.weight, step2)]);
                out.add(&[&name("conv3")], &[&b.conv3], q, bias, step3);
            }
        }
        x = step3;
    }
    (out, x)
}

impl QuantizedSequence {
    /// Adds a convolution; `names` and `layers` are those of its inputs, the first ones name the rest.
    fn add(&mut self, names: &[&str], layers: &[&Folded], q: Quantized, bias: Vec<f32>, step: f32) {
        for ((name, layer), data) in names.iter().zip(layers).zip(q.weights) {
            let shape = layer.conv.weight_shape().to_vec();
            self.weights.insert(format!("{name}.weight"), Int8Tensor { shape, data });
        }
        let mut value = |what: &str, data: Vec<f32>| {
            self.values.insert(format!("{}.{what}", names[0]), Tensor { shape: vec![data.len()], data });
        };
        value("scale", q.scale);
        value("bias", bias);
        value("step", vec![step]);
    }
}

/// `weights` come with the step of the activations that they multiply.
fn quantize_weights(conv: &Int8Conv, weights: &[(&[f32], f32)]) -> Quantized {
    let channels = conv.cout();
    let mut out = Quantized { weights: vec![Vec::new(); weights.len()], scale: Vec::with_capacity(channels) };
    for o in 0..channels {
        let real: Vec<Vec<f32>> = weights
            .iter()
            .map(|(w, step)| {
                let len = w.len() / channels;
                w[o * len..(o + 1) * len].iter().map(|w| w * step).collect()
            })
            .collect();
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

/// Quantises the convolution of pixels, which takes in their normalisation; also its bias.
fn quantize_pixels(conv1: &Folded, normalize: Normalize) -> (Quantized, Vec<f32>) {
    let area = conv1.weight.len() / conv1.bias.len() / 3;
    let per_pixel = |i: usize| 255.0 * normalize.std[i / area % 3];
    let weight: Vec<f32> = conv1.weight.iter().enumerate().map(|(i, w)| w / per_pixel(i)).collect();
    let q = quantize_weights(&Int8Conv::new(conv1.conv), &[(&weight, 1.0)]);
    let bias = conv1.bias.iter().zip(q.weights[0].chunks_exact(3 * area)).zip(&q.scale).map(
        |((bias, weights), scale)| {
            // A pixel of the mean counts as zero, with the weights as they are now.
            let mean: f64 = (0..3)
                .map(|c| {
                    let sum: i32 = weights[c * area..(c + 1) * area].iter().map(|w| i32::from(*w)).sum();
                    f64::from(sum) * f64::from(255.0 * normalize.mean[c])
                })
                .sum();
            (f64::from(*bias) - mean * f64::from(*scale)) as f32
        },
    );
    let bias = bias.collect();
    (q, bias)
}
