//! What networks are computed with: threads and precision.

use crate::named::named_enum;
use rrr_nn::{Compute, Isa, Pool};
use std::sync::Arc;

named_enum! {
    /// The number format of matrix products, and in inference of what is stored between them.
    pub enum Precision {
        /// [`rrr_nn::Precision::auto`].
        Auto = "auto",
        /// 32-bit floating point.
        F32 = "f32",
        /// bfloat16, with sums in f32.
        Bf16 = "bf16",
    }
}

/// Checks what the environment variable `RRR_ISA` asks for, before anything is computed with it.
///
/// # Errors
/// If it names an unknown instruction set or one that this CPU lacks.
pub fn check_instruction_set() -> Result<(), String> {
    Isa::asked().map(drop)
}

impl Precision {
    /// What is meant on this CPU: never `Auto`.
    pub fn resolve(self) -> Self {
        match self {
            Self::Auto if rrr_nn::Precision::auto() == rrr_nn::Precision::Bf16 => Self::Bf16,
            Self::Auto => Self::F32,
            given => given,
        }
    }

    /// This precision on `threads` threads.
    pub fn compute(self, threads: usize) -> Compute {
        self.on(Arc::new(Pool::new(threads)))
    }

    /// This precision on the threads of `pool`.
    pub fn on(self, pool: Arc<Pool>) -> Compute {
        Compute::new(pool).with_precision(match self.resolve() {
            Self::Bf16 => rrr_nn::Precision::Bf16,
            _ => rrr_nn::Precision::F32,
        })
    }

    /// What to tell somebody who has chosen a precision that is slow on this CPU.
    pub fn caveat(self) -> Option<&'static str> {
        (self == Self::Bf16 && !Isa::active().has_bf16()).then_some(
            "bf16 is computed in software here, slower than f32: this CPU has neither AMX nor AVX-512 BF16",
        )
    }
}
