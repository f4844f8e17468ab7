//! Prints how many 128x128 images per second and thread each augmentation handles.
//!
//! `cargo run --release -p rrr-data --example augment_bench`

use std::hint::black_box;
use std::time::{Duration, Instant};

use rrr_data::Policy;
use rrr_data::augment::filter::MotionKernel;
use rrr_data::augment::{Op, Scratch};
use rrr_data::rng::SeededRng;

const SIZE: usize = 128;
const TIME: Duration = Duration::from_millis(300);

fn main() {
    let ops = [
        ("shear", Op::Shear { degrees: 10.0 }),
        ("shift-scale-rotate", Op::ShiftScaleRotate { degrees: 17.0, scale: 1.005, dx: 0.05, dy: -0.03 }),
        ("rgb shift", Op::RgbShift { shift: [14.0, -3.0, 7.5] }),
        ("brightness-contrast", Op::BrightnessContrast { contrast: 1.1, brightness: -0.1 }),
        ("posterize", Op::Posterize { bits: 4 }),
        ("motion blur", Op::MotionBlur { kernel: MotionKernel::line(7, (0, 0), (6, 4)) }),
        ("jpeg", Op::Jpeg { quality: 99 }),
        ("gaussian noise", Op::GaussianNoise { sigma: 5.0, seed: 1 }),
        ("equalize", Op::Equalize),
        ("solarize", Op::Solarize { threshold: 128 }),
        ("sharpen", Op::Sharpen { alpha: 0.3, lightness: 0.7 }),
        ("invert", Op::Invert),
    ];
    let mut scratch = Scratch::default();
    for (name, op) in ops {
        measure(name, |image| op.apply(image, SIZE, &mut scratch));
    }
    let mut epoch = 0;
    measure("policy: paper", |image| {
        epoch += 1;
        let mut rng = SeededRng::new(1, "augment", "0", epoch, 0);
        Policy::Paper.apply(image, SIZE, &mut rng, &mut scratch);
    });
}

/// Times an operation on a fresh copy of one image each time, the copy included: the median of many single runs,
/// which a busy machine disturbs less than the mean.
fn measure(name: &str, mut op: impl FnMut(&mut [u8])) {
    let mut source = vec![0; SIZE * SIZE * 3];
    SeededRng::new(0, "bench", "", 0, 0).fill(&mut source);
    let mut image = source.clone();
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < TIME {
        let from = Instant::now();
        image.copy_from_slice(&source);
        op(black_box(&mut image));
        times.push(from.elapsed());
    }
    times.sort_unstable();
    let median = times[times.len() / 2];
    println!(
        "{name:20} {:8.1} us {:10.0} images/s",
        median.as_nanos() as f64 / 1e3,
        1.0 / median.as_secs_f64()
    );
}
