//! Batch norm with what follows it, forward and backward, on every instruction set against the definition in f64.

use proptest::prelude::*;
use rrr_kernels::{BN_EPS, BnBackward, BnForward, Isa, Norm, NormGrad, Skip, bn_backward, bn_forward};

const BLOCK: usize = 16;
const MOMENTUM: f32 = 0.1;

type Lanes = [f32; BLOCK];

/// `len` numbers around `center`.
fn reals(len: usize, seed: u64, center: f32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        center + (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// A plane with its row of zeros.
fn plane(rows: usize, seed: u64, center: f32) -> Vec<f32> {
    let mut plane = reals(rows * BLOCK, seed, center);
    plane.extend([0.0; BLOCK]);
    plane
}

/// A batch norm's input, parameters and what it sets.
#[derive(Clone)]
struct Case {
    x: Vec<f32>,
    gamma: Lanes,
    beta: Lanes,
    batch: [Lanes; 2],
    running: [Lanes; 2],
    gradients: [Lanes; 2],
}

impl Case {
    fn new(rows: usize, seed: u64, center: f32) -> Self {
        let lanes = |seed, center| reals(BLOCK, seed, center).try_into().unwrap();
        Self {
            x: plane(rows, seed, center),
            gamma: lanes(seed + 1, 1.0),
            beta: lanes(seed + 2, 0.0),
            batch: [[0.0; BLOCK]; 2],
            running: [lanes(seed + 3, 0.0), lanes(seed + 4, 2.0)],
            gradients: [[0.0; BLOCK]; 2],
        }
    }

    fn forward(&mut self) -> Norm<'_> {
        let ([mean, inv_std], [running_mean, running_var]) = (&mut self.batch, &mut self.running);
        let (x, gamma, beta) = (&self.x, &self.gamma, &self.beta);
        Norm { x, gamma, beta, mean, inv_std, running_mean, running_var }
    }

    fn backward(&mut self) -> NormGrad<'_> {
        let ([mean, inv_std], [dgamma, dbeta]) = (&self.batch, &mut self.gradients);
        let (x, gamma, beta) = (&self.x, &self.gamma, &self.beta);
        NormGrad { x, gamma, beta, mean, inv_std, dgamma, dbeta }
    }

    fn channel(&self, c: usize) -> Vec<f64> {
        channel(&self.x, c)
    }

    /// Mean and variance of a channel.
    fn statistics(&self, c: usize) -> (f64, f64) {
        let x = self.channel(c);
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        (mean, x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64)
    }

    /// A channel, normalised.
    fn normalized(&self, c: usize) -> Vec<f64> {
        let (mean, var) = self.statistics(c);
        self.channel(c).iter().map(|x| (x - mean) / (var + f64::from(BN_EPS)).sqrt()).collect()
    }

    /// How far rounding of the mean and of distances to it may move a normalised value: what f32 can not tell apart at the
    /// channel's largest value, in standard deviations.
    fn rounding(&self, c: usize) -> f64 {
        let largest = self.channel(c).iter().fold(0.0f64, |m, x| m.max(x.abs()));
        4.0 * f64::from(f32::EPSILON) * largest / (self.statistics(c).1 + f64::from(BN_EPS)).sqrt()
    }

    fn output(&self, c: usize) -> Vec<f64> {
        let affine = |x: &f64| x * f64::from(self.gamma[c]) + f64::from(self.beta[c]);
        self.normalized(c).iter().map(affine).collect()
    }

    fn output_rounding(&self, c: usize) -> f64 {
        f64::from(self.gamma[c].abs()) * self.rounding(c)
    }

    /// Gradients of gamma, beta and the input, from the output's.
    fn gradients(&self, c: usize, dy: &[f64]) -> (f64, f64, Vec<f64>) {
        let (x, count) = (self.normalized(c), dy.len() as f64);
        let (dbeta, dgamma) = (dy.iter().sum::<f64>(), dy.iter().zip(&x).map(|(g, x)| g * x).sum::<f64>());
        let scale = f64::from(self.gamma[c]) / (self.statistics(c).1 + f64::from(BN_EPS)).sqrt();
        let dx = dy.iter().zip(&x).map(|(g, x)| scale * (g - dbeta / count - x * dgamma / count)).collect();
        (dgamma, dbeta, dx)
    }
}

fn channel(plane: &[f32], c: usize) -> Vec<f64> {
    let rows = plane.len() / BLOCK - 1;
    (0..rows).map(|r| f64::from(plane[r * BLOCK + c])).collect()
}

/// Equal but for f32's rounding of the sums and for what else rounding does, `more`.
fn assert_close(what: &str, got: &[f64], want: &[f64], more: f64) {
    let allowed = more + 1e-4 * want.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= allowed, "{what}[{i}] is {got}, expected {want} within {allowed}");
    }
}

/// The gradient of a channel's input, which is what is left of terms as large as the output's gradient over the deviation.
fn assert_gradient(what: &str, got: &[f64], case: &Case, c: usize, dy: &[f64]) {
    let largest = dy.iter().fold(0.0f64, |m, g| m.max(g.abs()));
    let scale = f64::from(case.gamma[c].abs()) / (case.statistics(c).1 + f64::from(BN_EPS)).sqrt();
    let more = 4.0 * scale * largest * (case.rounding(c) + f64::from(f32::EPSILON));
    assert_close(what, got, &case.gradients(c, dy).2, more);
}

fn assert_set(isa: Isa, case: &Case, before: &Case, dy: &[Vec<f64>]) {
    let unbiased = dy[0].len() as f64 / (dy[0].len() as f64 - 1.0).max(1.0);
    for c in 0..BLOCK {
        let (mean, var) = case.statistics(c);
        let (dgamma, dbeta, _) = case.gradients(c, &dy[c]);
        let moved = |from: f32, to: f64| f64::from(from) + f64::from(MOMENTUM) * (to - f64::from(from));
        let running = [moved(before.running[0][c], mean), moved(before.running[1][c], var * unbiased)];
        let want = [mean, 1.0 / (var + f64::from(BN_EPS)).sqrt(), running[0], running[1], dgamma, dbeta];
        let moves = case.rounding(c) * dy[c].iter().map(|g| g.abs()).sum::<f64>();
        let all = [case.batch, case.running, case.gradients].concat();
        for (i, (got, want)) in all.iter().zip(want).enumerate() {
            let more = if i == 4 { moves } else { 0.0 };
            assert_close(&format!("{isa}: number {i} of channel {c}"), &[f64::from(got[c])], &[want], more);
        }
    }
}

/// Planes of some rows, forward and backward: nothing (0), a plane (1) or another batch norm's result (2) is added, and the
/// input's gradient has a plane of its own or not.
fn check(rows: usize, seed: u64, center: f32, skip: usize, own: bool) {
    let (first, second) = (Case::new(rows, seed, center), Case::new(rows, seed + 10, -center));
    let dy = plane(rows, seed + 20, 0.0);
    for isa in Isa::available() {
        let (mut norm, mut other) = (first.clone(), second.clone());
        let mut y = vec![0.0; dy.len()];
        let added = match skip {
            0 => Skip::None,
            1 => Skip::Plane(&second.x),
            _ => Skip::Norm(other.forward()),
        };
        bn_forward(isa, MOMENTUM, BnForward { norm: norm.forward(), skip: added, y: &mut y });
        for c in 0..BLOCK {
            let (skip, more) = match skip {
                0 => (vec![0.0; rows], 0.0),
                1 => (second.channel(c), 0.0),
                _ => (second.output(c), second.output_rounding(c)),
            };
            let want: Vec<f64> =
                first.output(c).iter().zip(skip).map(|(y, skip)| (y + skip).max(0.0)).collect();
            assert_close(
                &format!("{isa}: output {c}"),
                &channel(&y, c),
                &want,
                more + first.output_rounding(c),
            );
        }

        let (mut dy, mut dx, mut dskip) = (dy.clone(), vec![0.0; dy.len()], vec![0.0; dy.len()]);
        bn_backward(
            isa,
            BnBackward {
                y: (skip > 0).then_some(&y[..]),
                dy: &mut dy,
                norm: norm.backward(),
                dx: own.then_some(&mut dx[..]),
                skip: (skip == 2).then(|| (other.backward(), &mut dskip[..])),
            },
        );
        let before = plane(rows, seed + 20, 0.0);
        // Where a sum is next to zero, rounding decides.
        let kept: Vec<Vec<f64>> = (0..BLOCK)
            .map(|c| {
                let (g, y) = (channel(&before, c), channel(&y, c));
                g.iter().zip(y).map(|(g, y)| if y > 0.0 { *g } else { 0.0 }).collect()
            })
            .collect();
        assert_set(isa, &norm, &first, &kept);
        if skip == 2 {
            assert_set(isa, &other, &second, &kept);
        }
        for (c, kept) in kept.iter().enumerate() {
            let got = channel(if own { &dx } else { &dy }, c);
            assert_gradient(&format!("{isa}: gradient {c}"), &got, &first, c, kept);
            if own {
                assert_eq!(&channel(&dy, c), kept, "the gradient before ReLU");
            }
            if skip == 2 {
                assert_gradient(
                    &format!("{isa}: gradient of skip {c}"),
                    &channel(&dskip, c),
                    &second,
                    c,
                    kept,
                );
            }
        }
    }
}

/// Small enough for Miri (`.ci/miri`); sums of rows are added up once they are 64.
#[test]
fn small_planes_follow_the_definition() {
    check(2, 1, 3.0, 0, true);
    check(65, 2, 0.5, 1, false);
    check(3, 3, -2.0, 2, true);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    #[cfg_attr(miri, ignore = "too slow to interpret")]
    fn every_instruction_set_follows_the_definition(
        rows in 2..300usize,
        seed in any::<u32>(),
        center in -20.0..20.0f32,
        skip in 0..3usize,
        own in any::<bool>(),
    ) {
        check(rows, u64::from(seed), center, skip, own);
    }
}
