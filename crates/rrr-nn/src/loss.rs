//! Softmax cross-entropy and squared error.

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

/// Mean over the batch of the squared distance between `outputs` and `values` (`[n, outputs]`), times `scale`; sets
/// `gradient` to its gradient.
pub(crate) fn squared_error(
    outputs: &Activation,
    values: &[f32],
    scale: f32,
    gradient: &mut Activation,
) -> Loss {
    let (n, channels) = (outputs.n(), outputs.channels());
    let factor = 2.0 * scale / n as f32;
    gradient.data_mut().fill(0.0);
    let mut total = 0.0f64;
    for (panel, (outputs, gradient)) in outputs.planes().zip(gradient.planes_mut()).enumerate() {
        let first = panel * BLOCK;
        let real = BLOCK.min(channels - first);
        let rows = outputs.chunks_exact(BLOCK).zip(gradient.chunks_exact_mut(BLOCK));
        for ((outputs, gradient), values) in rows.zip(values.chunks_exact(channels)) {
            let values = &values[first..first + real];
            for ((gradient, output), value) in gradient.iter_mut().zip(outputs).zip(values) {
                let distance = output - value;
                total += f64::from(distance * distance);
                *gradient = factor * distance;
            }
        }
    }
    Loss { mean: (total * f64::from(scale) / n as f64) as f32, correct: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `torch.nn.functional.mse_loss(outputs, values, reduction="sum") * scale / n` and its gradient, by hand: there is
    /// nothing to it but the layout.
    #[test]
    fn squared_error_and_its_gradient() {
        let (n, channels) = (3, BLOCK + 2);
        let mut outputs = Activation::zeros(channels, 1, 1, n);
        let mut gradient = Activation::zeros(channels, 1, 1, n);
        gradient.data_mut().fill(f32::NAN);
        let plane = outputs.plane_len();
        let at = |image: usize, c: usize| c / BLOCK * plane + image * BLOCK + c % BLOCK;
        let output = |image: usize, c: usize| (image * 7 + c * 3) as f32 / 10.0;
        let value = |image: usize, c: usize| (image * 5 + c * 2) as f32 / 8.0 - 1.0;
        for image in 0..n {
            for c in 0..channels {
                outputs.data_mut()[at(image, c)] = output(image, c);
            }
        }
        let values: Vec<f32> = (0..n * channels).map(|i| value(i / channels, i % channels)).collect();
        let loss = squared_error(&outputs, &values, 0.5, &mut gradient);
        let mut expected = 0.0;
        for image in 0..n {
            for c in 0..channels {
                let distance = output(image, c) - value(image, c);
                expected += 0.5 * distance * distance / n as f32;
                let slope = gradient.data()[at(image, c)];
                assert!((slope - distance / n as f32).abs() < 1e-5);
            }
        }
        assert!((loss.mean - expected).abs() < 1e-4 * expected);
        assert!(gradient.data().iter().all(|g| g.is_finite()), "padding is set too");
    }
}
