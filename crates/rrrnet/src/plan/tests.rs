use super::*;
use crate::cost::trainable_params;
use proptest::prelude::*;

fn plan(edit: impl FnOnce(&mut PlanOptions)) -> Result<Plan, PlanError> {
    let mut options = PlanOptions::paper(20);
    edit(&mut options);
    Plan::new(options)
}

#[test]
fn the_papers_network() {
    let p = plan(|_| ()).unwrap();
    assert_eq!((p.split_index(), p.shift(), p.planes()), (15, 11, [64, 128, 79, 170]));
    assert!((p.ratio() - 0.9969977531878129).abs() < 1e-12);
    // 5 blocks instead of 51, more than 6 times fewer parameters and multiply-adds.
    assert!(p.params_saved() > 6.0 && p.macs_saved() > 6.0, "{} {}", p.params_saved(), p.macs_saved());
    assert_eq!(p.full_cost().params, 58_143_808 + 2049 * 20);
    assert_eq!(NetSpec::from(&p).branch.blocks[1].cin, 4 * 79);
}

#[test]
fn options_that_cannot_be() {
    let message = |edit: fn(&mut PlanOptions)| plan(edit).unwrap_err().to_string();
    assert_eq!(message(|o| o.branches = 0), format!("branches cannot be 0: it must be 1 to {}", usize::MAX));
    assert!(message(|o| o.classes = 0).starts_with("classes cannot be 0"));
    assert!(message(|o| o.input_size = 0).starts_with("the input size cannot be 0"));
    assert!(message(|o| o.round_to = Some(0)).contains("to round to cannot be 0"));
    assert!(message(|o| o.blocks = [1, 1, 37, 1]).contains("layer3 cannot keep 37 blocks"));
    assert!(message(|o| o.split = Split::new(3, 1)).contains("only 1 of that stage's blocks are kept"));
    assert!(message(|o| (o.branches, o.shift) = (1, Some(3))).contains("a shift of 3 means nothing"));
}

#[test]
fn too_many_branches_leave_no_planes() {
    let error = plan(|o| o.branches = 1 << 20).unwrap_err();
    assert_eq!(error, PlanError::NoPlanes { branches: 1 << 20, stage: 3, planes: 256, shift: 0 });
    assert_eq!(
        error.to_string(),
        "1048576 branches leave layer3 less than one plane (floor(256 / sqrt(1048576)) - 0); hint: use fewer \
         branches"
    );
    assert!(matches!(plan(|o| o.shift = Some(79)), Ok(p) if p.planes() == [64, 128, 11, 102]));
    assert!(matches!(plan(|o| o.shift = Some(90)), Err(PlanError::NoPlanes { stage: 3, shift: 90, .. })));
    assert!(matches!(plan(|o| o.shift = Some(usize::MAX)), Err(PlanError::NoPlanes { .. })));
}

/// Wide stages can need more than the published search tries.
#[test]
fn calibration_stops_at_one_hundred() {
    let error = plan(|o| {
        o.backbone.planes = [64, 128, 1024, 4096];
        (o.split, o.branches, o.classes) = (Split::new(4, 0), 8, 100);
    });
    assert_eq!(error, Err(PlanError::NoShift { branches: 8 }));
}

#[test]
fn rounded_widths() {
    let p = plan(|o| o.round_to = Some(16)).unwrap();
    assert_eq!(p.shift(), 11);
    assert!(p.planes().iter().all(|q| q % 16 == 0));
    assert!(p.ratio() <= 1.0);
    // The best of the four neighbours, by trying them.
    let net = p.options().backbone.reduced([1; 4]).unwrap();
    let params = |p3, p4| {
        8 * trainable_params(&net.split_net(Split::new(3, 0), 8, &[64, 128, p3, p4], 20).unwrap().branch)
    };
    let budget = trainable_params(&net.split_net(Split::new(3, 0), 1, &net.planes, 20).unwrap().branch);
    let fits = [(64, 160), (64, 176), (80, 160), (80, 176)].map(|(a, b)| (params(a, b), [64, 128, a, b]));
    let best = fits.iter().filter(|(n, _)| *n <= budget).max().unwrap();
    assert_eq!(p.planes(), best.1);
    assert_eq!(p.ratio(), best.0 as f64 / budget as f64);

    assert_eq!(plan(|o| (o.round_to, o.branches) = (Some(16), 1)).unwrap().planes(), [64, 128, 256, 512]);
    let error = plan(|o| (o.round_to, o.branches) = (Some(256), 8)).unwrap_err();
    assert!(error.to_string().contains("no multiples of 256 near the planes [64, 128, 79, 170]"), "{error}");
    assert!(plan(|o| o.round_to = Some(usize::MAX)).is_err());
}

#[test]
fn a_larger_stem_makes_thinner_branches_within_a_budget() {
    let [five, own, within] = [([1; 4], None), ([3, 8, 1, 1], None), ([3, 8, 1, 1], Some([1; 4]))]
        .map(|(blocks, budget)| plan(|o| (o.blocks, o.budget) = (blocks, budget)).unwrap());
    assert!(own.cost().params > five.cost().params);
    let limit = five.options().backbone.reduced([1; 4]).unwrap().full_net(20);
    let limit = trainable_params(&limit.branch);
    assert!(within.cost().params <= limit && within.ratio() <= 1.0);
    // One plane more in each stage is too much.
    let shift = Some(within.shift() - 1);
    let wider = plan(|o| (o.blocks, o.budget, o.shift) = ([3, 8, 1, 1], Some([1; 4]), shift)).unwrap();
    assert!(wider.cost().params > limit && wider.ratio() > 1.0);
    // The whole of two stages and more is more than that.
    let stem = plan(|o| (o.blocks, o.split, o.budget) = ([3, 8, 36, 1], Split::new(4, 0), Some([1; 4])));
    assert!(matches!(stem, Err(PlanError::StemOverBudget { .. })), "{stem:?}");
    assert_eq!(plan(|o| (o.branches, o.budget) = (1, Some([1; 4]))).unwrap().planes(), [64, 128, 256, 512]);
}

#[test]
fn json_has_the_promised_fields() {
    let p = plan(|_| ()).unwrap();
    let json: serde_json::Value = serde_json::from_str(&serde_json::to_string(&p).unwrap()).unwrap();
    assert_eq!(json["split"], "layer3.0");
    assert_eq!(json["split_index"], 15);
    assert_eq!(json["planes"], serde_json::json!([64, 128, 79, 170]));
    assert_eq!(json["ratio"].as_f64().unwrap(), p.ratio());
    for what in ["params", "macs"] {
        let n = |key: &str| json[what][key].as_u64().unwrap();
        assert_eq!(n("total"), n("stem") + 8 * n("branch"));
        let blocks = json[what]["blocks"].as_object().unwrap();
        assert_eq!(blocks.len(), 6);
        let sum = |names: &[&str]| names.iter().map(|b| blocks[*b].as_u64().unwrap()).sum::<u64>();
        assert_eq!(sum(&["conv1", "layer1.0", "layer2.0"]), n("stem"));
        assert_eq!(sum(&["layer3.0", "layer4.0", "fc"]), n("branch"));
        let saved = json["full"][what].as_u64().unwrap() as f64 / n("total") as f64;
        assert_eq!(json[format!("{what}_saved")].as_f64().unwrap(), saved);
    }
}

#[test]
fn options_round_trip_as_json() {
    let options = PlanOptions { round_to: Some(16), ..PlanOptions::paper(7) };
    let text = serde_json::to_string(&options).unwrap();
    assert!(text.contains(r#""split":"layer3.0""#), "{text}");
    assert_eq!(serde_json::from_str::<PlanOptions>(&text).unwrap(), options);
    let bad = text.replace("layer3.0", "layer9.0");
    assert!(serde_json::from_str::<PlanOptions>(&bad).unwrap_err().to_string().contains("is no block"));
}

#[test]
fn the_table_is_aligned() {
    let table = plan_table(&plan(|_| ()).unwrap());
    let lines: Vec<&str> = table.lines().skip(4).collect();
    assert!(lines.iter().all(|l| l.len() == lines[0].len()), "{table}");
    for text in
        ["8 branches from layer3.0 (index 15)", "planes 64, 128, 79, 170 (shift 11)", "99.70%", "saved"]
    {
        assert!(table.contains(text), "{text:?} not in\n{table}");
    }
}

fn options() -> impl Strategy<Value = PlanOptions> {
    let blocks = [1usize..4, 1usize..9, 1usize..12, 1usize..4];
    (blocks, 0usize..30, 1usize..40, 1usize..2000, any::<bool>()).prop_map(
        |(blocks, at, branches, classes, wide)| {
            let mut o = PlanOptions { branches, classes, blocks, ..PlanOptions::paper(1) };
            o.backbone.base_width = if wide { 128 } else { 64 };
            let positions: Vec<_> = o.backbone.reduced(blocks).unwrap().positions().collect();
            o.split = positions[at % positions.len()];
            o
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The shift is the smallest that meets the budget.
    #[test]
    fn shift_is_minimal(o in options()) {
        match Plan::new(o.clone()) {
            Ok(p) => {
                prop_assert!(p.ratio() <= 1.0);
                if p.shift() > 0 {
                    let wider = Plan::new(PlanOptions { shift: Some(p.shift() - 1), ..o }).unwrap();
                    prop_assert!(wider.ratio() > 1.0);
                }
            }
            Err(e) => prop_assert!(matches!(e, PlanError::NoPlanes { .. } | PlanError::NoShift { .. }), "{}", e),
        }
    }

    /// More shift or more branches never widen a branch.
    #[test]
    fn planes_are_monotone(o in options(), shift in 0usize..4) {
        prop_assume!(o.branches > 1);
        let at = |branches, shift| {
            Plan::new(PlanOptions { branches, shift: Some(shift), ..o.clone() }).map(|p| p.planes())
        };
        if let (Ok(base), Ok(more)) = (at(o.branches, shift), at(o.branches + 1, shift)) {
            prop_assert!(more.iter().zip(&base).all(|(a, b)| a <= b));
        }
        if let (Ok(base), Ok(more)) = (at(o.branches, shift), at(o.branches, shift + 1)) {
            for stage in 0..4 {
                let thinner = usize::from(stage + 1 >= o.split.stage());
                prop_assert_eq!(more[stage] + thinner, base[stage]);
            }
        }
    }

    /// Rounding keeps to the budget and within one multiple of the calibrated widths.
    #[test]
    fn rounding_stays_near(o in options(), to in 1usize..33) {
        prop_assume!(o.branches > 1);
        let Ok(exact) = Plan::new(o.clone()) else { return Ok(()) };
        let Ok(rounded) = Plan::new(PlanOptions { round_to: Some(to), ..o.clone() }) else { return Ok(()) };
        prop_assert!(rounded.ratio() <= 1.0);
        for stage in o.split.stage()..=4 {
            let (a, b) = (rounded.planes()[stage - 1], exact.planes()[stage - 1]);
            prop_assert!(a % to == 0 && a.abs_diff(b) <= to);
        }
        if to == 1 {
            prop_assert!(rounded.ratio() >= exact.ratio());
        }
    }
}
