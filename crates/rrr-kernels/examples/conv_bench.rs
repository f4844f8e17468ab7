//! Achieved GFLOP/s of the network's typical convolutions, per pass and instruction set.
//!
//! `cargo run --release -p rrr-kernels --example conv_bench [threads]`

use rrr_kernels::{Activation, Buffer, Compute, Conv, ConvPlan, GradWeight, Isa, Pool, RowsJob};
use std::sync::Arc;
use std::time::Instant;

fn main() {
    let threads = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(1);
    let pool = Arc::new(Pool::new(threads));
    // (jobs, cin, cout, kernel, stride, size)
    let shapes = [
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
    println!("{} images, {} threads; GFLOP/s: forward, input gradient, weight gradient", 32, threads);
    for isa in Isa::available().filter(|&isa| isa != Isa::Portable) {
        let compute = Compute::with_isa(Arc::clone(&pool), isa).expect("available");
        for (count, cin, cout, kernel, stride, size) in shapes {
            let n = 32;
            let conv = Conv::new(cin, cout, kernel, stride);
            let plan = ConvPlan::new(conv, (size, size), n, true, &compute);
            let (oh, ow) = plan.output();
            let zeros =
                |c, h, w| -> Vec<Activation> { (0..count).map(|_| Activation::zeros(c, h, w, n)).collect() };
            let (x, mut dx) = (zeros(cin, size, size), zeros(cin, size, size));
            let (mut y, dy) = (zeros(cout, oh, ow), zeros(cout, oh, ow));
            let w = Buffer::zeros(conv.packed_len());
            let wt = Buffer::zeros(conv.transposed_len());
            let mut dw: Vec<Buffer> = (0..count).map(|_| Buffer::zeros(conv.packed_len())).collect();
            let macs = (count * cin * cout * kernel * kernel * oh * ow * n) as f64;
            let median = |f: &mut dyn FnMut()| {
                let mut times: Vec<f64> = (0..9)
                    .map(|_| {
                        let start = Instant::now();
                        f();
                        start.elapsed().as_secs_f64()
                    })
                    .collect();
                times.sort_by(f64::total_cmp);
                2e-9 * macs / times[4]
            };
            let forward = median(&mut || {
                plan.forward(x.iter().zip(&mut y).map(|(x, y)| RowsJob::new(x.data(), &w, y.data_mut())));
            });
            let input = median(&mut || {
                let jobs = dy.iter().zip(&mut dx);
                plan.grad_input(jobs.map(|(x, y)| RowsJob::new(x.data(), &wt, y.data_mut())));
            });
            let weight = median(&mut || {
                let jobs = x.iter().zip(&dy).zip(&mut dw);
                plan.grad_weight(jobs.map(|((x, dy), dw)| GradWeight::new(x.data(), dy.data(), dw)));
            });
            println!(
                "{isa} {count} x {cin:>4} -> {cout:<4} {kernel}x{kernel}/{stride} on {size:>2}: {forward:6.1} {input:6.1} {weight:6.1}"
            );
        }
    }
}
