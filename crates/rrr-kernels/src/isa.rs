//! Instruction sets: detection at run time and dispatch.

use crate::int8::Int8Isa;
#[cfg(target_arch = "aarch64")]
use crate::simd::Neon;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};
use crate::simd::{Portable, Simd};
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// An instruction set that the kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// AVX-512 with BF16, and AMX tiles of bf16 and int8; f32 is computed as with AVX-512.
    Amx,
    /// x86-64 with AVX-512 F, VL, BW and DQ.
    Avx512,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// AArch64 with NEON.
    Neon,
    /// Any CPU, left to the compiler.
    Portable,
}

impl Isa {
    /// All instruction sets, fastest first.
    pub const ALL: [Isa; 5] = [Isa::Amx, Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Portable];

    /// Whether this CPU (and operating system) can run it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => {
                Isa::Avx512.is_available()
                    && std::arch::is_x86_feature_detected!("avx512bf16")
                    && crate::tiles::amx::is_usable()
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("avx512vl")
                    && std::arch::is_x86_feature_detected!("avx512bw")
                    && std::arch::is_x86_feature_detected!("avx512dq")
                    && Isa::Avx2.is_available()
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            Isa::Portable => true,
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }

    /// Every instruction set that this CPU can run, fastest first.
    pub fn available() -> impl Iterator<Item = Isa> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The instruction set in use: the fastest available, or the one named by the environment variable
    /// `RRR_ISA` (`amx`, `avx512`, `avx2`, `neon` or `portable`; the other names of
    /// [`Int8Isa`](crate::int8::Int8Isa) stand for what they extend).
    ///
    /// # Panics
    /// If [`Int8Isa::asked`] is an error.
    pub fn active() -> Isa {
        static ACTIVE: OnceLock<Isa> = OnceLock::new();
        *ACTIVE.get_or_init(|| match Int8Isa::asked().unwrap_or_else(|e| panic!("{e}")) {
            Some(asked) => asked.base(),
            None => Self::available().next().unwrap_or(Isa::Portable),
        })
    }

    pub(crate) fn unknown(name: &str) -> String {
        let known = Int8Isa::ALL.map(|isa| isa.to_string()).join(", ");
        format!("unknown instruction set `{name}` (known: {known})")
    }

    /// Runs a kernel with the vectors of this instruction set.
    ///
    /// # Panics
    /// If the CPU lacks the instruction set.
    pub(crate) fn run<K: Kernel>(self, kernel: K) {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn avx2<K: Kernel>(kernel: K) {
            // SAFETY: this function has the features.
            unsafe { kernel.run::<Avx2, 2>() }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
        fn avx512<K: Kernel>(kernel: K) {
            // SAFETY: this function has the features.
            unsafe { kernel.run::<Avx512, 1>() }
        }
        #[cfg(target_arch = "aarch64")]
        #[target_feature(enable = "neon")]
        fn neon<K: Kernel>(kernel: K) {
            // SAFETY: this function has the features.
            unsafe { kernel.run::<Neon, 4>() }
        }
        assert!(self.is_available(), "this CPU does not support {self}");
        // SAFETY: the features were detected just above.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Isa::Amx | Isa::Avx512 => avx512(kernel),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => avx2(kernel),
                #[cfg(target_arch = "aarch64")]
                Isa::Neon => neon(kernel),
                _ => kernel.run::<Portable, 4>(),
            }
        }
    }

    /// Runs `work` compiled for this instruction set: the compiler may use its instructions in everything that
    /// is inlined into it. What every CPU of the architecture has, as NEON on AArch64, is used anyway.
    ///
    /// # Panics
    /// If it is compiled for instructions that the CPU lacks.
    #[inline]
    pub fn vectorize<W: Vectorize>(self, work: W) -> W::Output {
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx2,fma")]
            fn avx2<W: Vectorize>(work: W) -> W::Output {
                work.run()
            }
            #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
            fn avx512<W: Vectorize>(work: W) -> W::Output {
                work.run()
            }
            match self {
                Isa::Avx2 => {
                    assert!(self.is_available());
                    // SAFETY: the features were detected just above.
                    return unsafe { avx2(work) };
                }
                Isa::Amx | Isa::Avx512 => {
                    assert!(self.is_available());
                    // SAFETY: the features were detected just above.
                    return unsafe { avx512(work) };
                }
                _ => {}
            }
        }
        work.run()
    }
}

/// Work on rows of [`Simd`] vectors, which [`Isa::run`] compiles for every instruction set.
pub(crate) trait Kernel {
    /// Does it, `N` vectors being a row of 16. `inline(always)`, as all that it calls.
    ///
    /// # Safety
    /// The CPU must support `S`.
    unsafe fn run<S: Simd, const N: usize>(self);
}

/// Work that [`Isa::vectorize`] compiles for every instruction set.
///
/// Closures are, as far as the compiler inlines them, which with more than a short loop it often does not: what counts is
/// a type of its own, whose `run` (and all that it calls) is `inline(always)`.
pub trait Vectorize {
    /// What it gives.
    type Output;
    /// Does it.
    fn run(self) -> Self::Output;
}

impl<R, F: FnOnce() -> R> Vectorize for F {
    type Output = R;

    #[inline(always)]
    fn run(self) -> R {
        self()
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isa::Amx => "amx",
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Neon => "neon",
            Isa::Portable => "portable",
        })
    }
}

impl FromStr for Isa {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let of_int8 = || Int8Isa::named(s).map(Int8Isa::base);
        let named = Self::ALL.into_iter().find(|isa| isa.to_string() == s);
        named.or_else(of_int8).ok_or_else(|| Self::unknown(s))
    }
}
