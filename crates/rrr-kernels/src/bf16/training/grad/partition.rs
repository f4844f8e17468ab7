//! Tasks of weight gradients.

use super::super::super::stored::WIDTH;
use super::{Bf16GradPlan, CHUNK_STEPS};
use crate::tiles::TILE;
use std::ops::Range;

/// Memory of a task's sums and operands: what stays in the second-level cache of CPUs with AMX.
const SCRATCH_BYTES: usize = 3 << 19;

/// Tasks per thread that balance the load.
const TASKS_PER_THREAD: usize = 3;

/// Cycles that 32 rows of a plane take to be read from beyond that cache, to be transposed (as a pair of panels) and to be
/// paired (as a plane of the input), about.
const READ_CYCLES: usize = 340;
const TRANSPOSE_CYCLES: usize = 260;
const PAIR_CYCLES: usize = 75;

/// How a run is cut into tasks: lengths and numbers of parts. No sum crosses a task, so that they can be cut to measure.
pub struct Partition {
    /// Sets of groups that share their input.
    spans: usize,
    /// Panels of a span.
    pub panels: usize,
    pub taps: (usize, usize),
    /// Pairs of panels.
    pub pairs: (usize, usize),
    /// Of input channels.
    pub planes: (usize, usize),
}

impl Partition {
    /// Enough tasks that are small enough, with as little as possible done again in several of them.
    pub fn new(p: &Bf16GradPlan, shared: bool, threads: usize) -> Self {
        let spans = if shared { 1 } else { p.groups };
        let panels = p.panels() * p.groups / spans;
        let planes = if p.conv.rgb { 1 } else { p.conv.cin.div_ceil(WIDTH) };
        let (taps, pairs) = (p.conv.taps(), panels.div_ceil(2));
        let wanted = TASKS_PER_THREAD * threads;
        let cut = |(taps_parts, planes_parts)| {
            let (taps, planes) = ((taps, taps_parts), (planes, planes_parts));
            let mut cut = Self { spans, panels, taps, pairs: (pairs, 1), planes };
            while (cut.tasks() < wanted || cut.bytes() > SCRATCH_BYTES) && cut.pairs.1 < pairs {
                cut.pairs.1 += 1;
            }
            cut
        };
        let cuts = (1..=taps).flat_map(|t| (1..=planes).map(move |p| (t, p))).map(cut);
        let fault =
            |cut: &Self| (wanted.saturating_sub(cut.tasks()), cut.bytes() > SCRATCH_BYTES, cut.cost());
        cuts.min_by_key(fault).expect("there is a tap and a plane")
    }

    /// Cycles of all tasks for 32 rows, beside the products.
    fn cost(&self) -> usize {
        let transposed = (READ_CYCLES + TRANSPOSE_CYCLES) * self.pairs.0 * self.taps.1 * self.planes.1;
        let read = READ_CYCLES * self.taps.1;
        transposed + (read + PAIR_CYCLES * self.taps.0) * self.planes.0 * self.pairs.1
    }

    /// Number of tasks.
    pub fn tasks(&self) -> usize {
        self.spans * self.taps.1 * self.pairs.1 * self.planes.1
    }

    /// Memory of the largest task.
    fn bytes(&self) -> usize {
        let most = |(len, parts): (usize, usize)| len.div_ceil(parts);
        let (panels, blocks) = (2 * most(self.pairs), 2 * most(self.planes));
        let tiles = most(self.taps) * panels * blocks + (panels + blocks) * CHUNK_STEPS;
        tiles * TILE * size_of::<u32>()
    }
}

/// Takes the number of one of `parts` nearly equal parts of `0..len` off an index.
pub fn part(index: usize, (len, parts): (usize, usize)) -> (usize, Range<usize>) {
    let i = index % parts;
    (index / parts, len * i / parts..len * (i + 1) / parts)
}
