//! Biases, corrected layer after layer.
//!
//! What a layer puts out on average differs from f32 by what rounding did to its weights and to everything before it.
//! Layers run one after another on all calibration images, each on what the corrected ones before it put out, and biases
//! move until the means behind the ReLU are those of f32. Sums of integers decide, so that the result depends neither on
//! the threads nor on the instruction set.

use super::{Layer, Layers};
use crate::int8::QuantizedSequence;
use crate::int8::calibrate::Observed;
use crate::int8::images::PaddedPixels;
use rrr_kernels::int8::{Int8Activation, Int8Compute, Int8Plan, int8_max_pool};
use rrr_kernels::{BLOCK, Pool, blocks};

/// How often a layer's biases move.
const ROUNDS: usize = 3;

/// Least share of outputs above zero that counts as moving with the bias.
const LEAST_ON: f64 = 1.0 / 16.0;

/// Furthest that a bias moves at a time, in units of the output.
const FURTHEST: f64 = 4.0;

/// A batch of images, as the first layer reads it.
pub(in crate::int8) enum Source {
    Pixels { pixels: PaddedPixels, n: usize, size: (usize, usize) },
    Features(Int8Activation),
}

/// A batch of images, as a convolution reads it.
struct Inputs<'a> {
    x: Vec<&'a [u8]>,
    sizes: Vec<(usize, usize)>,
    skipped: Option<&'a [u8]>,
    n: usize,
}

impl<'a> Inputs<'a> {
    fn of(x: &[&'a Int8Activation]) -> Self {
        Self {
            x: x.iter().map(|x| x.data()).collect(),
            sizes: x.iter().map(|x| x.size()).collect(),
            skipped: None,
            n: x[0].n(),
        }
    }
}

impl Layers {
    /// Corrects the biases in here and in `states`, which it was made of, and gives what comes out for each of `sources`.
    pub fn correct(
        &mut self,
        states: &mut [QuantizedSequence],
        sources: Vec<Source>,
        observed: &Observed,
        compute: &Int8Compute,
    ) -> Vec<Int8Activation> {
        let mut correction = Correction { states, observed, compute };
        let mut x = match &mut self.conv1 {
            Some(conv1) => {
                let inputs = sources.iter().map(|source| match source {
                    Source::Pixels { pixels, n, size } => {
                        Inputs { x: vec![pixels.data()], sizes: vec![*size], skipped: None, n: *n }
                    }
                    Source::Features(_) => panic!("the sequence begins with conv1: it reads images"),
                });
                correction.layer(conv1, &inputs.collect::<Vec<_>>(), true)
            }
            None => sources
                .into_iter()
                .map(|source| match source {
                    Source::Features(x) => x,
                    Source::Pixels { .. } => panic!("the sequence begins with a block: it reads features"),
                })
                .collect(),
        };
        for block in &mut self.blocks {
            let inputs: Vec<_> = x.iter().map(|x| Inputs::of(&[x])).collect();
            let a = correction.layer(&mut block.conv1, &inputs, false);
            let inputs: Vec<_> = a.iter().map(|a| Inputs::of(&[a])).collect();
            let b = correction.layer(&mut block.conv2, &inputs, false);
            let inputs: Vec<_> = b
                .iter()
                .zip(&x)
                .map(|(b, x)| match block.downsample {
                    true => Inputs::of(&[b, x]),
                    false => Inputs { skipped: Some(x.data()), ..Inputs::of(&[b]) },
                })
                .collect();
            x = correction.layer(&mut block.conv3, &inputs, false);
        }
        x
    }
}

struct Correction<'a> {
    /// Of every branch.
    states: &'a mut [QuantizedSequence],
    observed: &'a Observed,
    compute: &'a Int8Compute,
}

impl Correction<'_> {
    /// Corrects a layer, and gives what it then puts out, pooled if it is the one of images.
    fn layer(&mut self, layer: &mut Layer, inputs: &[Inputs<'_>], pooled: bool) -> Vec<Int8Activation> {
        let seen = &self.observed.ranges[if pooled { "maxpool" } else { layer.name.as_str() }];
        let channels = layer.conv.cout();
        let mut biases = Vec::with_capacity(layer.branches * channels);
        for (state, seen) in self.states.iter().zip(seen) {
            let value = |what: &str| &state.values[&format!("{}.{what}", layer.name)].data;
            let wanted = seen.means().into_iter().zip(seen.shares_above_zero());
            for ((bias, step), (mean, on)) in value("bias").iter().zip(value("step")).zip(wanted) {
                let wanted = f64::from(mean) / f64::from(*step);
                biases.push(Bias::new(*bias, *step, wanted, on));
            }
        }
        let mut outputs = vec![Int8Activation::new(self.compute); inputs.len()];
        let padded = channels.next_multiple_of(self.compute.width());
        for round in 0.. {
            self.set(layer, &biases);
            let mut sums = vec![0; layer.branches * padded];
            for (from, to) in inputs.iter().zip(&mut outputs) {
                self.run(layer, from, pooled, to);
                add_sums(to, &mut sums, self.compute.pool());
            }
            if round > ROUNDS {
                break;
            }
            let values: usize = outputs.iter().map(Int8Activation::rows).sum();
            for (i, bias) in biases.iter_mut().enumerate() {
                let sum = sums[i / channels * padded + i % channels];
                bias.found(sum as f64 / values as f64, round == ROUNDS);
            }
        }
        outputs
    }

    /// Writes biases where they are used, and where they are kept.
    fn set(&mut self, layer: &mut Layer, biases: &[Bias]) {
        let (channels, padded) = (layer.conv.cout(), blocks(layer.conv.cout()) * BLOCK);
        for (i, (state, biases)) in self.states.iter_mut().zip(biases.chunks_exact(channels)).enumerate() {
            let kept = state.values.get_mut(&format!("{}.bias", layer.name)).expect("has a bias");
            let used = &mut layer.offset[i * padded..][..channels];
            for ((bias, kept), used) in biases.iter().zip(&mut kept.data).zip(used) {
                (*kept, *used) = (bias.value, bias.value / bias.step);
            }
        }
    }

    fn run(&self, layer: &Layer, inputs: &Inputs<'_>, pooled: bool, to: &mut Int8Activation) {
        let plan = Int8Plan::new(&layer.conv, &inputs.sizes, layer.branches, inputs.n, self.compute);
        let mut whole = Int8Activation::new(self.compute);
        let y = if pooled { &mut whole } else { &mut *to };
        y.reshape(layer.branches, layer.conv.cout(), plan.output(), inputs.n);
        layer.run(&plan, &inputs.x, inputs.skipped, y.data_mut(), self.compute);
        if pooled {
            int8_max_pool(&whole, to, self.compute);
        }
    }
}

/// A bias on its way.
struct Bias {
    value: f32,
    /// One unit of the output.
    step: f32,
    /// Mean that the output should have, in units.
    wanted: f64,
    /// Share of outputs that move with the bias.
    on: f64,
    /// The value that came nearest, and how far from it.
    best: (f32, f64),
}

impl Bias {
    fn new(value: f32, step: f32, wanted: f64, on: f64) -> Self {
        Self { value, step, wanted, on: on.max(LEAST_ON), best: (value, f64::INFINITY) }
    }

    /// Takes in the mean that `value` led to, and moves, in the end to the best value.
    fn found(&mut self, mean: f64, last: bool) {
        let error = self.wanted - mean;
        if error.abs() < self.best.1 {
            self.best = (self.value, error.abs());
        }
        if last {
            self.value = self.best.0;
            return;
        }
        let units = (error / self.on).clamp(-FURTHEST, FURTHEST);
        self.value = (f64::from(self.value) + units * f64::from(self.step)) as f32;
    }
}

/// Adds the sum of every channel, padded to whole blocks of the activation.
fn add_sums(a: &Int8Activation, sums: &mut [u64], pool: &Pool) {
    let (data, plane, rows, width) = (a.data(), a.plane_len(), a.rows(), a.block());
    pool.for_each_chunk(sums, width, |block, sums| {
        for row in data[block * plane..][..rows * width].chunks_exact(width) {
            sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += u64::from(*v));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Outputs of a channel whose sums are spread over -4 to 4 units, moved by a bias.
    fn mean(bias: f32) -> f64 {
        let values = (0..800).map(|i| (f64::from(i) / 100.0 - 4.0 + f64::from(bias)).round_ties_even());
        values.map(|v| v.clamp(0.0, 127.0)).sum::<f64>() / 800.0
    }

    #[test]
    fn a_bias_comes_nearer_and_never_ends_further_away() {
        for (start, wanted) in [(0.0, 1.0), (0.7, mean(0.0)), (-1.5, 0.8), (0.0, 100.0), (0.0, mean(0.0))] {
            let mut bias = Bias::new(start, 1.0, wanted, 0.5);
            let before = (mean(start) - wanted).abs();
            for round in 0..=ROUNDS {
                bias.found(mean(bias.value), round == ROUNDS);
            }
            let after = (mean(bias.value) - wanted).abs();
            assert!(after <= before, "{before} became {after}");
            assert!(after < 0.1 || wanted > 2.0, "{after} is left of {before}");
        }
    }

    #[test]
    fn no_bias_moves_further_than_some_units_at_a_time() {
        let mut bias = Bias::new(0.0, 0.5, 50.0, 0.0);
        bias.found(0.0, false);
        assert_eq!(bias.value, 2.0);
        bias.found(60.0, false);
        assert_eq!(bias.value, 0.0);
        bias.found(40.0, true);
        assert_eq!(bias.value, 2.0, "the first of two that are 10 units off");
    }

    #[test]
    fn sums_are_those_of_all_rows() {
        let pool = Arc::new(Pool::new(2));
        let mut a = Int8Activation::new(&Int8Compute::new(Arc::clone(&pool)));
        a.reshape(2, 18, (1, 3), 2);
        for group in 0..2 {
            for i in 0..2 * 18 * 3 {
                a.set(group, i % 2, i / 2 % 18, i / 36, (group * 100 + i) as u8);
            }
        }
        let padded = 18usize.next_multiple_of(a.block());
        let mut sums = vec![1; 2 * padded];
        add_sums(&a, &mut sums, &pool);
        let sum = |group: usize, channel: usize| -> u64 {
            let values = (0..6).map(|i| u64::from(a.get(group, i % 2, channel, i / 2)));
            1 + values.sum::<u64>()
        };
        for channel in 0..18 {
            assert_eq!(sums[channel], sum(0, channel));
            assert_eq!(sums[padded + channel], sum(1, channel));
        }
    }
}
