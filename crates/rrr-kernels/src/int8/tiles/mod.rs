//! Convolutions of bytes made of products of 16 x 16 tiles with 64 values of k: on AMX, or in software to test the same
//! loops anywhere.

#[cfg(target_arch = "x86_64")]
mod amx;
mod outcome;
mod software;

use super::Int8Isa;
use super::conv::Int8Job;
use crate::conv::Conv;
use crate::tiles::{Job, Outcome, Part, Task, TilePlan, work};
use crate::{BLOCK, Pool};
use outcome::Bytes;
use software::Software;

type WorkFn = unsafe fn(&Task<'_, Bytes<'_>>);

/// The loops of one instruction set; can only be made where the CPU has it.
#[derive(Clone, Copy)]
pub(super) struct Loops {
    isa: Int8Isa,
    work: WorkFn,
    multiply_adds: unsafe fn(u64) -> u64,
}

impl Loops {
    /// The loops of `isa`, or `None` if it has no tiles or this CPU lacks it.
    pub fn new(isa: Int8Isa) -> Option<Self> {
        if !isa.is_available() {
            return None;
        }
        let (work, multiply_adds): (WorkFn, unsafe fn(u64) -> u64) = match isa {
            #[cfg(target_arch = "x86_64")]
            Int8Isa::Amx => (amx::on_amx, crate::tiles::amx::int8_multiply_adds),
            Int8Isa::Tiles => (in_software, software::multiply_adds),
            _ => return None,
        };
        Some(Self { isa, work, multiply_adds })
    }

    /// See [`Int8Compute::multiply_adds`](super::Int8Compute::multiply_adds).
    pub fn multiply_adds(&self, rounds: u64) -> u64 {
        // SAFETY: the CPU has the instruction set, as `new` has checked.
        unsafe { (self.multiply_adds)(rounds) }
    }

    /// The instruction set.
    pub fn isa(&self) -> Int8Isa {
        self.isa
    }
}

unsafe fn in_software(task: &Task<'_, Bytes<'_>>) {
    // SAFETY: passed on to the caller.
    unsafe { work::<Software, _>(task) }
}

/// A convolution on inputs of one size.
pub(super) struct Plan {
    plan: TilePlan,
    parts: usize,
    /// Values that scales, offsets and residual scales have to hold.
    values: usize,
    loops: Loops,
}

impl Plan {
    /// Plans the sum of some convolutions, as in [`Int8Plan`](super::Int8Plan).
    pub fn new(
        convs: &[Conv],
        sizes: &[(usize, usize)],
        out: (usize, usize),
        (groups, n, all): (usize, usize, usize),
        loops: Loops,
    ) -> Self {
        let panels = crate::blocks(convs[0].cout);
        let parts = convs.iter().zip(sizes).map(|(c, s)| Part::new(*c, *s, n, 1)).collect();
        Self {
            plan: TilePlan::new(parts, out, (groups, all), panels, 1),
            parts: convs.len(),
            values: groups * Bytes::values(panels),
            loops,
        }
    }

    /// Computes a job on a pool's threads.
    ///
    /// # Panics
    /// If a slice of the job has the wrong length.
    pub fn run(&self, job: Int8Job<'_>, pool: &Pool) {
        assert_eq!(job.x.len(), self.parts, "an input for every part");
        assert_eq!(job.scale.len(), self.values, "scales of another shape");
        assert_eq!(job.offset.len(), self.values, "offsets of another shape");
        let residual_scale = job.residual.map_or(&[][..], |(_, scale)| scale);
        assert!(
            job.residual.is_none() || residual_scale.len() == self.values,
            "residual scales of another shape"
        );
        let mut x = [&[][..]; 2];
        x[..self.parts].copy_from_slice(job.x);
        let Int8Job { w, scale, offset, max, y, .. } = job;
        let outcome = Bytes { scale, offset, residual_scale, max: f32::from(max) };
        let job = Job { x, w, residual: job.residual.map(|(r, _)| r), outcome, y };
        // SAFETY: `Loops::new` has checked the CPU.
        unsafe { job.run(&self.plan, pool, self.loops.work) }
    }
}

const _: () = assert!(BLOCK == crate::tiles::SIDE, "a block of output channels is a tile's");
