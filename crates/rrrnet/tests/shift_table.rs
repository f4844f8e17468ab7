//! The published calibration, row by row.

use rrrnet::arch::{ResNet, Split};
use rrrnet::plan::{Plan, PlanOptions};

/// Columns: row, classes, divergence index, branches, shift, ratio, then the planes of `layer1` to `layer4`, where the
/// stages before the split hold the widths of the shared stem, which are the backbone's.
const TABLE: &str = include_str!("reference/shift_1_1_1_1.csv");

#[test]
fn every_row_of_the_published_table() {
    let mut lines = TABLE.lines();
    let header = lines.next().unwrap();
    assert!(
        header.starts_with(",nb_classes,divergence_idx,nb_branch,shift,percent,diverged_planes_per_block_0,")
    );
    let mut rows = 0;
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        let n = |i: usize| cells[i].parse::<usize>().unwrap();
        let backbone = ResNet::resnet152();
        let plan = Plan::new(PlanOptions {
            split: Split::from_index(n(2), &backbone).unwrap(),
            branches: n(3),
            ..PlanOptions::paper(n(1))
        })
        .unwrap_or_else(|e| panic!("{line}: {e}"));
        assert_eq!(plan.split_index(), n(2), "{line}");
        assert_eq!(plan.shift(), n(4), "{line}");
        assert!((plan.ratio() - cells[5].parse::<f64>().unwrap()).abs() <= 1e-12, "{line}: {}", plan.ratio());
        assert_eq!(plan.planes(), [n(6), n(7), n(8), n(9)], "{line}");
        rows += 1;
    }
    assert_eq!(rows, 54);
}

/// The full depth calibrates too, here against an independent count in closed form.
#[test]
fn full_depth() {
    for (classes, split, branches) in [(20, 15, 8), (20, 51, 4), (1000, 15, 2), (5, 4, 16), (5, 7, 3)] {
        let backbone = ResNet::resnet152();
        let options = PlanOptions {
            blocks: [3, 8, 36, 3],
            split: Split::from_index(split, &backbone).unwrap(),
            branches,
            ..PlanOptions::paper(classes)
        };
        let first = options.split.stage() - 1;
        let plan = Plan::new(options).unwrap();
        let tail = |planes: [usize; 4]| {
            let mut total = 0;
            let mut cin = if first == 0 { 64 } else { 256 << (first - 1) };
            for (p, blocks) in planes.into_iter().zip(backbone.blocks).skip(first) {
                for block in 0..blocks {
                    total += cin * p + 9 * p * p + 4 * p * p + 2 * (p + p + 4 * p);
                    total += if block == 0 { 4 * p * cin + 8 * p } else { 0 };
                    cin = 4 * p;
                }
            }
            total + (cin + 1) * classes
        };
        let thin = |shift: usize| {
            let mut planes = backbone.planes;
            for p in &mut planes[first..] {
                *p = (*p as f64 / (branches as f64).sqrt()).floor() as usize - shift;
            }
            planes
        };
        let ratio = |shift| (branches * tail(thin(shift))) as f64 / tail(backbone.planes) as f64;
        let expected = (0..).find(|&shift| ratio(shift) <= 1.0).unwrap();
        assert_eq!((plan.shift(), plan.planes()), (expected, thin(expected)), "{classes} {split} {branches}");
        assert!((plan.ratio() - ratio(expected)).abs() <= 1e-12);
    }
}
