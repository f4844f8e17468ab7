//! Seeded draws whose values are fixed by this file and ChaCha8, not by a library's next version. Normals also depend
//! on the platform's `ln` and `cos`, to their last bit.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

pub(super) struct Draw(ChaCha8Rng);

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Uniform over `0..n`, without bias (Lemire, "Fast Random Integer Generation in an Interval", 2019).
    fn below(&mut self, n: u32) -> usize {
        let reject = n.wrapping_neg() % n;
        loop {
            let m = u64::from(self.0.next_u32()) * u64::from(n);
            if m as u32 >= reject {
                return (m >> 32) as usize;
            }
        }
    }

    /// A random order of `0..n` (Fisher and Yates).
    pub(super) fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i as u32 + 1));
        }
        order
    }

    /// Uniform over `-bound..bound`.
    pub(super) fn uniform(&mut self, bound: f64) -> f32 {
        (bound * (2.0 * self.unit() - 1.0)) as f32
    }

    /// Normal with mean 0 (Box and Muller).
    pub(super) fn normal(&mut self, std: f64) -> f32 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        (std * radius * (std::f64::consts::TAU * self.unit()).cos()) as f32
    }

    /// Uniform over 0 (included) to 1 (excluded).
    fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}
