//! Widths of the branches.

use super::{MAX_SHIFT, PlanError};
use crate::arch::{ArchError, ResNet, Split};
use crate::cost::trainable_params;

/// A tail to be shared out among branches.
pub(super) struct Sizes<'a> {
    net: &'a ResNet,
    split: Split,
    branches: usize,
    classes: usize,
    /// Parameters that all branches may have together.
    budget: u64,
}

impl<'a> Sizes<'a> {
    /// The tail of `net`, whose branches may have as many parameters as its one branch of full width, or, with `within`,
    /// as the stem leaves of the network `within`.
    pub(super) fn new(
        net: &'a ResNet,
        split: Split,
        branches: usize,
        classes: usize,
        within: Option<&ResNet>,
    ) -> Result<Self, PlanError> {
        let whole = net.split_net(split, 1, &net.planes, classes)?;
        let budget = match within {
            None => trainable_params(&whole.branch),
            Some(within) => {
                let stem = trainable_params(&whole.stem);
                let limit = trainable_params(&within.full_net(classes).branch);
                limit.checked_sub(stem).ok_or(PlanError::StemOverBudget { stem, limit })?
            }
        };
        Ok(Self { net, split, branches, classes, budget })
    }

    /// Planes of all stages: from the split's on, `floor(p / sqrt(B)) - shift`.
    pub(super) fn planes(&self, shift: usize) -> Result<[usize; 4], PlanError> {
        let mut planes = self.net.planes;
        for (i, p) in planes.iter_mut().enumerate().skip(self.split.stage() - 1) {
            // floor(sqrt(floor(x))) = floor(sqrt(x)): no rounding error whatever p and B.
            let thin = (*p * *p / self.branches).isqrt();
            *p = thin.checked_sub(shift).filter(|&q| q > 0).ok_or(PlanError::NoPlanes {
                branches: self.branches,
                stage: i + 1,
                planes: *p,
                shift,
            })?;
        }
        Ok(planes)
    }

    /// The smallest shift within the budget, and its planes.
    pub(super) fn calibrate(&self) -> Result<(usize, [usize; 4]), PlanError> {
        for shift in 0..MAX_SHIFT {
            let planes = self.planes(shift)?;
            if self.params(&planes)? <= self.budget {
                return Ok((shift, planes));
            }
        }
        Err(PlanError::NoShift { branches: self.branches })
    }

    /// The multiples of `to` next to `planes` that use most of the budget.
    pub(super) fn round(&self, planes: [usize; 4], to: usize) -> Result<[usize; 4], PlanError> {
        let first = self.split.stage() - 1;
        let mut best = None;
        for ups in 0..1usize << (4 - first) {
            let mut rounded = planes;
            for (i, p) in rounded.iter_mut().enumerate().skip(first) {
                // Earlier stages in the higher bits: later combinations are wider earlier.
                let up = ups >> (3 - i) & 1;
                *p = (*p / to + up).saturating_mul(to);
            }
            if rounded.iter().zip(&self.net.planes).any(|(&q, &p)| q == 0 || q > p) {
                continue;
            }
            let params = self.params(&rounded)?;
            if params <= self.budget && best.is_none_or(|(most, _)| params >= most) {
                best = Some((params, rounded));
            }
        }
        best.map(|(_, rounded)| rounded).ok_or(PlanError::NoMultiple { round_to: to, planes })
    }

    /// Parameters of all branches per parameter of the budget.
    pub(super) fn ratio(&self, planes: &[usize; 4]) -> Result<f64, ArchError> {
        Ok(self.params(planes)? as f64 / self.budget as f64)
    }

    fn params(&self, planes: &[usize; 4]) -> Result<u64, ArchError> {
        let spec = self.net.split_net(self.split, self.branches, planes, self.classes)?;
        Ok(self.branches as u64 * trainable_params(&spec.branch))
    }
}
