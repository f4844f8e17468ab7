//! Softmax cross-entropy and squared error.

use rrr_kernels::{Activation, BLOCK};

/// What a teacher says of the images of a step.
#[derive(Clone, Copy, Debug)]
pub struct Lesson<'a> {
    /// The teacher's softmax of its logits divided by `temperature`: `[n, classes]`.
    pub probabilities: &'a [f32],
    /// Above 0.
    pub temperature: f32,
    /// Weight of the teacher's word in the loss, in [0, 1]; the labels have the rest.
    pub share: f32,
}

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

/// `1 - share` times the [`cross_entropy`] with the labels plus `share` times that with a teacher's probabilities,
/// both softened by the temperature; the latter times its square, which keeps the size of the gradient (Hinton et
/// al. 2015, section 2). Sets `gradient` to its gradient.
pub(crate) fn taught_cross_entropy(
    logits: &Activation,
    labels: &[u32],
    smoothing: f32,
    lesson: &Lesson<'_>,
    gradient: &mut Activation,
) -> Loss {
    let (n, classes) = (logits.n(), logits.channels());
    let plane_len = logits.plane_len();
    let own = cross_entropy(logits, labels, smoothing, gradient);
    let [share, temperature] = [lesson.share, lesson.temperature].map(f64::from);
    gradient.data_mut().iter_mut().for_each(|g| *g *= 1.0 - lesson.share);
    let mut total = 0.0f64;
    for (image, wanted) in lesson.probabilities.chunks_exact(classes).enumerate() {
        let at = |class: usize| class / BLOCK * plane_len + image * BLOCK + class % BLOCK;
        let softened = |class: usize| f64::from(logits.data()[at(class)]) / temperature;
        let max = (0..classes).map(softened).fold(f64::NEG_INFINITY, f64::max);
        let log_sum = (0..classes).map(|c| (softened(c) - max).exp()).sum::<f64>().ln() + max;
        for (class, &wanted) in wanted.iter().enumerate() {
            let log_p = softened(class) - log_sum;
            total -= temperature * temperature * f64::from(wanted) * log_p;
            let slope = temperature * (log_p.exp() - f64::from(wanted)) / n as f64;
            gradient.data_mut()[at(class)] += (share * slope) as f32;
        }
    }
    let mean = (1.0 - share) * f64::from(own.mean) + share * total / n as f64;
    Loss { mean: mean as f32, ..own }
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

    fn random(channels: usize, n: usize) -> Activation {
        let mut a = Activation::zeros(channels, 1, 1, n);
        let mut seed = 1u32;
        let plane = a.plane_len();
        for image in 0..n {
            for c in 0..channels {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let value = (seed >> 8) as f32 / (1 << 22) as f32 - 2.0;
                a.data_mut()[c / BLOCK * plane + image * BLOCK + c % BLOCK] = value;
            }
        }
        a
    }

    #[test]
    fn a_teacher_that_says_the_labels_changes_nothing() {
        let (n, classes) = (3, BLOCK + 2);
        let logits = random(classes, n);
        let labels = [1, BLOCK as u32 + 1, 0];
        let mut probabilities = vec![0.0; n * classes];
        for (row, &label) in probabilities.chunks_exact_mut(classes).zip(&labels) {
            row[label as usize] = 1.0;
        }
        let [mut plain, mut taught] = [0, 1].map(|_| Activation::zeros(classes, 1, 1, n));
        let expected = cross_entropy(&logits, &labels, 0.0, &mut plain);
        let lesson = Lesson { probabilities: &probabilities, temperature: 1.0, share: 0.7 };
        let found = taught_cross_entropy(&logits, &labels, 0.0, &lesson, &mut taught);
        assert!((found.mean - expected.mean).abs() < 1e-5 && found.correct == expected.correct);
        assert!(plain.data().iter().zip(taught.data()).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn the_gradient_of_a_lesson_is_the_slope_of_its_loss() {
        let (n, classes) = (2, 5);
        let mut logits = random(classes, n);
        let probabilities = [0.1, 0.2, 0.3, 0.4, 0.0, 0.2, 0.2, 0.2, 0.2, 0.2];
        let lesson = Lesson { probabilities: &probabilities, temperature: 4.0, share: 0.7 };
        let mut gradient = Activation::zeros(classes, 1, 1, n);
        taught_cross_entropy(&logits, &[3, 1], 0.1, &lesson, &mut gradient);
        let mut scratch = Activation::zeros(classes, 1, 1, n);
        for at in (0..n).flat_map(|image| (0..classes).map(move |c| image * BLOCK + c)) {
            let value = logits.data()[at];
            let mut loss = |delta: f32| {
                logits.data_mut()[at] = value + delta;
                taught_cross_entropy(&logits, &[3, 1], 0.1, &lesson, &mut scratch).mean
            };
            let slope = (loss(1e-2) - loss(-1e-2)) / 2e-2;
            logits.data_mut()[at] = value;
            assert!((slope - gradient.data()[at]).abs() < 2e-4, "{slope} {}", gradient.data()[at]);
        }
    }

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
