//! A plan: which network is cut out of which backbone, and what it costs.
//!
//! *Reduce*, and the sizes for *recycle*, of RRR-Net (arXiv 2310.01157). With `B` branches every stage at or after
//! the split has `floor(p / sqrt(B)) - shift` planes instead of `p`. [`Plan::new`] calibrates `shift`: the
//! smallest one with which `B` branches, classifiers included, have no more parameters than the one-branch tail.
//! With [`PlanOptions::budget`] the limit is another network's size instead. One branch keeps the tail as it is.
//!
//! ```
//! use rrrnet::plan::{Plan, PlanOptions};
//!
//! let plan = Plan::new(PlanOptions::paper(20))?;
//! assert_eq!(plan.shift(), 11);
//! assert_eq!(plan.planes(), [64, 128, 79, 170]);
//! # Ok::<(), rrrnet::plan::PlanError>(())
//! ```

mod calibrate;
mod report;
#[cfg(test)]
mod tests;

pub use report::{PerPart, PlanReport, plan_table};

use crate::arch::{ArchError, ResNet, Split};
use crate::cost::{NetCost, net_cost};
use rrr_nn::NetSpec;
use serde::{Deserialize, Serialize};

/// Calibration tries shifts below this one, as the published code does.
pub const MAX_SHIFT: usize = 100;

/// Bounds that keep every cost within 64 bits.
const MAX_CLASSES: usize = 1_000_000;
const MAX_INPUT: usize = 65_536;

/// What to plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanOptions {
    /// The full backbone.
    pub backbone: ResNet,
    /// How many blocks of each stage are kept, the first ones.
    pub blocks: [usize; 4],
    /// Where the branches begin.
    pub split: Split,
    /// Number of branches.
    pub branches: usize,
    /// How many of the branches, the first ones, see the images at half their size; only costs depend on it.
    #[serde(default, skip_serializing_if = "crate::named::is_default")]
    pub coarse: usize,
    /// Number of classes.
    pub classes: usize,
    /// Side of the square input in pixels; only costs depend on it.
    pub input_size: usize,
    /// Widths of the branches are multiples of this, within the same budget. Each stage takes the multiple just
    /// below or just above its calibrated width; of the combinations within the budget the one with the most
    /// parameters wins, on a tie the one that is wider in the earlier stage.
    pub round_to: Option<usize>,
    /// Blocks of a network, split nowhere, whose parameters stem and branches together must not exceed; without it the
    /// branches' limit is the one-branch tail of `blocks`. More blocks in the stem thus make thinner branches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<[usize; 4]>,
    /// Use this shift instead of calibrating one; the budget is then not enforced, unless widths are rounded.
    pub shift: Option<usize>,
}

impl PlanOptions {
    /// The paper's configuration: ResNet-152 reduced to 1,1,1,1, eight branches from `layer3.0`, 128x128 pixels.
    pub fn paper(classes: usize) -> Self {
        Self {
            backbone: ResNet::resnet152(),
            blocks: [1; 4],
            split: Split::new(3, 0),
            branches: 8,
            coarse: 0,
            classes,
            input_size: 128,
            round_to: None,
            budget: None,
            shift: None,
        }
    }
}

/// Why there is no such plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Blocks or split do not fit the backbone.
    #[error(transparent)]
    Arch(#[from] ArchError),
    /// An option is out of its range.
    #[error("{option} cannot be {value}: it must be {min} to {max}")]
    Range {
        /// The option.
        option: &'static str,
        /// As given.
        value: usize,
        /// Least value.
        min: usize,
        /// Greatest value.
        max: usize,
    },
    /// A shift was given for one branch.
    #[error(
        "one branch keeps the widths of the backbone, so a shift of {shift} means nothing; hint: leave it out"
    )]
    ShiftOfOneBranch {
        /// As given.
        shift: usize,
    },
    /// A stage would have no planes left.
    #[error(
        "{branches} branches leave layer{stage} less than one plane (floor({planes} / sqrt({branches})) - \
         {shift}); hint: use fewer branches"
    )]
    NoPlanes {
        /// Branches asked for.
        branches: usize,
        /// 1 to 4.
        stage: usize,
        /// Planes of the stage in the backbone.
        planes: usize,
        /// The shift at which it happens.
        shift: usize,
    },
    /// Calibration found no shift.
    #[error(
        "no shift below {MAX_SHIFT} brings {branches} branches within the parameters of the budget; \
         hint: use another number of branches, or allow a larger budget"
    )]
    NoShift {
        /// Branches asked for.
        branches: usize,
    },
    /// The stem alone is too large.
    #[error(
        "the stem has {stem} parameters, the budget for stem and branches is {limit}; hint: keep fewer blocks \
         before the split, or allow a larger budget"
    )]
    StemOverBudget {
        /// Its parameters.
        stem: u64,
        /// Those of the network that gives the budget.
        limit: u64,
    },
    /// No combination of rounded widths is within the budget.
    #[error(
        "no multiples of {round_to} near the planes {planes:?} stay within the budget; hint: round to a smaller \
         number or use fewer branches"
    )]
    NoMultiple {
        /// As given.
        round_to: usize,
        /// Planes of `layer1` to `layer4` before rounding.
        planes: [usize; 4],
    },
}

/// A network to be cut out of a backbone; consistent by construction.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    options: PlanOptions,
    shift: usize,
    planes: [usize; 4],
    ratio: f64,
    spec: NetSpec,
    cost: NetCost,
    full: NetCost,
}

impl Plan {
    /// Reduces, splits, calibrates and counts.
    ///
    /// # Errors
    /// [`PlanError`] says which option makes it impossible.
    pub fn new(options: PlanOptions) -> Result<Self, PlanError> {
        let o = &options;
        check("branches", o.branches, usize::MAX)?;
        check("classes", o.classes, MAX_CLASSES)?;
        if o.coarse > o.branches {
            let (value, max) = (o.coarse, o.branches);
            return Err(PlanError::Range { option: "the number of coarse branches", value, min: 0, max });
        }
        check("the input size", o.input_size, MAX_INPUT)?;
        check("the multiple to round to", o.round_to.unwrap_or(1), usize::MAX)?;
        let reduced = o.backbone.reduced(o.blocks)?;
        let within =
            o.budget.filter(|_| o.branches > 1).map(|blocks| o.backbone.reduced(blocks)).transpose()?;
        let sizes = calibrate::Sizes::new(&reduced, o.split, o.branches, o.classes, within.as_ref())?;
        let (shift, planes) = match (o.branches, o.shift) {
            (1, None | Some(0)) => (0, reduced.planes),
            (1, Some(shift)) => return Err(PlanError::ShiftOfOneBranch { shift }),
            (_, Some(shift)) => (shift, sizes.planes(shift)?),
            (_, None) => sizes.calibrate()?,
        };
        let planes = match o.round_to {
            Some(round_to) if o.branches > 1 => sizes.round(planes, round_to)?,
            _ => planes,
        };
        let spec = reduced.split_net(o.split, o.branches, &planes, o.classes)?;
        let spec = NetSpec { coarse: o.coarse, ..spec };
        let size = [o.input_size; 2];
        Ok(Self {
            shift,
            planes,
            ratio: sizes.ratio(&planes)?,
            cost: net_cost(&spec, size),
            full: net_cost(&o.backbone.full_net(o.classes), size),
            spec,
            options,
        })
    }

    /// What was asked for.
    pub fn options(&self) -> &PlanOptions {
        &self.options
    }

    /// The calibrated or given shift, before any rounding.
    pub fn shift(&self) -> usize {
        self.shift
    }

    /// Planes of `layer1` to `layer4`; stages before the split's have the backbone's.
    ///
    /// A stage that is split inside has the backbone's planes before the split and these after it.
    pub fn planes(&self) -> [usize; 4] {
        self.planes
    }

    /// Parameters of all branches per parameter of their limit (the one-branch tail, without a budget), classifiers
    /// included.
    pub fn ratio(&self) -> f64 {
        self.ratio
    }

    /// The network for the compute core.
    pub fn spec(&self) -> &NetSpec {
        &self.spec
    }

    /// What the network costs.
    pub fn cost(&self) -> &NetCost {
        &self.cost
    }

    /// What the full backbone costs with the same classes and input size.
    pub fn full_cost(&self) -> &NetCost {
        &self.full
    }

    /// The split's published number.
    pub fn split_index(&self) -> usize {
        self.options.split.index(&self.options.backbone)
    }

    /// How many times fewer parameters than the full backbone.
    pub fn params_saved(&self) -> f64 {
        self.full.params as f64 / self.cost.params as f64
    }

    /// How many times fewer multiply-adds than the full backbone.
    pub fn macs_saved(&self) -> f64 {
        self.full.macs as f64 / self.cost.macs as f64
    }
}

impl From<&Plan> for NetSpec {
    fn from(plan: &Plan) -> Self {
        plan.spec.clone()
    }
}

fn check(option: &'static str, value: usize, max: usize) -> Result<(), PlanError> {
    let min = 1;
    if (min..=max).contains(&value) { Ok(()) } else { Err(PlanError::Range { option, value, min, max }) }
}
