//! A plan for programs (JSON) and for people (a table).

use super::Plan;
use crate::arch::blocks_text;
use crate::cost::{NetCost, PartCost};
use serde::{Serialize, Serializer};
use std::fmt::Write;

/// A count, in total and where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PerPart {
    /// Stem and all branches.
    pub total: u64,
    /// The shared stem, on the whole image if any branch sees that.
    pub stem: u64,
    /// One branch, likewise.
    pub branch: u64,
    /// `conv1`, every block and `fc` in network order; those of a branch are one branch's. A map in JSON.
    #[serde(serialize_with = "as_map")]
    pub blocks: Vec<(String, u64)>,
}

/// What [`Plan`] serialises as.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanReport {
    /// Name of the backbone's layout.
    pub backbone: String,
    /// Number of classes.
    pub classes: usize,
    /// Side of the input in pixels.
    pub input_size: usize,
    /// Kept blocks of each stage.
    pub blocks: [usize; 4],
    /// Name of the block at which branches begin.
    pub split: String,
    /// Its published number.
    pub split_index: usize,
    /// Number of branches.
    pub branches: usize,
    /// How many of them see the image at half its size, if any.
    #[serde(skip_serializing_if = "crate::named::is_default")]
    pub coarse: usize,
    /// Subtracted from every width before rounding.
    pub shift: usize,
    /// Parameters of all branches per parameter of their limit.
    pub ratio: f64,
    /// Planes of each stage.
    pub planes: [usize; 4],
    /// Blocks of the network whose parameters are the limit, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<[usize; 4]>,
    /// Widths are multiples of this, if asked for.
    pub round_to: Option<usize>,
    /// Trainable numbers.
    pub params: PerPart,
    /// Multiply-adds for one image.
    pub macs: PerPart,
    /// Bytes of f32 outputs of all convolutions for one image.
    pub activation_bytes: PerPart,
    /// Bytes that training keeps for one image.
    pub training_bytes: u64,
    /// Most bytes alive at once in inference of one image.
    pub peak_bytes: u64,
    /// The full backbone with the same classes and input size.
    pub full: FullReport,
    /// Parameters of the full backbone per parameter of this network.
    pub params_saved: f64,
    /// Multiply-adds of the full backbone per multiply-add of this network.
    pub macs_saved: f64,
}

/// The full backbone beside a plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FullReport {
    /// Blocks of each stage.
    pub blocks: [usize; 4],
    /// Trainable numbers.
    pub params: u64,
    /// Multiply-adds for one image.
    pub macs: u64,
    /// Bytes of f32 outputs of all convolutions for one image.
    pub activation_bytes: u64,
    /// Bytes that training all of it keeps for one image.
    pub training_bytes: u64,
    /// Most bytes alive at once in inference of one image.
    pub peak_bytes: u64,
}

impl Plan {
    /// The plan as it is printed for programs.
    pub fn report(&self) -> PlanReport {
        let (o, cost, full) = (self.options(), self.cost(), self.full_cost());
        PlanReport {
            backbone: o.backbone.name.clone(),
            classes: o.classes,
            input_size: o.input_size,
            blocks: o.blocks,
            split: o.split.to_string(),
            split_index: self.split_index(),
            branches: o.branches,
            coarse: o.coarse,
            shift: self.shift(),
            ratio: self.ratio(),
            planes: self.planes(),
            budget: o.budget,
            round_to: o.round_to,
            params: per_part(cost, cost.params, |p| p.params),
            macs: per_part(cost, cost.macs, |p| p.macs),
            activation_bytes: per_part(cost, cost.activation_bytes, |p| p.activation_bytes),
            training_bytes: cost.training_bytes,
            peak_bytes: cost.peak_bytes,
            full: FullReport {
                blocks: o.backbone.blocks,
                params: full.params,
                macs: full.macs,
                activation_bytes: full.activation_bytes,
                training_bytes: full.training_bytes,
                peak_bytes: full.peak_bytes,
            },
            params_saved: self.params_saved(),
            macs_saved: self.macs_saved(),
        }
    }
}

impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.report().serialize(serializer)
    }
}

fn as_map<S: Serializer>(pairs: &[(String, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, n)| (name, n)))
}

fn per_part(cost: &NetCost, total: u64, of: impl Fn(&PartCost) -> u64) -> PerPart {
    let sum = |parts: &[PartCost]| parts.iter().map(&of).sum::<u64>();
    let (stem, branch) = (&cost.stem().parts, &cost.branch().parts);
    let parts = stem.iter().chain(branch);
    let (stem, branch) = (sum(stem), sum(branch));
    PerPart { total, stem, branch, blocks: parts.map(|p| (p.name.clone(), of(p))).collect() }
}

/// A plan as an aligned table for people, lines ending in `\n`.
pub fn plan_table(plan: &Plan) -> String {
    let (o, r, cost) = (plan.options(), plan.report(), plan.cost());
    let mut rows = vec![["part", "where", "params", "MACs", "activations"].map(String::from)];
    let mut row = |name: String, place: &str, params: u64, macs: u64, bytes: u64| {
        rows.push([name, place.into(), count(params), count(macs), mebibytes(bytes)]);
    };
    for (place, sequence) in [("stem", cost.stem()), ("branch", cost.branch())] {
        for p in &sequence.parts {
            row(p.name.clone(), place, p.params, p.macs, p.activation_bytes);
        }
    }
    row("stem".into(), "", r.params.stem, r.macs.stem, r.activation_bytes.stem);
    row("one branch".into(), "", r.params.branch, r.macs.branch, r.activation_bytes.branch);
    for group in cost.groups.iter().filter(|group| group.halved && o.coarse < o.branches) {
        for (name, of) in [("stem, half the size", &group.stem), ("one coarse branch", &group.branch)] {
            row(name.into(), "", of.params, of.macs, of.activation_bytes);
        }
    }
    row(format!("total, {}", plural(o.branches)), "", r.params.total, r.macs.total, r.activation_bytes.total);
    row(format!("full {}", r.backbone), "", r.full.params, r.full.macs, r.full.activation_bytes);
    let activations_saved = r.full.activation_bytes as f64 / r.activation_bytes.total as f64;
    let saved = [r.params_saved, r.macs_saved, activations_saved].map(|x| format!("{x:.2} x "));
    let [params, macs, bytes] = saved;
    rows.push(["saved".into(), String::new(), params, macs, bytes]);

    let blocks = blocks_text(o.blocks);
    let planes = plan.planes().map(|p| p.to_string()).join(", ");
    let rounded = o.round_to.map(|r| format!(", multiples of {r}")).unwrap_or_default();
    let limit = match o.budget {
        Some(blocks) => {
            format!("what blocks {} leave beside the stem", blocks_text(blocks))
        }
        None => "the tail's parameters".into(),
    };
    let coarse = if o.coarse > 0 { format!(", {} of them coarse", o.coarse) } else { String::new() };
    let mut out = format!(
        "{}, blocks {blocks}, {}{coarse} from {} (index {})\n\
         {} classes, {s}x{s} pixels\n\
         planes {planes} (shift {}{rounded}), {:.2}% of {limit}\n\n",
        r.backbone,
        plural(o.branches),
        r.split,
        r.split_index,
        o.classes,
        r.shift,
        100.0 * r.ratio,
        s = o.input_size,
    );
    render(&mut out, &rows, cost.stem().parts.len() + cost.branch().parts.len());
    out
}

fn plural(branches: usize) -> String {
    if branches == 1 { "1 branch".into() } else { format!("{branches} branches") }
}

/// The first two columns to the left, the others to the right; a rule after the header and the parts.
fn render(out: &mut String, rows: &[[String; 5]], parts: usize) {
    let width = [0, 1, 2, 3, 4].map(|c| rows.iter().map(|r| r[c].len()).max().unwrap_or(0));
    let rule = "-".repeat(width.iter().sum::<usize>() + 2 * 4);
    for (i, [a, b, c, d, e]) in rows.iter().enumerate() {
        let [wa, wb, wc, wd, we] = width;
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{a:<wa$}  {b:<wb$}  {c:>wc$}  {d:>wd$}  {e:>we$}");
        if i == 0 || i == parts {
            let _ = writeln!(out, "{rule}");
        }
    }
}

fn count(n: u64) -> String {
    match n {
        1_000_000_000.. => format!("{:.2} G", n as f64 / 1e9),
        1_000_000.. => format!("{:.2} M", n as f64 / 1e6),
        1_000.. => format!("{:.2} k", n as f64 / 1e3),
        _ => format!("{n}  "),
    }
}

fn mebibytes(n: u64) -> String {
    format!("{:.2} MiB", n as f64 / (1 << 20) as f64)
}
