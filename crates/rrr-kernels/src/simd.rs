//! Vectors of f32, one implementation per instruction set.
//!
//! All functions are `inline(always)` and become real instructions once inlined into a function that has
//! the target features; the micro-kernels in [`crate::micro`] are such functions.

/// A vector type and its operations.
pub trait Simd: Copy {
    /// The vector.
    type V: Copy;
    /// Its number of f32 lanes; divides 16.
    const LANES: usize;

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
    /// Lane-wise maximum with zero.
    ///
    /// # Safety
    /// See [`Simd::zero`].
    unsafe fn relu(a: Self::V) -> Self::V;
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
    ($name:ident, $v:ty, $lanes:expr,
     zero() => $zero:expr, load($lp:ident) => $load:expr, store($sp:ident, $sv:ident) => $store:expr,
     broadcast($bp:ident) => $broadcast:expr, mul_add($ma:ident, $mb:ident, $mc:ident) => $mul_add:expr,
     add($aa:ident, $ab:ident) => $add:expr, relu($ra:ident) => $relu:expr) => {
        impl Simd for $name {
            type V = $v;
            const LANES: usize = $lanes;
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
            unsafe fn relu($ra: $v) -> $v {
                // SAFETY: features by the caller.
                unsafe { $relu }
            }
        }
    };
}

// `relu` puts the zero first: x86's maximum returns its second operand when one is NaN, so NaN stays NaN.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Avx2, Avx512, Simd};
    use std::arch::x86_64::*;

    impl_simd!(Avx2, __m256, 8,
        zero() => _mm256_setzero_ps(),
        load(p) => _mm256_loadu_ps(p),
        store(p, v) => _mm256_storeu_ps(p, v),
        broadcast(p) => _mm256_set1_ps(*p),
        mul_add(a, b, c) => _mm256_fmadd_ps(a, b, c),
        add(a, b) => _mm256_add_ps(a, b),
        relu(a) => _mm256_max_ps(_mm256_setzero_ps(), a));

    impl_simd!(Avx512, __m512, 16,
        zero() => _mm512_setzero_ps(),
        load(p) => _mm512_loadu_ps(p),
        store(p, v) => _mm512_storeu_ps(p, v),
        broadcast(p) => _mm512_set1_ps(*p),
        mul_add(a, b, c) => _mm512_fmadd_ps(a, b, c),
        add(a, b) => _mm512_add_ps(a, b),
        relu(a) => relu512(a));

    #[inline(always)]
    unsafe fn relu512(a: __m512) -> __m512 {
        if cfg!(miri) {
            // Miri knows the AVX-512 arithmetic, but not its maximum.
            // SAFETY: both types are 16 floats.
            return unsafe {
                let lanes = std::mem::transmute::<__m512, [f32; 16]>(a);
                std::mem::transmute::<[f32; 16], __m512>(lanes.map(|x| if x < 0.0 { 0.0 } else { x }))
            };
        }
        // SAFETY: features by the caller.
        unsafe { _mm512_max_ps(_mm512_setzero_ps(), a) }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::{Neon, Simd};
    use std::arch::aarch64::*;

    impl_simd!(Neon, float32x4_t, 4,
        zero() => vdupq_n_f32(0.0),
        load(p) => vld1q_f32(p),
        store(p, v) => vst1q_f32(p, v),
        broadcast(p) => vld1q_dup_f32(p),
        mul_add(a, b, c) => vfmaq_f32(c, a, b),
        add(a, b) => vaddq_f32(a, b),
        relu(a) => vmaxq_f32(vdupq_n_f32(0.0), a));
}

#[allow(unused_unsafe)] // The macro serves intrinsics too.
mod portable {
    use super::{Portable, Simd};

    impl_simd!(Portable, [f32; 4], 4,
        zero() => [0.0; 4],
        load(p) => p.cast::<[f32; 4]>().read_unaligned(),
        store(p, v) => p.cast::<[f32; 4]>().write_unaligned(v),
        broadcast(p) => [*p; 4],
        // Not `f32::mul_add`: without an FMA instruction that is a slow library call.
        mul_add(a, b, c) => [a[0] * b[0] + c[0], a[1] * b[1] + c[1], a[2] * b[2] + c[2], a[3] * b[3] + c[3]],
        add(a, b) => [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]],
        relu(a) => a.map(|x| if x < 0.0 { 0.0 } else { x }));
}
