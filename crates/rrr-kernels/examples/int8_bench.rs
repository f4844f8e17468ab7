//! Achieved giga multiply-adds per second of the network's 8-bit layers, per instruction set, in the fastest of 15
//! runs.
//!
//! `cargo run --release -p rrr-kernels --example int8_bench [threads [images]]`

use rrr_kernels::int8::{Int8Activation, Int8Compute, Int8Conv, Int8Isa, Int8Job, Int8Plan};
use rrr_kernels::{BLOCK, Buffer, Conv, Pool, blocks};
use std::sync::Arc;
use std::time::Instant;

fn main() {
    let mut args = std::env::args().skip(1).map(|s| s.parse().expect("a number"));
    let (threads, n) = (args.next().unwrap_or(1), args.next().unwrap_or(32));
    let pool = Arc::new(Pool::new(threads));
    // (groups, inputs shared, [(cin, kernel, stride, input size)], cout); an input of 3 channels is an image.
    let shapes: [(usize, bool, &[_], usize); 11] = [
        (1, false, &[(3, 7, 2, 128)], 64),
        (1, false, &[(64, 1, 1, 32)], 64),
        (1, false, &[(64, 3, 1, 32)], 64),
        (1, false, &[(64, 1, 1, 32), (64, 1, 1, 32)], 256),
        (1, false, &[(256, 1, 1, 32)], 128),
        (1, false, &[(128, 3, 2, 32)], 128),
        (8, true, &[(512, 1, 1, 16)], 79),
        (8, false, &[(79, 3, 2, 16)], 79),
        (8, false, &[(79, 1, 1, 8), (512, 1, 2, 16)], 316),
        (8, false, &[(170, 3, 2, 8)], 170),
        (8, false, &[(170, 1, 1, 4), (316, 1, 2, 8)], 680),
    ];
    println!("{n} images, {threads} threads");
    for isa in Int8Isa::available().filter(|isa| !matches!(isa, Int8Isa::Portable | Int8Isa::Tiles)) {
        let compute = Int8Compute::with_isa(Arc::clone(&pool), isa).expect("available");
        let (mut all_ms, mut all_macs) = (0.0, 0.0);
        for (groups, shared, inputs, cout) in shapes {
            let image = inputs[0].0 == 3;
            let convs: Vec<Conv> = inputs
                .iter()
                .map(|&(cin, k, s, _)| if image { Conv::image(cout) } else { Conv::new(cin, cout, k, s) })
                .collect();
            let conv =
                if convs.len() == 2 { Int8Conv::sum(convs[0], convs[1]) } else { Int8Conv::new(convs[0]) };
            let sizes: Vec<(usize, usize)> = inputs.iter().map(|i| (i.3, i.3)).collect();
            let plan = Int8Plan::new(&conv, &sizes, groups, n, &compute);
            let x: Vec<Int8Activation> = inputs
                .iter()
                .enumerate()
                .map(|(i, &(cin, _, _, size))| {
                    let mut x = Int8Activation::new(&compute);
                    // Pixels take less than 16 channels would.
                    x.reshape(if shared || i == 1 { 1 } else { groups }, cin, (size, size), n);
                    x
                })
                .collect();
            let x: Vec<&[u8]> = x.iter().map(Int8Activation::data).collect();
            let w = Buffer::zeros(groups * conv.packed_len(&compute) / 4);
            let zeros = vec![0.0; groups * blocks(cout) * BLOCK];
            let mut y = Int8Activation::new(&compute);
            y.reshape(groups, cout, plan.output(), n);
            let mut times: Vec<f64> = (0..15)
                .map(|_| {
                    let start = Instant::now();
                    let job = Int8Job {
                        x: &x,
                        w: w.as_bytes(),
                        scale: &zeros,
                        offset: &zeros,
                        residual: None,
                        max: 127,
                        y: y.data_mut(),
                    };
                    plan.forward(job, &compute);
                    start.elapsed().as_secs_f64()
                })
                .collect();
            times.sort_by(f64::total_cmp);
            let pixels = plan.output().0 * plan.output().1 * n * groups;
            let macs: usize = inputs.iter().map(|&(cin, k, _, _)| cin * k * k * cout * pixels).sum();
            let (ms, macs) = (times[0] * 1e3, macs as f64);
            (all_ms, all_macs) = (all_ms + ms, all_macs + macs);
            let rate = macs / ms * 1e-6;
            println!("{isa} {groups} x {inputs:?} -> {cout}: {ms:7.3} ms {rate:6.1} GMAC/s");
        }
        println!("{isa} all: {all_ms:.3} ms {:.1} GMAC/s", all_macs / all_ms * 1e-6);
    }
}
