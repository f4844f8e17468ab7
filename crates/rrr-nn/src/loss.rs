//! Softmax cross-entropy.

use rrr_kernels::{Activation, BLOCK};

/// Loss of a batch, and its gradient.
pub(crate) struct Loss {
    /// Mean over the batch.
    pub mean: f32,
    /// Images whose largest logit is their label's.
    pub correct: usize,
}

/// Mean softmax cross-entropy with label smoothing, as `torch.nn.CrossEntropyLoss`; sets `gradient` to its
/// gradient. `logits` and `gradient` are one row per image.
pub(crate) fn cross_entropy(
    logits: &Activation,
    labels: &[u32],
    smoothing: f32,
    gradient: &mut Activation,
) -> Loss {
    let (n, classes) = (logits.n(), logits.channels());
    let plane_len = logits.plane_len();
    let at = |image: usize, class: usize| class / BLOCK * plane_len + image * BLOCK + class % BLOCK;
    gradient.data_mut().fill(0.0);
    let (mut total, mut correct) = (0.0f64, 0);
    for (image, &label) in labels.iter().enumerate() {
        let label = label as usize;
        let row = (0..classes).map(|c| f64::from(logits.data()[at(image, c)]));
        let max = row.clone().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = row.clone().map(|v| (v - max).exp()).sum::<f64>().ln() + max;
        let smooth = f64::from(smoothing) / classes as f64;
        for (class, v) in row.clone().enumerate() {
            let target = smooth + if class == label { 1.0 - f64::from(smoothing) } else { 0.0 };
            let log_p = v - log_sum;
            if target > 0.0 {
                total -= target * log_p;
            }
            gradient.data_mut()[at(image, class)] = ((log_p.exp() - target) / n as f64) as f32;
        }
        // The first maximum, as argmax has it.
        let first = (0, f64::NEG_INFINITY);
        let best = row.enumerate().fold(first, |best, (c, v)| if v > best.1 { (c, v) } else { best });
        correct += usize::from(best.0 == label);
    }
    Loss { mean: (total / n as f64) as f32, correct }
}
