//! What the machine's multipliers can do at most: the yardstick of achieved speeds.

use crate::compute::Compute;
use crate::int8::Int8Compute;
use crate::isa::Kernel;
use crate::simd::Simd;
use crate::{BLOCK, Isa, Pool};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// How long one trial should last.
const TRIAL: Duration = Duration::from_millis(15);
/// Trials; the fastest counts, since a neighbour can only slow one down.
const TRIALS: usize = 9;

/// Multiply-adds per second of 32-bit floats that all threads of `compute` reach together in registers, times two:
/// the peak in FLOP/s of the instruction set at today's clock. Takes about 0.2 s.
pub fn fma_peak(compute: &Compute) -> f64 {
    let isa = compute.isa();
    best(compute.pool(), |rounds| {
        let mut done = 0;
        isa.run(MultiplyAdd { rounds, done: &mut done });
        done
    })
}

/// The same of products of bf16, with the instructions that there are for them; those of f32, which stand for them in
/// software, if there are none.
pub fn bf16_peak(compute: &Compute) -> f64 {
    let isa: Isa = compute.isa();
    let multiply_adds: Option<unsafe fn(u64) -> u64> = match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx => Some(crate::tiles::amx::bf16_multiply_adds),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Bf16 => Some(multiply_add_pairs),
        _ => None,
    };
    let Some(multiply_adds) = multiply_adds else { return fma_peak(compute) };
    // SAFETY: a `Compute` can only be made where the CPU has its instruction set.
    best(compute.pool(), |rounds| unsafe { multiply_adds(rounds) })
}

/// The same of products of bytes, in operations per second.
pub fn int8_peak(compute: &Int8Compute) -> f64 {
    best(compute.pool(), |rounds| compute.multiply_adds(rounds))
}

/// The most that all threads reach together, times two, of what does some rounds of multiply-adds and says how many it
/// did.
fn best(pool: &Pool, multiply_adds: impl Fn(u64) -> u64 + Sync) -> f64 {
    let threads = pool.threads();
    let per_round = multiply_adds(1);
    let mut rounds = 1 << 14;
    let mut best: f64 = 0.0;
    let mut trials = 0;
    while trials < TRIALS {
        let start = Instant::now();
        pool.run(threads, |_| {
            multiply_adds(black_box(rounds));
        });
        let elapsed = start.elapsed();
        if elapsed < TRIAL / 2 {
            rounds *= 2;
            continue;
        }
        let flops = 2 * rounds * threads as u64 * per_round;
        best = best.max(flops as f64 / elapsed.as_secs_f64());
        trials += 1;
    }
    best
}

/// Independent sums, enough to hide the latency of a multiply-add on every port, that fit the registers.
const SUMS: usize = 12;
const SUMS_OF_32_REGISTERS: usize = 24;

/// Rounds of multiply-adds.
struct MultiplyAdd<'a> {
    rounds: u64,
    /// Set to the number of multiply-adds.
    done: &'a mut u64,
}

impl Kernel for MultiplyAdd<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const N: usize>(self) {
        // SAFETY: the CPU by the caller.
        *self.done = unsafe {
            if S::REGISTERS == 32 {
                multiply_add::<S, SUMS_OF_32_REGISTERS>(self.rounds)
            } else {
                multiply_add::<S, SUMS>(self.rounds)
            }
        };
    }
}

/// Rounds on `N` sums of the form `sum = sum * scale + add`: those of one round do not wait for one another. Returns the
/// number of multiply-adds.
///
/// # Safety
/// The CPU must support `S`.
#[inline(always)]
unsafe fn multiply_add<S: Simd, const N: usize>(rounds: u64) -> u64 {
    let one = black_box([1.0f32; BLOCK]);
    let tiny = black_box([1e-9f32; BLOCK]);
    // Values that the compiler must take for different, lest it keeps one sum for all.
    let starts = black_box([[0.0f32; BLOCK]; N]);
    let mut out = [0.0f32; BLOCK];
    // SAFETY: the CPU by the caller; vectors have at most 16 lanes.
    unsafe {
        let (scale, add) = (S::load(one.as_ptr()), S::load(tiny.as_ptr()));
        let mut sums: [S::V; N] = std::array::from_fn(|i| S::load(starts[i].as_ptr()));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = S::mul_add(*sum, scale, add);
            }
        }
        let total = sums.into_iter().reduce(|a, b| S::add(a, b)).unwrap_or(add);
        S::store(out.as_mut_ptr(), total);
    }
    // Lest the compiler leaves the sums out.
    black_box(out);
    rounds * (N * S::LANES) as u64
}

/// Rounds of dot products of pairs of bf16; returns the number of multiply-adds.
///
/// # Safety
/// The CPU must have AVX-512 with BF16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn multiply_add_pairs(rounds: u64) -> u64 {
    use std::arch::x86_64::*;
    // As in `multiply_add`.
    let starts = black_box([[0.0f32; BLOCK]; SUMS_OF_32_REGISTERS]);
    let mut out = [0.0f32; BLOCK];
    // SAFETY: the CPU by the caller; all rows are of 16 floats, and all bits are valid for pairs of bf16.
    unsafe {
        let mut sums = starts.map(|start| _mm512_loadu_ps(start.as_ptr()));
        let pairs = std::mem::transmute::<__m512, __m512bh>(sums[0]);
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, pairs, pairs);
            }
        }
        for sum in sums {
            _mm512_storeu_ps(out.as_mut_ptr(), _mm512_add_ps(sum, _mm512_loadu_ps(out.as_ptr())));
        }
    }
    black_box(out);
    rounds * (SUMS_OF_32_REGISTERS * 2 * BLOCK) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::int8::Int8Isa;
    use std::sync::Arc;

    #[test]
    #[cfg_attr(miri, ignore = "too slow to interpret")]
    fn every_instruction_set_has_a_peak() {
        let pool = Arc::new(Pool::new(1));
        for isa in Isa::available() {
            let compute = Compute::with_isa(Arc::clone(&pool), isa).unwrap();
            for peak in [fma_peak(&compute), bf16_peak(&compute)] {
                assert!(peak > 1e6 && peak.is_finite(), "{isa}: {peak}");
            }
        }
        for isa in Int8Isa::available() {
            let peak = int8_peak(&Int8Compute::with_isa(Arc::clone(&pool), isa).unwrap());
            assert!(peak > 1e6 && peak.is_finite(), "{isa}: {peak}");
        }
    }
}
