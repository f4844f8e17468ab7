//! Convolutions of activations and weights in bf16, made of products of 16 x 16 tiles, on AMX or in software, to the same
//! bits, or with dot products of pairs ([`dot`]): [`stored`] for inference, and for the forward passes and input gradients
//! of training; [`training`] for the rest.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod dot;
mod stored;
mod tiles;
mod training;
#[cfg(target_arch = "x86_64")]
mod vectors;

use crate::isa::Isa;
use crate::simd::Portable;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};
use crate::tiles::{SIDE, Task, work};
use stored::Rounded;
use tiles::{Software, Tiles};

pub use stored::{
    Bf16Activation, Bf16Conv, Bf16Copy, Bf16Job, Bf16Plan, IMAGE_SLACK, bf16_avg_pool, bf16_max_pool,
    round_bf16,
};
pub use training::{
    Bf16BnBackward, Bf16BnForward, Bf16GradPlan, Bf16Norm, Bf16NormGrad, Bf16Skip, Bf16Weights,
    bf16_avg_pool_backward, bf16_bn_backward, bf16_bn_forward, bf16_max_pool_backward, bf16_mean_of_groups,
    bf16_pool_features,
};

/// The loops of one instruction set.
#[derive(Clone, Copy)]
struct Kernels {
    stored: unsafe fn(&Task<'_, Rounded<'_>>),
    round: unsafe fn(&[f32], &mut [u16]),
    pack: unsafe fn(&mut stored::Packing<'_>),
    grad: unsafe fn(&training::GradTask<'_>),
    bn_forward: unsafe fn(&mut training::ForwardTask<'_>),
    bn_backward: unsafe fn(&mut training::BackwardTask<'_>),
    pooling: unsafe fn(&mut training::PoolingTask<'_>),
}

impl Kernels {
    /// The loops of `isa`.
    ///
    /// # Panics
    /// If this CPU lacks it.
    fn new(isa: Isa) -> Self {
        assert!(isa.is_available(), "this CPU does not support {isa}");
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => amx_loops::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => dot_loops::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::KERNELS,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => neon::KERNELS,
            _ => portable::KERNELS,
        }
    }
}

/// Compiles the loops for one instruction set.
macro_rules! kernels {
    ($module:ident, $tiles:ty, [$($feature:literal)?]) => {
        mod $module {
            use super::*;

            $(#[target_feature(enable = $feature)])?
            unsafe fn stored(task: &Task<'_, Rounded<'_>>) {
                // SAFETY: passed on to the caller.
                unsafe { work::<$tiles, _>(task) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn round(from: &[f32], to: &mut [u16]) {
                // SAFETY: passed on to the caller.
                unsafe { stored::round::<<$tiles as Tiles>::V>(from, to) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn pack(task: &mut stored::Packing<'_>) {
                // SAFETY: passed on to the caller.
                unsafe { stored::pack::<<$tiles as Tiles>::V>(task) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn grad(task: &training::GradTask<'_>) {
                // SAFETY: passed on to the caller.
                unsafe { training::grad::<$tiles>(task) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn bn_forward(task: &mut training::ForwardTask<'_>) {
                // SAFETY: passed on to the caller.
                unsafe { training::forward::<<$tiles as Tiles>::V>(task) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn bn_backward(task: &mut training::BackwardTask<'_>) {
                // SAFETY: passed on to the caller.
                unsafe { training::backward::<<$tiles as Tiles>::V>(task) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn pooling(task: &mut training::PoolingTask<'_>) {
                // SAFETY: passed on to the caller.
                unsafe { training::pooling::<<$tiles as Tiles>::V>(task) }
            }

            pub(super) const KERNELS: Kernels = Kernels {
                stored,
                round,
                pack,
                grad,
                bn_forward,
                bn_backward,
                pooling,
            };
        }
    };
}

#[cfg(target_arch = "x86_64")]
kernels!(amx_loops, crate::tiles::amx::Amx, ["avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma"]);
#[cfg(target_arch = "x86_64")]
kernels!(dot_loops, dot::Dot, ["avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma"]);
#[cfg(target_arch = "x86_64")]
kernels!(avx512, Software<Avx512, 8, 1>, ["avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"]);
#[cfg(target_arch = "x86_64")]
kernels!(avx2, Software<Avx2, 2, 2>, ["avx2,fma"]);
#[cfg(target_arch = "aarch64")]
kernels!(neon, Software<crate::simd::Neon, 2, 4>, ["neon"]);
kernels!(portable, Software<Portable, 1, 4>, []);

/// A row of zeros, which stands for rows and blocks that are not there.
#[repr(align(64))]
struct Zeros([f32; SIDE]);

static ZEROS: Zeros = Zeros([0.0; SIDE]);
