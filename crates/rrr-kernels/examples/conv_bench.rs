//! Achieved GFLOP/s of the network's typical convolutions, per pass and instruction set, in the fastest of some runs,
//! and what the multipliers can do at most. The forward pass multiplies directly even where Winograd's products are
//! faster; the input gradient does not.
//!
//! `cargo run --release -p rrr-kernels --example conv_bench [threads [images [instruction set]]]`

use rrr_kernels::{Activation, Buffer, Compute, Conv, ConvPlan, GradWeight, Isa, Pool, RowsJob, fma_peak};
use std::sync::Arc;
use std::time::Instant;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, usual| args.get(i).map_or(usual, |s| s.parse().expect("a number"));
    let (threads, n) = (number(0, 1), number(1, 32));
    let only: Option<Isa> = args.get(2).map(|s| s.parse().expect("an instruction set"));
    let pool = Arc::new(Pool::new(threads));
    // (jobs, cin, cout, kernel, stride, size)
    let shapes = [
        (1, 3, 64, 7, 2, 128),
        (1, 64, 64, 3, 1, 32),
        (1, 64, 256, 1, 1, 32),
        (1, 128, 128, 3, 2, 32),
        (8, 512, 79, 1, 1, 16),
        (8, 79, 79, 3, 2, 16),
        (8, 79, 316, 1, 1, 8),
        (8, 512, 316, 1, 2, 16),
        (8, 170, 170, 3, 2, 8),
        (8, 170, 680, 1, 1, 4),
    ];
    println!("{n} images, {threads} threads; GFLOP/s: forward, input gradient, weight gradient");
    for isa in Isa::available().filter(|&isa| only.map_or(isa != Isa::Portable, |only| isa == only)) {
        let compute = Compute::with_isa(Arc::clone(&pool), isa).expect("available");
        println!("{isa} at most: {:.1}", fma_peak(&compute) * 1e-9);
        for (count, cin, cout, kernel, stride, size) in shapes {
            let rgb = cin == 3;
            let conv = if rgb { Conv::image(cout) } else { Conv::new(cin, cout, kernel, stride) };
            let plan = ConvPlan::new(conv, (size, size), n, true, &compute);
            let (oh, ow) = plan.output();
            let zeros =
                |c, h, w| -> Vec<Activation> { (0..count).map(|_| Activation::zeros(c, h, w, n)).collect() };
            // A padded image takes less than 16 channels of its size would; it has no gradient.
            let (x, mut dx) = (zeros(cin, size, size), zeros(cin, size, size));
            let (mut y, dy) = (zeros(cout, oh, ow), zeros(cout, oh, ow));
            let w = Buffer::zeros(conv.packed_len());
            let wt = Buffer::zeros(if rgb { 0 } else { conv.transposed_len() });
            let mut dw: Vec<Buffer> = (0..count).map(|_| Buffer::zeros(conv.packed_len())).collect();
            let macs = (count * cin * cout * kernel * kernel * oh * ow * n) as f64;
            let fastest = |f: &mut dyn FnMut()| {
                let times = (0..15).map(|_| {
                    let start = Instant::now();
                    f();
                    start.elapsed().as_secs_f64()
                });
                2e-9 * macs / times.fold(f64::INFINITY, f64::min).max(1e-5)
            };
            let forward = fastest(&mut || {
                plan.forward(x.iter().zip(&mut y).map(|(x, y)| RowsJob::new(x.data(), &w, y.data_mut())));
            });
            let input = fastest(&mut || {
                let jobs = dy.iter().zip(&mut dx);
                if !rgb {
                    plan.grad_input(jobs.map(|(x, y)| RowsJob::new(x.data(), &wt, y.data_mut())));
                }
            });
            let weight = fastest(&mut || {
                let jobs = x.iter().zip(&dy).zip(&mut dw);
                plan.grad_weight(jobs.map(|((x, dy), dw)| GradWeight::new(x.data(), dy.data(), dw)));
            });
            println!(
                "{isa} {count} x {cin:>4} -> {cout:<4} {kernel}x{kernel}/{stride} on {size:>2}: {forward:6.1} {input:6.1} {weight:6.1}"
            );
        }
    }
}
