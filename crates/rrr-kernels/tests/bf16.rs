//! Products in bf16: the bits of the instruction TDPBF16PS on every instruction set.

use rrr_kernels::{
    Activation, Aligned, Buffer, Compute, Conv, ConvPlan, GradWeight, Isa, Pool, Precision, RowsJob, Weights,
};
use std::sync::Arc;

/// Values of all magnitudes that a network has.
fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mantissa = ((state >> 40) as f32 / (1 << 23) as f32) - 1.0;
            mantissa * 2f32.powi((state >> 32) as i32 % 12 - 8)
        })
        .collect()
}

/// Round to nearest even, through f64: the neighbours are exact there.
fn rounded(x: f32) -> f64 {
    let low = f32::from_bits(x.to_bits() & 0xffff_0000);
    let high = f32::from_bits((x.to_bits() & 0xffff_0000) + 0x1_0000);
    let (below, above) = ((f64::from(x) - f64::from(low)).abs(), (f64::from(high) - f64::from(x)).abs());
    let low_is_even = low.to_bits() >> 16 & 1 == 0;
    f64::from(if below < above || below == above && low_is_even { low } else { high })
}

/// The dot product of 32 pairs at a time as the manual of TDPBF16PS has it: even and odd terms in chains of fused
/// multiply-adds, then their sum, then the sum with what there was.
fn tile_dot(a: &[f32], b: &[f32]) -> f32 {
    let fused = |x: f32, y: f32, c: f32| (rounded(x) * rounded(y) + f64::from(c)) as f32;
    let mut sum = 0.0;
    for (a, b) in a.chunks(32).zip(b.chunks(32)) {
        let mut chains = [0f32; 2];
        for (k, (&a, &b)) in a.iter().zip(b).enumerate() {
            chains[k % 2] = fused(a, b, chains[k % 2]);
        }
        sum += chains[0] + chains[1];
    }
    sum
}

fn computes() -> impl Iterator<Item = Compute> {
    let pool = Arc::new(Pool::new(2));
    Isa::available()
        .map(move |isa| Compute::with_isa(pool.clone(), isa).unwrap().with_precision(Precision::Bf16))
}

/// Forward, input gradient and weight gradient of a 1x1 convolution of one pixel are plain matrix products.
#[test]
fn matrix_products_have_the_documented_bits() {
    // Channels in and out, images: whole tiles and remainders of every kind.
    for (cin, cout, n) in [(5, 7, 3), (32, 16, 16), (79, 40, 33), (40, 70, 300)] {
        let (x, w, dy) = (values(n * cin, 1), values(cout * cin, 2), values(n * cout, 3));
        let row = |m: &[f32], i: usize, len: usize| m[i * len..(i + 1) * len].to_vec();
        let column = |m: &[f32], j: usize, len: usize| m.iter().skip(j).step_by(len).copied().collect();
        let columns = |m: &[f32], len: usize| (0..len).map(|j| column(m, j, len)).collect::<Vec<Vec<f32>>>();
        let (x_columns, dy_columns, w_columns) = (columns(&x, cin), columns(&dy, cout), columns(&w, cin));
        let product = |rows: &dyn Fn(usize) -> Vec<f32>, count: usize, others: &[Vec<f32>]| -> Vec<f32> {
            (0..count)
                .flat_map(|i| others.iter().map(|o| tile_dot(&rows(i), o)).collect::<Vec<_>>())
                .collect()
        };
        let w_rows: Vec<Vec<f32>> = (0..cout).map(|o| row(&w, o, cin)).collect();
        let y = product(&|i| row(&x, i, cin), n, &w_rows);
        let dx = product(&|i| row(&dy, i, cout), n, &w_columns);
        let dw = product(&|o| dy_columns[o].clone(), cout, &x_columns);

        for compute in computes() {
            let (isa, conv) = (compute.isa(), Conv::new(cin, cout, 1, 1));
            let plan = ConvPlan::new(conv, (1, 1), n, true, &compute);
            let activation = |values: &[f32], channels| {
                let mut a = Activation::zeros(channels, 1, 1, n);
                a.set_nchw(values);
                a
            };
            let mut packed = Buffer::zeros(conv.packed_len());
            conv.pack(&w, &mut packed);
            let mut forward = Aligned::zeros(conv.rounded_len());
            conv.round(isa, &packed, &mut forward);
            let mut backward = Aligned::zeros(conv.rounded_transposed_len());
            conv.round_transposed(isa, &packed, &mut backward);
            let (x, dy_act) = (activation(&x, cin), activation(&dy, cout));
            let mut y_act = Activation::zeros(cout, 1, 1, n);
            plan.forward([RowsJob::new(x.data(), Weights::Bf16(&forward), y_act.data_mut())]);
            assert_eq!(y_act.to_nchw(), y, "{isa} forward, {cin} {cout} {n}");
            let mut dx_act = Activation::zeros(cin, 1, 1, n);
            plan.grad_input([RowsJob::new(dy_act.data(), Weights::Bf16(&backward), dx_act.data_mut())]);
            assert_eq!(dx_act.to_nchw(), dx, "{isa} input gradient, {cin} {cout} {n}");
            let mut dw_packed = Buffer::zeros(conv.packed_len());
            plan.grad_weight([GradWeight::new(x.data(), dy_act.data(), &mut dw_packed)]);
            assert_eq!(conv.unpack(&dw_packed), dw, "{isa} weight gradient, {cin} {cout} {n}");
        }
    }
}

#[test]
fn special_values_are_rounded_as_the_hardware_does() {
    // A value below the smallest normal number counts as zero; infinities and NaN pass through.
    let cases = [
        (f32::MIN_POSITIVE / 2.0, 0.0),
        (f32::INFINITY, f32::INFINITY),
        (f32::NEG_INFINITY, f32::NEG_INFINITY),
        (f32::MAX, f32::INFINITY),
        (1.0 + 2f32.powi(-8), 1.0),
        (1.0 + 3.0 * 2f32.powi(-8), 1.0 + 2f32.powi(-6)),
    ];
    for compute in computes() {
        let conv = Conv::new(1, 1, 1, 1);
        let plan = ConvPlan::new(conv, (1, 1), 1, false, &compute);
        let mut packed = Buffer::zeros(conv.packed_len());
        conv.pack(&[1.0], &mut packed);
        let mut w = Aligned::zeros(conv.rounded_len());
        conv.round(compute.isa(), &packed, &mut w);
        let run = |value: f32| {
            let mut x = Activation::zeros(1, 1, 1, 1);
            x.set_nchw(&[value]);
            let mut y = Activation::zeros(1, 1, 1, 1);
            plan.forward([RowsJob::new(x.data(), Weights::Bf16(&w), y.data_mut())]);
            y.to_nchw()[0]
        };
        for (x, y) in cases {
            assert_eq!(run(x), y, "{} of {x:e}", compute.isa());
        }
        assert!(run(f32::NAN).is_nan(), "{}", compute.isa());
    }
}
