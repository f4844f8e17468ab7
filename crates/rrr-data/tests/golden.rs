//! Augmentation and resizing against albumentations 1.2.0 and OpenCV 4.6.0 (see `golden/make.py`).

use std::collections::BTreeMap;

use rrr_data::augment::filter::MotionKernel;
use rrr_data::augment::{Op, Scratch};
use rrr_data::{Resize, RgbImage};
use serde::Deserialize;

const BLOB: &[u8] = include_bytes!("golden/golden.bin");

#[derive(Deserialize)]
struct Golden {
    images: BTreeMap<String, Input>,
    /// Where the masks of all lines in grids of 3, 5 and 7 are.
    lines: usize,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Input {
    at: usize,
    width: usize,
    height: usize,
}

#[derive(Deserialize)]
struct Case {
    op: String,
    params: Vec<f64>,
    input: String,
    at: usize,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/golden.json")).expect("golden.json is well-formed")
}

/// Largest difference allowed, and the largest share of values that may differ at all.
struct Tolerance {
    levels: u8,
    share: f64,
}

const EXACT: Tolerance = Tolerance { levels: 0, share: 0.0 };
/// OpenCV sums rounded float products, with or without fused multiply-add by processor: a tie may round either way.
const TIES: Tolerance = Tolerance { levels: 1, share: 0.03 };

fn compare(what: &str, ours: &[u8], theirs: &[u8], tolerance: &Tolerance) -> Result<(), String> {
    assert_eq!(ours.len(), theirs.len());
    let differences: Vec<u8> =
        ours.iter().zip(theirs).map(|(a, b)| a.abs_diff(*b)).filter(|&d| d > 0).collect();
    let worst = differences.iter().copied().max().unwrap_or(0);
    let share = differences.len() as f64 / ours.len() as f64;
    if worst > tolerance.levels || share > tolerance.share {
        return Err(format!("{what}: {:.3} % of the values differ, by up to {worst}", share * 100.0));
    }
    Ok(())
}

#[test]
fn operations_match_albumentations() {
    let golden = golden();
    let mut scratch = Scratch::default();
    let mut failures = Vec::new();
    let mut checked = 0;
    // Noise is compared where it is made: only the adding is albumentations'.
    for case in golden.cases.iter().filter(|c| !["resize", "noise"].contains(&c.op.as_str())) {
        let input = &golden.images[&case.input];
        assert_eq!(input.width, input.height);
        let len = input.width * input.height * 3;
        let mut image = BLOB[input.at..][..len].to_vec();
        let p = &case.params;
        let at = |i: usize| p[i] as usize;
        let (op, tolerance) = match case.op.as_str() {
            "shear" => (Op::Shear { degrees: p[0] }, EXACT),
            "shift_scale_rotate" => {
                (Op::ShiftScaleRotate { degrees: p[0], scale: p[1], dx: p[2], dy: p[3] }, EXACT)
            }
            "rgb_shift" => (Op::RgbShift { shift: [p[0], p[1], p[2]] }, EXACT),
            "brightness_contrast" => (Op::BrightnessContrast { contrast: p[0], brightness: p[1] }, EXACT),
            "posterize" => (Op::Posterize { bits: p[0] as u32 }, EXACT),
            "motion_blur" => {
                let kernel = MotionKernel::line(at(0), (at(1), at(2)), (at(3), at(4)));
                // Sixths, fifths and so on are not exact as floats; halves and quarters are.
                let exact = kernel.mask().count_ones().is_power_of_two();
                (Op::MotionBlur { kernel }, if exact { EXACT } else { TIES })
            }
            "jpeg" => (Op::Jpeg { quality: p[0] as u32 }, EXACT),
            "equalize" => (Op::Equalize, EXACT),
            "solarize" => (Op::Solarize { threshold: p[0] as u8 }, EXACT),
            "sharpen" => (Op::Sharpen { alpha: p[0], lightness: p[1] }, TIES),
            "invert" => (Op::Invert, EXACT),
            other => panic!("golden.json has an unknown operation {other}"),
        };
        op.apply(&mut image, input.width, &mut scratch);
        let what = format!("{op:?} of {}", case.input);
        failures.extend(compare(&what, &image, &BLOB[case.at..][..len], &tolerance).err());
        checked += 1;
    }
    assert!(failures.is_empty(), "{} of {checked} cases differ:\n{}", failures.len(), failures.join("\n"));
    assert!(checked > 90);
}

#[test]
fn motion_lines_match_opencv() {
    let mut masks = BLOB[golden().lines..].as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b));
    for side in [3, 5, 7] {
        for i in 0..side * side * side * side {
            let (x0, y0, x1, y1) =
                (i / (side * side * side), i / (side * side) % side, i / side % side, i % side);
            let ours = MotionKernel::line(side, (x0, y0), (x1, y1)).mask();
            assert_eq!(Some(ours), masks.next(), "side {side}, ({x0}, {y0}) to ({x1}, {y1})");
        }
    }
}

#[test]
fn bilinear_resize_matches_opencv() {
    let golden = golden();
    let mut checked = 0;
    for case in golden.cases.iter().filter(|c| c.op == "resize") {
        let input = &golden.images[&case.input];
        let (height, size) = (case.params[0] as usize, case.params[1] as usize);
        let pixels = BLOB[input.at..][..height * input.width * 3].to_vec();
        let ours = RgbImage { width: input.width, height, pixels }.resized(size, Resize::Bilinear);
        let what = format!("{}x{height} to {size}", input.width);
        compare(&what, &ours, &BLOB[case.at..][..ours.len()], &EXACT).unwrap();
        checked += 1;
    }
    assert_eq!(checked, 5);
}
