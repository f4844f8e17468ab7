//! What the machine's multipliers can do at most: the yardstick of achieved speeds.

use crate::compute::Compute;
use crate::isa::Isa;
#[cfg(target_arch = "aarch64")]
use crate::simd::Neon;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};
use crate::simd::{Portable, Simd};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// How long one trial should last.
const TRIAL: Duration = Duration::from_millis(15);
/// Trials; the fastest counts, since a neighbour can only slow one down.
const TRIALS: usize = 9;

/// Multiply-adds per second of 32-bit floats that all threads of `compute` reach together in registers, times two:
/// the peak in FLOP/s of the instruction set at today's clock. Takes about 0.2 s.
pub fn fma_peak(compute: &Compute) -> f64 {
    let (isa, threads) = (compute.isa(), compute.pool().threads());
    let mut rounds = 1 << 14;
    let mut best: f64 = 0.0;
    let mut trials = 0;
    while trials < TRIALS {
        let start = Instant::now();
        compute.pool().run(threads, |_| {
            black_box(multiply_add(isa, black_box(rounds)));
        });
        let elapsed = start.elapsed();
        if elapsed < TRIAL / 2 {
            rounds *= 2;
            continue;
        }
        let flops = 2 * rounds * (threads * per_round(isa)) as u64;
        best = best.max(flops as f64 / elapsed.as_secs_f64());
        trials += 1;
    }
    best
}

/// Independent sums, enough to hide the latency of a multiply-add on every port, that fit the registers.
const SUMS: usize = 12;
const SUMS_OF_32_REGISTERS: usize = 24;

/// Multiply-adds of a round.
fn per_round(isa: Isa) -> usize {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx | Isa::Avx512 => SUMS_OF_32_REGISTERS * Avx512::LANES,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => SUMS * Avx2::LANES,
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => SUMS_OF_32_REGISTERS * Neon::LANES,
        _ => SUMS * Portable::LANES,
    }
}

/// Runs `rounds` rounds; the value only keeps the compiler from leaving them out.
fn multiply_add(isa: Isa, rounds: u64) -> f32 {
    assert!(isa.is_available(), "a Compute has an instruction set of this CPU");
    // SAFETY: the CPU has the instruction set, as just checked.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx | Isa::Avx512 => avx512(rounds),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2(rounds),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => neon(rounds),
            _ => body::<Portable, SUMS>(rounds),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
fn avx512(rounds: u64) -> f32 {
    // SAFETY: the features are those of this function.
    unsafe { body::<Avx512, SUMS_OF_32_REGISTERS>(rounds) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(rounds: u64) -> f32 {
    // SAFETY: the features are those of this function.
    unsafe { body::<Avx2, SUMS>(rounds) }
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn neon(rounds: u64) -> f32 {
    // SAFETY: the features are those of this function.
    unsafe { body::<Neon, SUMS_OF_32_REGISTERS>(rounds) }
}

/// `N` sums of the form `sum = sum * scale + add`: those of one round do not wait for one another.
#[inline(always)]
unsafe fn body<S: Simd, const N: usize>(rounds: u64) -> f32 {
    let one = black_box([1.0f32; 16]);
    let tiny = black_box([1e-9f32; 16]);
    // Values that the compiler must take for different, lest it keeps one sum for all.
    let starts = black_box([[0.0f32; 16]; N]);
    let mut out = [0.0f32; 16];
    // SAFETY: the caller vouches for the instruction set; vectors have at most 16 lanes.
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
    out[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pool;
    use std::sync::Arc;

    #[test]
    fn every_instruction_set_has_a_peak() {
        let pool = Arc::new(Pool::new(1));
        for isa in Isa::available() {
            let peak = fma_peak(&Compute::with_isa(Arc::clone(&pool), isa).unwrap());
            assert!(peak > 1e6 && peak.is_finite(), "{isa}: {peak}");
        }
    }
}
