//! `rrr plan`: architecture and cost, without weights.

use crate::Done;
use crate::args::{Format, Globals, PlanArgs};
use rrrnet::arch::{ResNet, Split};
use rrrnet::config::Settings;
use rrrnet::plan::{Plan, PlanOptions, plan_table};
use std::io::Write;

pub fn run(args: &PlanArgs, _globals: &Globals) -> anyhow::Result<Done> {
    let backbone = ResNet::by_name(&args.backbone)?;
    let blocks = Some(args.blocks.clone());
    let (blocks, budget) =
        Settings { blocks, budget: args.budget.clone(), ..Settings::default() }.layout()?;
    let plan = Plan::new(PlanOptions {
        split: Split::parse(&args.split, &backbone)?,
        backbone,
        blocks,
        branches: args.branches,
        coarse: args.coarse_branches,
        classes: args.classes,
        input_size: args.image_size,
        round_to: args.round_to,
        budget,
        shift: args.shift,
    })?;
    let mut out = std::io::stdout().lock();
    match args.format {
        Format::Text => out.write_all(plan_table(&plan).as_bytes())?,
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&plan)?)?,
    }
    Ok(Done::Fully)
}
