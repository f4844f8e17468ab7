//! Instruction sets of the 8-bit kernels: those of [`Isa`], told apart by their dot products.

use crate::Isa;
use std::fmt;
use std::sync::OnceLock;

/// An instruction set that the 8-bit kernels are written for. All of them give the same integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Int8Isa {
    /// AMX: tiles of 16 rows x 16 channels, 64 products per sum in one instruction.
    Amx,
    /// AVX-512 with VNNI: four products and their sum in one instruction, 16 channels wide.
    Avx512Vnni,
    /// AVX-512 without VNNI: products and sums in 16 bits first.
    Avx512,
    /// AVX2 with AVX-VNNI, 8 channels wide.
    AvxVnni,
    /// AVX2: products and sums in 16 bits first.
    Avx2,
    /// NEON with the dot product of ARMv8.2.
    NeonDot,
    /// NEON: products in 16 bits first.
    Neon,
    /// Any CPU, left to the compiler.
    Portable,
    /// Any CPU: the loops of AMX on tiles in software. Slower than all others, and there to test those loops.
    Tiles,
}

impl Int8Isa {
    /// All instruction sets, fastest first.
    pub const ALL: [Int8Isa; 9] = [
        Int8Isa::Amx,
        Int8Isa::Avx512Vnni,
        Int8Isa::Avx512,
        Int8Isa::AvxVnni,
        Int8Isa::Avx2,
        Int8Isa::NeonDot,
        Int8Isa::Neon,
        Int8Isa::Portable,
        Int8Isa::Tiles,
    ];

    /// The instruction set of the other kernels that this one extends.
    pub fn base(self) -> Isa {
        match self {
            Int8Isa::Amx => Isa::Amx,
            Int8Isa::Avx512Vnni | Int8Isa::Avx512 => Isa::Avx512,
            Int8Isa::AvxVnni | Int8Isa::Avx2 => Isa::Avx2,
            Int8Isa::NeonDot | Int8Isa::Neon => Isa::Neon,
            Int8Isa::Portable | Int8Isa::Tiles => Isa::Portable,
        }
    }

    /// Whether this CPU (and operating system) can run it.
    pub fn is_available(self) -> bool {
        self.base().is_available()
            && match self {
                #[cfg(target_arch = "x86_64")]
                Int8Isa::Avx512Vnni => std::arch::is_x86_feature_detected!("avx512vnni"),
                #[cfg(target_arch = "x86_64")]
                Int8Isa::AvxVnni => std::arch::is_x86_feature_detected!("avxvnni"),
                #[cfg(target_arch = "aarch64")]
                Int8Isa::NeonDot => std::arch::is_aarch64_feature_detected!("dotprod"),
                Int8Isa::Amx | Int8Isa::Avx512 | Int8Isa::Avx2 | Int8Isa::Neon => true,
                Int8Isa::Portable | Int8Isa::Tiles => true,
                #[allow(unreachable_patterns)]
                _ => false,
            }
    }

    /// Every instruction set that this CPU can run, fastest first.
    pub fn available() -> impl Iterator<Item = Int8Isa> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The instruction set in use: the fastest available, or exactly what [`Isa::asked`] says.
    ///
    /// # Panics
    /// If [`Isa::asked`] is an error.
    pub fn active() -> Int8Isa {
        static ACTIVE: OnceLock<Int8Isa> = OnceLock::new();
        *ACTIVE.get_or_init(|| match Isa::asked().unwrap_or_else(|e| panic!("{e}")) {
            Some((_, asked)) => asked,
            None => Self::available().next().unwrap_or(Int8Isa::Portable),
        })
    }

    /// What is computed with beside `isa`, if that is asked for.
    pub(crate) fn beside(isa: Isa) -> Self {
        match isa {
            Isa::Amx => Int8Isa::Amx,
            Isa::Avx512Bf16 if Int8Isa::Avx512Vnni.is_available() => Int8Isa::Avx512Vnni,
            Isa::Avx512Bf16 | Isa::Avx512 => Int8Isa::Avx512,
            Isa::Avx2 => Int8Isa::Avx2,
            Isa::Neon => Int8Isa::Neon,
            Isa::Portable => Int8Isa::Portable,
        }
    }
}

impl fmt::Display for Int8Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Int8Isa::Amx => "amx",
            Int8Isa::Avx512Vnni => "avx512vnni",
            Int8Isa::Avx512 => "avx512",
            Int8Isa::AvxVnni => "avxvnni",
            Int8Isa::Avx2 => "avx2",
            Int8Isa::NeonDot => "neondot",
            Int8Isa::Neon => "neon",
            Int8Isa::Portable => "portable",
            Int8Isa::Tiles => "tiles",
        })
    }
}
