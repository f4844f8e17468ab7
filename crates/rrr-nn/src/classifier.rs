//! Classifiers of pooled features, in f32.

use rrr_kernels::{Isa, Pool, Vectorize};

/// Classes whose sums are made at a time.
const WIDTH: usize = 16;

/// Images that share each weight on its way.
const ROWS: usize = 4;

/// Fully connected layers, one per branch.
pub(crate) struct Classifiers {
    /// `[branch][feature][column]`.
    weight: Vec<f32>,
    /// `[branch][column]`.
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
            let (features, unused) = (new.features, new.columns() - new.classes);
            for f in 0..features {
                new.weight.extend(w.iter().skip(f).step_by(features));
                new.weight.extend(std::iter::repeat_n(0.0, unused));
            }
            new.bias.extend(bias);
            new.bias.extend(std::iter::repeat_n(0.0, unused));
        }
        new
    }

    /// Classes, or more of them where they do not fill a vector.
    fn columns(&self) -> usize {
        self.classes.max(WIDTH)
    }

    /// Bytes of the weights.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.weight[..]) + size_of_val(&self.bias[..])
    }

    /// `logits[branch][image] = weight[branch] * features[branch][image] + bias[branch]`, each sum in the order of
    /// the features, without fused operations: the same on every CPU.
    pub fn forward(&self, features: &[f32], logits: &mut [f32], n: usize, isa: Isa, pool: &Pool) {
        let Self { features: inputs, classes, .. } = *self;
        let columns = self.columns();
        let groups = n.div_ceil(ROWS);
        let logits = logits.chunks_mut(n * classes).flat_map(|branch| branch.chunks_mut(ROWS * classes));
        pool.for_each(logits, |task, logits| {
            let (branch, first) = (task / groups, task % groups * ROWS);
            let x = &features[(branch * n + first) * inputs..][..logits.len() / classes * inputs];
            let weight = &self.weight[branch * columns * inputs..][..columns * inputs];
            let bias = &self.bias[branch * columns..][..columns];
            isa.vectorize(Rows { x, weight, bias, logits });
        });
    }
}

/// Some images of a branch.
struct Rows<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    logits: &'a mut [f32],
}

impl Vectorize for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { x, weight, bias, logits } = self;
        let inputs = weight.len() / bias.len();
        let images = x.len() / inputs;
        let classes = logits.len() / images;
        if images == ROWS {
            return classify::<ROWS>(x, weight, bias, logits);
        }
        for image in 0..images {
            let (x, logits) = (&x[image * inputs..][..inputs], &mut logits[image * classes..][..classes]);
            classify::<1>(x, weight, bias, logits);
        }
    }
}

/// Logits of `R` images.
#[inline(always)]
fn classify<const R: usize>(x: &[f32], weight: &[f32], bias: &[f32], logits: &mut [f32]) {
    let (columns, classes) = (bias.len(), logits.len() / R);
    let inputs = x.len() / R;
    let mut rows = [x; R];
    for (r, row) in rows.iter_mut().enumerate() {
        *row = &x[r * inputs..][..inputs];
    }
    for first in (0..columns).step_by(WIDTH) {
        // The last columns may be made twice.
        let first = first.min(columns - WIDTH);
        let mut sums = [[0.0; WIDTH]; R];
        for sums in &mut sums {
            sums.copy_from_slice(&bias[first..][..WIDTH]);
        }
        for f in 0..inputs {
            let weight = &weight[f * columns + first..][..WIDTH];
            for r in 0..R {
                let x = rows[r][f];
                for c in 0..WIDTH {
                    sums[r][c] += x * weight[c];
                }
            }
        }
        let some = first..classes.min(first + WIDTH);
        for r in 0..R {
            logits[r * classes..][some.clone()].copy_from_slice(&sums[r][..some.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_run_in_the_order_of_the_features() {
        let pool = Pool::new(2);
        let value = |i: usize| ((i * 37 % 101) as f32 - 50.0) / 7.0;
        for (classes, features, n) in [(3, 5, 1), (16, 7, 4), (20, 9, 6), (33, 2, 5)] {
            let branch = |b: usize| {
                let weight: Vec<f32> = (0..classes * features).map(|i| value(b + i)).collect();
                let bias: Vec<f32> = (0..classes).map(|i| value(b + 3 * i)).collect();
                (weight, bias)
            };
            let branches = [branch(1), branch(2)];
            let classifiers = Classifiers::new(branches.iter().map(|(w, b)| (&w[..], &b[..])));
            let x: Vec<f32> = (0..2 * n * features).map(|i| value(5 * i + 4)).collect();
            let mut expected = Vec::new();
            for (image, x) in x.chunks(features).enumerate() {
                let (weight, bias) = &branches[image / n];
                for (weight, bias) in weight.chunks(features).zip(bias) {
                    expected.push(x.iter().zip(weight).fold(*bias, |sum, (x, w)| sum + x * w));
                }
            }
            for isa in Isa::available() {
                let mut logits = vec![0.0; 2 * n * classes];
                classifiers.forward(&x, &mut logits, n, isa, &pool);
                assert_eq!(logits, expected, "{isa}, {classes} classes");
            }
        }
    }
}
