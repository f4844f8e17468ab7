//! Vectors of f32, one implementation per instruction set.
//!
//! All functions are `inline(always)` and become real instructions once inlined into a function that has
//! the target features; the micro-kernels in [`crate::micro`] are such functions.

#![allow(clippy::needless_range_loop, reason = "several rows are indexed by vector")]

use crate::micro::BLOCK;

/// A vector type and its operations.
pub trait Simd: Copy {
    /// The vector.
    type V: Copy;
    /// Its number of f32 lanes; divides 16.
    const LANES: usize;
    /// Registers that hold such vectors.
    const REGISTERS: usize;

    /// All lanes zero.
    ///
    /// # Safety
    /// The CPU must support the instruction set (as for every function of the trait).
    unsafe fn zero() -> Self::V;
    /// `LANES` values from `p`, any alignment.
    ///
    /// # Safety
    /// `p` must be valid for reading them.
    unsafe fn load(p: *const f32) -> Self::V;
    /// Stores to `p`, any alignment.
    ///
    /// # Safety
    /// `p` must be valid for writing `LANES` values.
    unsafe fn store(p: *mut f32, v: Self::V);
    /// `*p` in every lane.
    ///
    /// # Safety
    /// `p` must be valid for reading one value.
    unsafe fn broadcast(p: *const f32) -> Self::V;
    /// `a * b + c`.
    ///
    /// # Safety
    /// See [`Simd::zero`].
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a + b`.
    ///
    /// # Safety
    /// See [`Simd::zero`].
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    ///
    /// # Safety
    /// See [`Simd::zero`].
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`.
    ///
    /// # Safety
    /// See [`Simd::zero`].
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// Lane-wise maximum with zero.
    ///
    /// # Safety
    /// See [`Simd::zero`].
    unsafe fn relu(a: Self::V) -> Self::V;
    /// `a` in the lanes where `b` is positive, else 0.
    ///
    /// # Safety
    /// See [`Simd::zero`].
    unsafe fn where_positive(a: Self::V, b: Self::V) -> Self::V;
}

/// A row of 16 channels, in `N` vectors.
#[derive(Clone, Copy)]
pub struct Row<S: Simd, const N: usize>([S::V; N]);

/// Functions of rows, lane by lane as those of [`Simd`].
macro_rules! row_functions {
    ($($name:ident($($other:ident),*))+) => {$(
        #[doc = concat!("[`Simd::", stringify!($name), "`]")]
        ///
        /// # Safety
        /// The CPU must support the instruction set.
        #[inline(always)]
        pub unsafe fn $name(self $(, $other: Self)*) -> Self {
            let mut out = self;
            for n in 0..N {
                // SAFETY: by the caller.
                out.0[n] = unsafe { S::$name(self.0[n] $(, $other.0[n])*) };
            }
            out
        }
    )+};
}

impl<S: Simd, const N: usize> Row<S, N> {
    row_functions! { add(b) sub(b) mul(b) mul_add(b, c) relu() where_positive(b) }

    /// # Safety
    /// The CPU must support the instruction set.
    #[inline(always)]
    pub unsafe fn zero() -> Self {
        // SAFETY: by the caller.
        Self([unsafe { S::zero() }; N])
    }

    /// # Safety
    /// The CPU must support the instruction set.
    #[inline(always)]
    pub unsafe fn load(from: &[f32; BLOCK]) -> Self {
        const { assert!(N * S::LANES == BLOCK) };
        // SAFETY: the CPU by the caller, the length was checked.
        unsafe {
            let mut row = Self::zero();
            for n in 0..N {
                row.0[n] = S::load(from.as_ptr().add(n * S::LANES));
            }
            row
        }
    }

    /// # Safety
    /// The CPU must support the instruction set.
    #[inline(always)]
    pub unsafe fn store(self, to: &mut [f32; BLOCK]) {
        const { assert!(N * S::LANES == BLOCK) };
        for n in 0..N {
            // SAFETY: the CPU by the caller, the length was checked.
            unsafe { S::store(to.as_mut_ptr().add(n * S::LANES), self.0[n]) }
        }
    }

    /// # Safety
    /// The CPU must support the instruction set.
    #[inline(always)]
    pub unsafe fn lanes(self) -> [f32; BLOCK] {
        let mut lanes = [0.0; BLOCK];
        // SAFETY: by the caller.
        unsafe { self.store(&mut lanes) };
        lanes
    }
}

/// AVX2 and FMA, 8 lanes.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx2;

/// AVX-512, 16 lanes.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx512;

/// NEON, 4 lanes.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy)]
pub struct Neon;

/// Plain Rust, 4 lanes: what baseline x86-64 and most other CPUs have registers for.
#[derive(Clone, Copy)]
pub struct Portable;

macro_rules! impl_simd {
    ($name:ident, $v:ty, $lanes:expr, registers: $registers:expr,
     zero() => $zero:expr, load($lp:ident) => $load:expr, store($sp:ident, $sv:ident) => $store:expr,
     broadcast($bp:ident) => $broadcast:expr, mul_add($ma:ident, $mb:ident, $mc:ident) => $mul_add:expr,
     add($aa:ident, $ab:ident) => $add:expr, sub($sa:ident, $sb:ident) => $sub:expr,
     mul($mua:ident, $mub:ident) => $mul:expr, relu($ra:ident) => $relu:expr,
     where_positive($wa:ident, $wb:ident) => $where_positive:expr) => {
        impl Simd for $name {
            type V = $v;
            const LANES: usize = $lanes;
            const REGISTERS: usize = $registers;
            #[inline(always)]
            unsafe fn zero() -> $v {
                // SAFETY: features by the caller.
                unsafe { $zero }
            }
            #[inline(always)]
            unsafe fn load($lp: *const f32) -> $v {
                // SAFETY: pointer and features by the caller.
                unsafe { $load }
            }
            #[inline(always)]
            unsafe fn store($sp: *mut f32, $sv: $v) {
                // SAFETY: pointer and features by the caller.
                unsafe { $store }
            }
            #[inline(always)]
            unsafe fn broadcast($bp: *const f32) -> $v {
                // SAFETY: pointer and features by the caller.
                unsafe { $broadcast }
            }
            #[inline(always)]
            unsafe fn mul_add($ma: $v, $mb: $v, $mc: $v) -> $v {
                // SAFETY: features by the caller.
                unsafe { $mul_add }
            }
            #[inline(always)]
            unsafe fn add($aa: $v, $ab: $v) -> $v {
                // SAFETY: features by the caller.
                unsafe { $add }
            }
            #[inline(always)]
            unsafe fn sub($sa: $v, $sb: $v) -> $v {
                // SAFETY: features by the caller.
                unsafe { $sub }
            }
            #[inline(always)]
            unsafe fn mul($mua: $v, $mub: $v) -> $v {
                // SAFETY: features by the caller.
                unsafe { $mul }
            }
            #[inline(always)]
            unsafe fn relu($ra: $v) -> $v {
                // SAFETY: features by the caller.
                unsafe { $relu }
            }
            #[inline(always)]
            unsafe fn where_positive($wa: $v, $wb: $v) -> $v {
                // SAFETY: features by the caller.
                unsafe { $where_positive }
            }
        }
    };
}

// x86's maximum returns its second operand when one is NaN; so `relu` puts the zero first, and NaN stays NaN.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Avx2, Avx512, Simd};
    use std::arch::x86_64::*;

    impl_simd!(Avx2, __m256, 8, registers: 16,
        zero() => _mm256_setzero_ps(),
        load(p) => _mm256_loadu_ps(p),
        store(p, v) => _mm256_storeu_ps(p, v),
        broadcast(p) => _mm256_set1_ps(*p),
        mul_add(a, b, c) => _mm256_fmadd_ps(a, b, c),
        add(a, b) => _mm256_add_ps(a, b),
        sub(a, b) => _mm256_sub_ps(a, b),
        mul(a, b) => _mm256_mul_ps(a, b),
        relu(a) => _mm256_max_ps(_mm256_setzero_ps(), a),
        where_positive(a, b) => _mm256_and_ps(a, _mm256_cmp_ps::<_CMP_GT_OQ>(b, _mm256_setzero_ps())));

    impl_simd!(Avx512, __m512, 16, registers: 32,
        zero() => _mm512_setzero_ps(),
        load(p) => _mm512_loadu_ps(p),
        store(p, v) => _mm512_storeu_ps(p, v),
        broadcast(p) => _mm512_set1_ps(*p),
        mul_add(a, b, c) => _mm512_fmadd_ps(a, b, c),
        add(a, b) => _mm512_add_ps(a, b),
        sub(a, b) => _mm512_sub_ps(a, b),
        mul(a, b) => _mm512_mul_ps(a, b),
        relu(a) => relu512(a),
        where_positive(a, b) => where_positive512(a, b));

    #[inline(always)]
    unsafe fn where_positive512(a: __m512, b: __m512) -> __m512 {
        // SAFETY: features by the caller.
        unsafe {
            if cfg!(miri) {
                return lanes512(a, b, |a, b| if b > 0.0 { a } else { 0.0 });
            }
            _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(b, _mm512_setzero_ps()), a)
        }
    }

    #[inline(always)]
    unsafe fn relu512(a: __m512) -> __m512 {
        // SAFETY: features by the caller.
        unsafe {
            if cfg!(miri) {
                return lanes512(a, a, |a, _| if a < 0.0 { 0.0 } else { a });
            }
            _mm512_max_ps(_mm512_setzero_ps(), a)
        }
    }

    /// For Miri, which knows the AVX-512 arithmetic, but not its maximum and comparisons.
    ///
    /// # Safety
    /// The CPU must have AVX-512.
    unsafe fn lanes512(a: __m512, b: __m512, f: impl Fn(f32, f32) -> f32) -> __m512 {
        // SAFETY: both types are 16 floats.
        unsafe {
            let [a, b] = [a, b].map(|v| std::mem::transmute::<__m512, [f32; 16]>(v));
            std::mem::transmute::<[f32; 16], __m512>(std::array::from_fn(|i| f(a[i], b[i])))
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::{Neon, Simd};
    use std::arch::aarch64::*;

    impl_simd!(Neon, float32x4_t, 4, registers: 32,
        zero() => vdupq_n_f32(0.0),
        load(p) => vld1q_f32(p),
        store(p, v) => vst1q_f32(p, v),
        broadcast(p) => vld1q_dup_f32(p),
        mul_add(a, b, c) => vfmaq_f32(c, a, b),
        add(a, b) => vaddq_f32(a, b),
        sub(a, b) => vsubq_f32(a, b),
        mul(a, b) => vmulq_f32(a, b),
        relu(a) => vmaxq_f32(vdupq_n_f32(0.0), a),
        where_positive(a, b) => vbslq_f32(vcgtzq_f32(b), a, vdupq_n_f32(0.0)));
}

#[allow(unused_unsafe)] // The macro serves intrinsics too.
mod portable {
    use super::{Portable, Simd};

    impl_simd!(Portable, [f32; 4], 4, registers: 16,
        zero() => [0.0; 4],
        load(p) => p.cast::<[f32; 4]>().read_unaligned(),
        store(p, v) => p.cast::<[f32; 4]>().write_unaligned(v),
        broadcast(p) => [*p; 4],
        // Not `f32::mul_add`: without an FMA instruction that is a slow library call.
        mul_add(a, b, c) => [a[0] * b[0] + c[0], a[1] * b[1] + c[1], a[2] * b[2] + c[2], a[3] * b[3] + c[3]],
        add(a, b) => [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]],
        sub(a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2], a[3] - b[3]],
        mul(a, b) => [a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3]],
        relu(a) => a.map(|x| if x < 0.0 { 0.0 } else { x }),
        where_positive(a, b) => lanes(a, b, |a, b| if b > 0.0 { a } else { 0.0 }));

    #[inline(always)]
    fn lanes(a: [f32; 4], b: [f32; 4], f: impl Fn(f32, f32) -> f32) -> [f32; 4] {
        [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
    }
}
