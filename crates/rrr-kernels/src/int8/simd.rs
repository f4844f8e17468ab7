//! Sums of products of bytes, one implementation per instruction set.
//!
//! All functions are `inline(always)` and become real instructions once inlined into a function that has
//! the target features; the kernels in [`super::micro`] are such functions.

use super::finish;
use super::micro::{Panel, Tile};

/// Vectors of 32-bit sums of four products each, `u8` activations times `i8` weights.
pub(super) trait Dot: Copy {
    /// Sums for [`Dot::LANES`] channels.
    type Sum: Copy;
    /// Sums of a segment, perhaps in fewer bits.
    type Partial: Copy;
    /// Four activations, repeated.
    type Activations: Copy;
    /// Four weights for each channel.
    type Weights: Copy;
    /// Channels of a vector; divides 16.
    const LANES: usize;
    /// Whether steps add to the sums themselves, so that segments are nothing.
    const IN_PLACE: bool;

    /// All zero.
    ///
    /// # Safety
    /// The CPU must support the instruction set (as for every function of the trait).
    unsafe fn zero() -> Self::Sum;
    /// Four activations from `p`.
    ///
    /// # Safety
    /// `p` must be valid for reading 4 bytes.
    unsafe fn activations(p: *const u8) -> Self::Activations;
    /// `4 * LANES` weights from `p`, `[channel][4]`.
    ///
    /// # Safety
    /// `p` must be valid for reading them.
    unsafe fn weights(p: *const i8) -> Self::Weights;
    /// Begins a segment.
    ///
    /// # Safety
    /// See [`Dot::zero`].
    unsafe fn open(sum: Self::Sum) -> Self::Partial;
    /// Adds four products per channel.
    ///
    /// # Safety
    /// See [`Dot::zero`].
    unsafe fn step(partial: Self::Partial, a: Self::Activations, w: Self::Weights) -> Self::Partial;
    /// Ends a segment: `sum`, the one it began with, and what it added.
    ///
    /// # Safety
    /// See [`Dot::zero`].
    unsafe fn close(sum: Self::Sum, partial: Self::Partial) -> Self::Sum;
    /// Stores the sums of `LANES` channels to `p`.
    ///
    /// # Safety
    /// `p` must be valid for writing them.
    unsafe fn store(sum: Self::Sum, p: *mut i32);
    /// Fetches what lies at `p`, which may be anywhere, into the first-level cache.
    #[inline(always)]
    fn fetch(_p: *const u8) {}
    /// Finishes the sums of `R` rows of a panel, in runs of `G` that lie `A` bytes apart in the input.
    ///
    /// # Safety
    /// What the tile says of the panel must be true.
    #[inline(always)]
    unsafe fn finish<const R: usize, const G: usize, const A: usize, const N: usize>(
        t: &Tile<'_>,
        panel: &Panel,
        sums: &[[Self::Sum; N]; R],
    ) {
        // SAFETY: by the caller.
        unsafe { finish::in_memory::<Self, R, N>(t, panel, sums) }
    }
}

/// Implements [`Dot`] for x86.
#[cfg(target_arch = "x86_64")]
macro_rules! impl_x86 {
    ($name:ident, $v:ty, $lanes:literal, in_place: $in_place:literal, zero: $zero:expr, splat: $splat:ident, load: $load:ident,
     store: $store:ident, open($os:ident) => $open:expr, step($p:ident, $a:ident, $w:ident) => $step:expr,
     close($cs:ident, $cp:ident) => $close:expr $(, finish: $finish:ident)?) => {
        #[derive(Clone, Copy)]
        pub(in crate::int8) struct $name;

        impl Dot for $name {
            type Sum = $v;
            type Partial = $v;
            type Activations = $v;
            type Weights = $v;
            const LANES: usize = $lanes;
            const IN_PLACE: bool = $in_place;
            #[inline(always)]
            unsafe fn zero() -> $v {
                // SAFETY: features by the caller.
                unsafe { $zero }
            }
            #[inline(always)]
            unsafe fn activations(p: *const u8) -> $v {
                // SAFETY: pointer and features by the caller.
                unsafe { $splat(p.cast::<i32>().read_unaligned()) }
            }
            #[inline(always)]
            unsafe fn weights(p: *const i8) -> $v {
                // SAFETY: pointer and features by the caller.
                unsafe { $load(p.cast()) }
            }
            #[inline(always)]
            unsafe fn open($os: $v) -> $v {
                // SAFETY: features by the caller.
                unsafe { $open }
            }
            #[inline(always)]
            unsafe fn step($p: $v, $a: $v, $w: $v) -> $v {
                // SAFETY: features by the caller.
                unsafe { $step }
            }
            #[inline(always)]
            unsafe fn close($cs: $v, $cp: $v) -> $v {
                // SAFETY: features by the caller.
                unsafe { $close }
            }
            #[inline(always)]
            unsafe fn store(sum: $v, p: *mut i32) {
                // SAFETY: pointer and features by the caller.
                unsafe { $store(p.cast(), sum) }
            }
            $(
                #[inline(always)]
                fn fetch(p: *const u8) {
                    prefetch::<NEAR>(p);
                }
                #[inline(always)]
                unsafe fn finish<const R: usize, const G: usize, const A: usize, const N: usize>(
                    t: &Tile<'_>,
                    panel: &Panel,
                    sums: &[[$v; N]; R],
                ) {
                    // SAFETY: passed on to the caller.
                    unsafe { finish::avx512::$finish::<R, G, A, N>(t, panel, sums) }
                }
            )?
        }
    };
}

#[cfg(target_arch = "x86_64")]
#[allow(unused_variables, unused_unsafe, reason = "one macro serves all shapes of instructions")]
pub(super) mod x86 {
    use super::{Dot, Panel, Tile, finish};
    use crate::prefetch::{NEAR, prefetch};
    use std::arch::asm;
    use std::arch::x86_64::*;

    /// Hides where `v` comes from. The compiler would else add the products of a segment as a tree, for which
    /// there are not enough registers.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn in_order(mut v: __m256i) -> __m256i {
        if !cfg!(miri) {
            // SAFETY: no instruction at all.
            unsafe {
                asm!("/* {0} */", inout(ymm_reg) v, options(pure, nomem, nostack, preserves_flags));
            }
        }
        v
    }

    impl_x86!(Avx2, __m256i, 8, in_place: false, zero: _mm256_setzero_si256(), splat: _mm256_set1_epi32,
        load: _mm256_loadu_si256, store: _mm256_storeu_si256,
        open(s) => _mm256_setzero_si256(),
        step(p, a, w) => in_order(_mm256_add_epi16(p, _mm256_maddubs_epi16(a, w))),
        close(s, p) => _mm256_add_epi32(s, _mm256_madd_epi16(p, _mm256_set1_epi16(1))));

    impl_x86!(AvxVnni, __m256i, 8, in_place: true, zero: _mm256_setzero_si256(), splat: _mm256_set1_epi32,
        load: _mm256_loadu_si256, store: _mm256_storeu_si256,
        open(s) => s,
        step(p, a, w) => _mm256_dpbusd_avx_epi32(p, a, w),
        close(s, p) => p);

    impl_x86!(Avx512, __m512i, 16, in_place: false, zero: _mm512_setzero_si512(), splat: _mm512_set1_epi32,
        load: _mm512_loadu_si512, store: _mm512_storeu_si512,
        open(s) => _mm512_setzero_si512(),
        step(p, a, w) => _mm512_add_epi16(p, _mm512_maddubs_epi16(a, w)),
        close(s, p) => _mm512_add_epi32(s, _mm512_madd_epi16(p, _mm512_set1_epi16(1))), finish: in_registers);

    impl_x86!(Avx512Vnni, __m512i, 16, in_place: true, zero: _mm512_setzero_si512(), splat: _mm512_set1_epi32,
        load: _mm512_loadu_si512, store: _mm512_storeu_si512,
        open(s) => s,
        step(p, a, w) => _mm512_dpbusd_epi32(p, a, w),
        close(s, p) => p, finish: in_registers);
}

#[cfg(target_arch = "aarch64")]
pub(super) mod arm {
    use super::Dot;
    use std::arch::aarch64::*;
    use std::arch::asm;

    /// The dot product of ARMv8.2. It takes both factors as signed, which activations of 7 bits may be.
    #[derive(Clone, Copy)]
    pub(in crate::int8) struct NeonDot;

    /// `sum + a * w` in groups of four; the intrinsic is not stable yet.
    #[inline(always)]
    unsafe fn sdot(mut sum: int32x4_t, a: int8x16_t, w: int8x16_t) -> int32x4_t {
        // SAFETY: a register-only instruction; the feature by the caller.
        unsafe {
            asm!(".arch_extension dotprod", "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum, in(vreg) a,
                in(vreg) w, options(pure, nomem, nostack, preserves_flags));
        }
        sum
    }

    impl Dot for NeonDot {
        type Sum = int32x4_t;
        type Partial = int32x4_t;
        type Activations = int8x16_t;
        type Weights = int8x16_t;
        const LANES: usize = 4;
        const IN_PLACE: bool = true;
        #[inline(always)]
        unsafe fn zero() -> int32x4_t {
            // SAFETY: features by the caller.
            unsafe { vdupq_n_s32(0) }
        }
        #[inline(always)]
        unsafe fn activations(p: *const u8) -> int8x16_t {
            // SAFETY: pointer and features by the caller.
            unsafe { vreinterpretq_s8_u32(vdupq_n_u32(p.cast::<u32>().read_unaligned())) }
        }
        #[inline(always)]
        unsafe fn weights(p: *const i8) -> int8x16_t {
            // SAFETY: pointer and features by the caller.
            unsafe { vld1q_s8(p) }
        }
        #[inline(always)]
        unsafe fn open(sum: int32x4_t) -> int32x4_t {
            sum
        }
        #[inline(always)]
        unsafe fn step(partial: int32x4_t, a: int8x16_t, w: int8x16_t) -> int32x4_t {
            // SAFETY: features by the caller.
            unsafe { sdot(partial, a, w) }
        }
        #[inline(always)]
        unsafe fn close(_: int32x4_t, partial: int32x4_t) -> int32x4_t {
            partial
        }
        #[inline(always)]
        unsafe fn store(sum: int32x4_t, p: *mut i32) {
            // SAFETY: pointer and features by the caller.
            unsafe { vst1q_s32(p, sum) }
        }
    }

    /// Baseline NEON: products in 16 bits, added in pairs to 32 bits.
    #[derive(Clone, Copy)]
    pub(in crate::int8) struct Neon;

    impl Dot for Neon {
        /// Per channel, the sums of its even and odd pairs.
        type Sum = [int32x4_t; 2];
        type Partial = [int32x4_t; 2];
        type Activations = int16x8_t;
        type Weights = [int16x8_t; 2];
        const LANES: usize = 4;
        const IN_PLACE: bool = true;
        #[inline(always)]
        unsafe fn zero() -> [int32x4_t; 2] {
            // SAFETY: features by the caller.
            unsafe { [vdupq_n_s32(0); 2] }
        }
        #[inline(always)]
        unsafe fn activations(p: *const u8) -> int16x8_t {
            // SAFETY: pointer and features by the caller.
            unsafe {
                let a = vreinterpret_u8_u32(vdup_n_u32(p.cast::<u32>().read_unaligned()));
                vreinterpretq_s16_u16(vmovl_u8(a))
            }
        }
        #[inline(always)]
        unsafe fn weights(p: *const i8) -> [int16x8_t; 2] {
            // SAFETY: pointer and features by the caller.
            unsafe {
                let w = vld1q_s8(p);
                [vmovl_s8(vget_low_s8(w)), vmovl_high_s8(w)]
            }
        }
        #[inline(always)]
        unsafe fn open(sum: [int32x4_t; 2]) -> [int32x4_t; 2] {
            sum
        }
        #[inline(always)]
        unsafe fn step(partial: [int32x4_t; 2], a: int16x8_t, w: [int16x8_t; 2]) -> [int32x4_t; 2] {
            // SAFETY: features by the caller.
            unsafe { [0, 1].map(|i| vpadalq_s16(partial[i], vmulq_s16(a, w[i]))) }
        }
        #[inline(always)]
        unsafe fn close(_: [int32x4_t; 2], partial: [int32x4_t; 2]) -> [int32x4_t; 2] {
            partial
        }
        #[inline(always)]
        unsafe fn store(sum: [int32x4_t; 2], p: *mut i32) {
            // SAFETY: pointer and features by the caller.
            unsafe { vst1q_s32(p, vpaddq_s32(sum[0], sum[1])) }
        }
    }
}

/// Plain Rust.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Dot for Portable {
    type Sum = [i32; 4];
    type Partial = [i32; 4];
    type Activations = [i16; 4];
    type Weights = [i8; 16];
    const LANES: usize = 4;
    const IN_PLACE: bool = true;
    #[inline(always)]
    unsafe fn zero() -> [i32; 4] {
        [0; 4]
    }
    #[inline(always)]
    unsafe fn activations(p: *const u8) -> [i16; 4] {
        // SAFETY: pointer by the caller.
        unsafe { p.cast::<[u8; 4]>().read() }.map(i16::from)
    }
    #[inline(always)]
    unsafe fn weights(p: *const i8) -> [i8; 16] {
        // SAFETY: pointer by the caller.
        unsafe { p.cast::<[i8; 16]>().read() }
    }
    #[inline(always)]
    unsafe fn open(sum: [i32; 4]) -> [i32; 4] {
        sum
    }
    #[inline(always)]
    unsafe fn step(partial: [i32; 4], a: [i16; 4], w: [i8; 16]) -> [i32; 4] {
        std::array::from_fn(|c| {
            let products: [i32; 4] = std::array::from_fn(|k| i32::from(a[k]) * i32::from(w[4 * c + k]));
            partial[c] + (products[0] + products[1]) + (products[2] + products[3])
        })
    }
    #[inline(always)]
    unsafe fn close(_: [i32; 4], partial: [i32; 4]) -> [i32; 4] {
        partial
    }
    #[inline(always)]
    unsafe fn store(sum: [i32; 4], p: *mut i32) {
        // SAFETY: pointer by the caller.
        unsafe { p.cast::<[i32; 4]>().write(sum) }
    }
}
