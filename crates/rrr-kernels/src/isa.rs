//! Instruction sets: detection at run time and dispatch.

use crate::int8::Int8Isa;
#[cfg(target_arch = "aarch64")]
use crate::simd::Neon;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};
use crate::simd::{Portable, Simd};
use std::fmt;
use std::iter;
use std::str::FromStr;
use std::sync::OnceLock;

/// An instruction set that the kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// AVX-512 with BF16, and AMX tiles of bf16 and int8; f32 is computed as with AVX-512.
    Amx,
    /// AVX-512 with BF16, whose dot products take pairs of bf16; f32 is computed as with AVX-512.
    Avx512Bf16,
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
    pub const ALL: [Isa; 6] = [Isa::Amx, Isa::Avx512Bf16, Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Portable];

    /// Whether this CPU (and operating system) can run it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => Isa::Avx512Bf16.is_available() && crate::tiles::amx::is_usable(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => {
                Isa::Avx512.is_available() && std::arch::is_x86_feature_detected!("avx512bf16")
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

    /// The instruction set in use: the fastest available, or what [`Isa::asked`] says.
    ///
    /// # Panics
    /// If [`Isa::asked`] is an error.
    pub fn active() -> Isa {
        static ACTIVE: OnceLock<Isa> = OnceLock::new();
        *ACTIVE.get_or_init(|| match Self::asked().unwrap_or_else(|e| panic!("{e}")) {
            Some((asked, _)) => asked,
            None => Self::available().next().unwrap_or(Isa::Portable),
        })
    }

    /// What the environment variable `RRR_ISA` asks for, in any case, for all kernels and for the 8-bit ones: the name of
    /// either stands for both. Nothing if it is empty or not set.
    ///
    /// # Errors
    /// If it names an unknown instruction set or one that this CPU lacks, and which there are.
    pub fn asked() -> Result<Option<(Isa, Int8Isa)>, String> {
        let Some(name) = std::env::var_os("RRR_ISA").filter(|name| !name.is_empty()) else { return Ok(None) };
        let name = name.to_string_lossy().to_lowercase();
        let there = names(Self::available(), Int8Isa::available());
        match Self::both(&name) {
            Some(both) if both.0.is_available() && both.1.is_available() => Ok(Some(both)),
            Some(_) => Err(format!("RRR_ISA is {name}, which this CPU lacks: it has {there}")),
            None => Err(format!("RRR_ISA is {name}, which is no instruction set: this CPU has {there}")),
        }
    }

    /// The instruction sets of this name.
    fn both(name: &str) -> Option<(Isa, Int8Isa)> {
        let int8 = || Int8Isa::ALL.into_iter().find(|isa| isa.to_string() == name);
        let isa = Self::ALL.into_iter().find(|isa| isa.to_string() == name);
        isa.map(|isa| (isa, Int8Isa::beside(isa))).or_else(|| int8().map(|int8| (int8.base(), int8)))
    }

    /// Whether it has products of bf16, rather than computing them in software, slower than in f32.
    pub fn has_bf16(self) -> bool {
        matches!(self, Isa::Amx | Isa::Avx512Bf16)
    }

    /// Whether its products of bf16 are faster than those of f32. AMD's CPUs (Zen 4 and newer) begin as many of the former
    /// instructions as of the latter, which have half the products; Intel's, outside of AMX, begin half as many or fewer.
    pub fn is_faster_in_bf16(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if self == Isa::Avx512Bf16 {
            let vendor = std::arch::x86_64::__cpuid(0);
            let name = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
            return name.as_flattened() == b"AuthenticAMD";
        }
        self == Isa::Amx
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
                Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512 => avx512(kernel),
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
                Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512 => {
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
            Isa::Avx512Bf16 => "avx512bf16",
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
        let known = || names(Self::ALL.into_iter(), Int8Isa::ALL.into_iter());
        let isa = Self::both(s).map(|(isa, _)| isa);
        isa.ok_or_else(|| format!("unknown instruction set `{s}` (known: {})", known()))
    }
}

/// All names, each once: every instruction set with those of the 8-bit kernels that extend it.
fn names(isas: impl Iterator<Item = Isa>, int8: impl Iterator<Item = Int8Isa>) -> String {
    let int8: Vec<_> = int8.collect();
    let mut names = Vec::new();
    for isa in isas {
        let extend = int8.iter().filter(|int8| int8.base() == isa).map(ToString::to_string);
        for name in iter::once(isa.to_string()).chain(extend) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names.join(", ")
}
