//! How sums become bytes.

use super::super::finish::finish;
use super::super::micro::Panel;
use crate::BLOCK;
use crate::tiles::{Finish, Outcome, TILE};
use std::ptr::null;

/// `y = round(clamp(sum * scale + offset + residual * residual_scale, 0, max))`.
#[derive(Clone, Copy)]
pub struct Bytes<'a> {
    /// A value for every channel, padded to 16 of each group's.
    pub scale: &'a [f32],
    /// As `scale`.
    pub offset: &'a [f32],
    /// As `scale`; empty if there is no residual.
    pub residual_scale: &'a [f32],
    /// Largest output.
    pub max: f32,
}

impl Outcome for Bytes<'_> {
    fn values(panels: usize) -> usize {
        panels * BLOCK
    }

    #[inline(always)]
    fn from(self, first: usize) -> Self {
        Self {
            scale: &self.scale[first..],
            offset: &self.offset[first..],
            residual_scale: self.residual_scale.get(first..).unwrap_or_default(),
            ..self
        }
    }
}

/// Finishes a tile of rows, as the other instruction sets do. Channels of padding that a product has no sums of keep
/// what they hold: all that reads them are weights of zero.
///
/// # Safety
/// As for [`RowTiles::settle`](crate::tiles::RowTiles::settle).
#[inline(always)]
pub unsafe fn finish_tile(f: &Finish<Bytes<'_>>, m: usize) {
    let o = &f.outcome;
    for n in 0..f.n {
        // SAFETY: pointers by the caller.
        unsafe {
            let residual = f.residual[m];
            let (residual, residual_scale) = match residual.is_null() {
                true => (null(), null()),
                false => (residual.add(n * BLOCK), o.residual_scale.as_ptr().add(n * BLOCK)),
            };
            let panel = Panel {
                w: null(),
                scale: o.scale.as_ptr().add(n * BLOCK),
                offset: o.offset.as_ptr().add(n * BLOCK),
                residual,
                residual_scale,
                y: f.y[m].add(n * BLOCK),
            };
            for r in 0..f.rows[m] {
                let sums = &*f.sums.add((m * 2 + n) * TILE + r * BLOCK).cast::<[i32; BLOCK]>();
                finish(&panel, o.max, (r * f.stride, r * f.residual_stride), sums);
            }
        }
    }
}
