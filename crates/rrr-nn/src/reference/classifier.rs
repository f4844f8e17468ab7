//! The linear layer and softmax cross-entropy.

use super::to_f32;

/// Gradients of [`linear`].
#[derive(Clone, Debug)]
pub struct LinearGradients {
    /// With respect to the input, `[n, features]`.
    pub dx: Vec<f32>,
    /// With respect to the weight, `[classes, features]`.
    pub dweight: Vec<f32>,
    /// With respect to the bias, `[classes]`.
    pub dbias: Vec<f32>,
}

/// `y[n, classes] = x[n, features] * weight[classes, features]^T + bias[classes]`.
pub fn linear(x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let features = weight.len() / bias.len();
    let mut y = Vec::new();
    for row in x.chunks_exact(features) {
        for (w, b) in weight.chunks_exact(features).zip(bias) {
            let dot: f64 = row.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
            y.push((dot + f64::from(*b)) as f32);
        }
    }
    y
}

/// Gradients of [`linear`] for output gradient `dy`, `[n, classes]`.
pub fn linear_backward(x: &[f32], weight: &[f32], dy: &[f32], classes: usize) -> LinearGradients {
    let features = weight.len() / classes;
    let mut dx = vec![0f64; x.len()];
    let mut dweight = vec![0f64; weight.len()];
    let mut dbias = vec![0f64; classes];
    for (n, dy) in dy.chunks_exact(classes).enumerate() {
        for (class, &d) in dy.iter().enumerate() {
            dbias[class] += f64::from(d);
            for f in 0..features {
                let (xi, wi) = (n * features + f, class * features + f);
                dx[xi] += f64::from(d) * f64::from(weight[wi]);
                dweight[wi] += f64::from(d) * f64::from(x[xi]);
            }
        }
    }
    LinearGradients { dx: to_f32(dx), dweight: to_f32(dweight), dbias: to_f32(dbias) }
}

/// Loss of a batch and its gradient.
#[derive(Clone, Debug)]
pub struct Loss {
    /// Cross-entropy in nats, mean over the batch.
    pub loss: f32,
    /// Gradient of the mean with respect to the logits, `[n, classes]`.
    pub dlogits: Vec<f32>,
    /// Rows whose largest logit (the first of equals) is the label's.
    pub correct: usize,
}

/// Softmax cross-entropy of `logits` (`[n, classes]`) against `labels`.
///
/// With smoothing `s` the target is `1 - s` on the label plus `s / classes` on every class.
pub fn cross_entropy(logits: &[f32], labels: &[u32], smoothing: f32) -> Loss {
    let n = labels.len();
    let classes = logits.len() / n;
    let smoothing = f64::from(smoothing);
    let (mut loss, mut correct, mut dlogits) = (0f64, 0, Vec::new());
    for (row, &label) in logits.chunks_exact(classes).zip(labels) {
        let label = label as usize;
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let log_sum = row.iter().map(|v| f64::from(v - max).exp()).sum::<f64>().ln() + f64::from(max);
        for (class, &logit) in row.iter().enumerate() {
            let log_p = f64::from(logit) - log_sum;
            let target = smoothing / classes as f64 + if class == label { 1.0 - smoothing } else { 0.0 };
            loss -= target * log_p;
            dlogits.push(((log_p.exp() - target) / n as f64) as f32);
        }
        correct += usize::from(row.iter().position(|v| *v == max) == Some(label));
    }
    Loss { loss: (loss / n as f64) as f32, dlogits, correct }
}
