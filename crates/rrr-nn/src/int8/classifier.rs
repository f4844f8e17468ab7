//! The classifiers, in f32.

use crate::QuantizedState;
use rrr_kernels::Pool;
use rrr_kernels::int8::Int8Isa;

/// Fully connected layers, one per branch.
pub(super) struct Classifiers {
    /// `[branch][feature][class]`.
    weight: Vec<f32>,
    /// `[branch][class]`.
    bias: Vec<f32>,
    pub features: usize,
    pub classes: usize,
}

impl Classifiers {
    /// Those of a checked state.
    pub fn new(state: &QuantizedState) -> Self {
        let shape = &state.branches[0].values["fc.weight"].shape;
        let (classes, features) = (shape[0], shape[1]);
        let mut weight = Vec::with_capacity(state.branches.len() * features * classes);
        for branch in &state.branches {
            let w = &branch.values["fc.weight"].data;
            weight.extend((0..features).flat_map(|f| (0..classes).map(move |c| w[c * features + f])));
        }
        let bias = state.branches.iter().flat_map(|b| b.values["fc.bias"].data.iter().copied()).collect();
        Self { weight, bias, features, classes }
    }

    /// Bytes of the weights.
    pub fn bytes(&self) -> usize {
        (self.weight.len() + self.bias.len()) * size_of::<f32>()
    }

    /// `logits[branch][image] = weight[branch] * features[branch][image] + bias[branch]`, each sum in the order of
    /// the features, without fused operations: the same on every CPU.
    pub fn forward(&self, features: &[f32], logits: &mut [f32], n: usize, isa: Int8Isa, pool: &Pool) {
        let Self { features: inputs, classes, .. } = *self;
        pool.for_each_chunk(logits, classes, |row, logits| {
            let branch = row / n;
            let weight = &self.weight[branch * inputs * classes..][..inputs * classes];
            let x = &features[row * inputs..][..inputs];
            isa.base().vectorize(|| {
                logits.copy_from_slice(&self.bias[branch * classes..][..classes]);
                for (x, weight) in x.iter().zip(weight.chunks_exact(classes)) {
                    for (logit, w) in logits.iter_mut().zip(weight) {
                        *logit += x * w;
                    }
                }
            });
        });
    }
}
