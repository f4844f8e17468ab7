//! Classifiers of pooled features, in f32.

use rrr_kernels::{Isa, Pool};

/// Fully connected layers, one per branch.
pub(crate) struct Classifiers {
    /// `[branch][feature][class]`.
    weight: Vec<f32>,
    /// `[branch][class]`.
    bias: Vec<f32>,
    pub features: usize,
    pub classes: usize,
}

impl Classifiers {
    /// Those of the branches: weights `[classes][features]` and biases of each.
    pub fn new<'a>(branches: impl Iterator<Item = (&'a [f32], &'a [f32])>) -> Self {
        let mut new = Self { weight: Vec::new(), bias: Vec::new(), features: 0, classes: 0 };
        for (w, bias) in branches {
            (new.features, new.classes) = (w.len() / bias.len(), bias.len());
            let features = new.features;
            new.weight.extend((0..features).flat_map(|f| w.iter().skip(f).step_by(features)));
            new.bias.extend(bias);
        }
        new
    }

    /// Bytes of the weights.
    pub fn bytes(&self) -> usize {
        (self.weight.len() + self.bias.len()) * size_of::<f32>()
    }

    /// `logits[branch][image] = weight[branch] * features[branch][image] + bias[branch]`, each sum in the order of
    /// the features, without fused operations: the same on every CPU.
    pub fn forward(&self, features: &[f32], logits: &mut [f32], n: usize, isa: Isa, pool: &Pool) {
        let Self { features: inputs, classes, .. } = *self;
        pool.for_each_chunk(logits, classes, |row, logits| {
            let branch = row / n;
            let weight = &self.weight[branch * inputs * classes..][..inputs * classes];
            let x = &features[row * inputs..][..inputs];
            isa.vectorize(|| {
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
