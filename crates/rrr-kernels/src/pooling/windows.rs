//! Maxima of 3x3 windows, stride 2, padding 1: what pooling of every number format is made of.

use super::max_pool_size;
use crate::isa::Vectorize;
use crate::shared::SharedMut;
use crate::{BLOCK, Isa, Pool};

/// Lines of an output that a task takes.
const TASK_LINES: usize = 4;

/// A number format with an order.
pub(crate) trait Ordered: Copy + Send + Sync {
    /// The greater one.
    fn most(self, other: Self) -> Self;
}

/// NaN is above all, as in PyTorch.
impl Ordered for f32 {
    #[inline(always)]
    fn most(self, other: Self) -> Self {
        if self > other || self.is_nan() { self } else { other }
    }
}

impl Ordered for u8 {
    #[inline(always)]
    fn most(self, other: Self) -> Self {
        self.max(other)
    }
}

/// Bits of bf16 that is not negative, as behind a ReLU; NaN is above all.
impl Ordered for u16 {
    #[inline(always)]
    fn most(self, other: Self) -> Self {
        self.cast_signed().max(other.cast_signed()).cast_unsigned()
    }
}

/// Planes of pixels, of which each is a `row` of numbers, a multiple of 16.
#[derive(Clone, Copy)]
pub(crate) struct Planes<'a, T> {
    pub data: &'a [T],
    /// Numbers from a plane to the next.
    pub plane: usize,
    pub row: usize,
    pub size: (usize, usize),
}

impl<T: Ordered> Planes<'_, T> {
    /// Puts the maxima into planes of `y_plane` numbers; `WIDE` are taken at a time where a row has so many, else `L`.
    pub fn max_pool<const WIDE: usize, const L: usize>(
        self,
        y: &mut [T],
        y_plane: usize,
        isa: Isa,
        pool: &Pool,
    ) {
        let (lines, line) = (max_pool_size(self.size.0), max_pool_size(self.size.1) * self.row);
        let planes = y.len() / y_plane;
        assert!(planes * self.plane <= self.data.len() && lines * line <= y_plane, "planes of another shape");
        let y = SharedMut::new(y);
        // Lines first: as the convolution before it, so that a thread reads what it wrote.
        pool.run(lines.div_ceil(TASK_LINES) * planes, |task| {
            let (first, plane) = (task / planes * TASK_LINES, task % planes);
            let count = TASK_LINES.min(lines - first);
            // SAFETY: these lines of the plane are this task's.
            let y = unsafe { y.part(plane * y_plane + first * line, count * line) };
            let x = &self.data[plane * self.plane..][..self.plane];
            isa.vectorize(Lines::<_, WIDE, L> { x, row: self.row, size: self.size, first, y });
        });
    }
}

/// Lines of a plane's output, from `first` on.
struct Lines<'a, T, const WIDE: usize, const L: usize> {
    x: &'a [T],
    row: usize,
    size: (usize, usize),
    first: usize,
    y: &'a mut [T],
}

impl<T: Ordered, const WIDE: usize, const L: usize> Vectorize for Lines<'_, T, WIDE, L> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { x, row, size: (height, width), first, y } = self;
        let line = width * row;
        for (i, y) in y.chunks_exact_mut(max_pool_size(width) * row).enumerate() {
            let at = 2 * (first + i);
            // At an edge a line there again, which changes no maximum.
            let lines = [at.saturating_sub(1), at, (at + 1).min(height - 1)].map(|y| &x[y * line..][..line]);
            let (wide, whole) = (row / WIDE * WIDE, row / L * L);
            for at in (0..wide).step_by(WIDE) {
                pool_line::<T, WIDE>(lines, row, at, y);
            }
            for at in (wide..whole).step_by(L) {
                pool_line::<T, L>(lines, row, at, y);
            }
            for at in (whole..row).step_by(BLOCK) {
                pool_line::<T, BLOCK>(lines, row, at, y);
            }
        }
    }
}

/// `L` numbers of every row, from `at` on.
#[inline(always)]
fn pool_line<T: Ordered, const L: usize>(lines: [&[T]; 3], row: usize, at: usize, y: &mut [T]) {
    let last = lines[0].len() / row - 1;
    let column = |x: usize| {
        let of = |line: &[T]| *line[x * row + at..].first_chunk::<L>().expect("numbers of a row");
        most(most(of(lines[0]), of(lines[1])), of(lines[2]))
    };
    // The column that two windows share.
    let mut left = column(0);
    for (i, y) in y.chunks_exact_mut(row).enumerate() {
        let (middle, right) = (column(2 * i), column((2 * i + 1).min(last)));
        *y[at..].first_chunk_mut::<L>().expect("numbers of a row") = most(most(left, middle), right);
        left = right;
    }
}

#[inline(always)]
fn most<T: Ordered, const L: usize>(mut a: [T; L], b: [T; L]) -> [T; L] {
    for i in 0..L {
        a[i] = a[i].most(b[i]);
    }
    a
}
