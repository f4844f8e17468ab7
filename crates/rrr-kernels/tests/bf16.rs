//! Products in bf16: the bits of the instruction TDPBF16PS on every instruction set, or those of VDPBF16PS where that
//! computes them.

mod common;

use common::has_bits_of_amx;
use rrr_kernels::{
    Aligned, Bf16Activation, Bf16Conv, Bf16GradPlan, Bf16Job, Bf16Plan, Buffer, Compute, Conv, Isa, Pool,
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

/// A fused multiply-add of rounded values.
fn fused(x: f32, y: f32, c: f32) -> f32 {
    (rounded(x) * rounded(y) + f64::from(c)) as f32
}

/// The dot product pair by pair as the manual of VDPBF16PS has it: the odd term, then the even one.
fn pair_dot(a: &[f32], b: &[f32]) -> f32 {
    let pairs = a.chunks(2).zip(b.chunks(2));
    pairs.fold(0.0, |sum, (a, b)| a.iter().zip(b).rev().fold(sum, |sum, (&a, &b)| fused(a, b, sum)))
}

/// The dot product of 32 pairs at a time as the manual of TDPBF16PS has it: even and odd terms in chains of fused
/// multiply-adds, then their sum, then the sum with what there was.
fn tile_dot(a: &[f32], b: &[f32]) -> f32 {
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
    Isa::available().map(move |isa| Compute::with_isa(pool.clone(), isa).unwrap())
}

/// One pixel of `n` images, values `[n][channels]`.
fn activation(values: &[f32], channels: usize, n: usize) -> Bf16Activation {
    let mut a = Bf16Activation::default();
    a.reshape(1, channels, (1, 1), n);
    for (i, value) in values.iter().enumerate() {
        a.set(0, i / channels, i % channels, 0, *value);
    }
    a
}

/// The product of such rows with packed weights, without a bias.
fn product(plan: &Bf16Plan, x: &Bf16Activation, w: &[u32], channels: usize, compute: &Compute) -> Vec<f32> {
    let mut y = Bf16Activation::default();
    y.reshape(1, channels, (1, 1), x.n());
    let bias = Buffer::zeros(channels.next_multiple_of(32));
    let job = Bf16Job { x: &[x.data()], w, bias: &bias, residual: None, relu: false, y: y.data_mut() };
    plan.forward(job, compute);
    (0..x.n())
        .flat_map(|image| (0..channels).map(move |c| (image, c)))
        .map(|(i, c)| y.get(0, i, c, 0))
        .collect()
}

fn packed(conv: &Bf16Conv, weights: &[f32], isa: Isa) -> Aligned<u32> {
    let mut packed = Aligned::zeros(conv.packed_len());
    conv.pack(isa, &[weights], &mut packed);
    packed
}

/// Forward, input gradient and weight gradient of a 1x1 convolution of one pixel are plain matrix products; the first two
/// are rounded.
#[test]
fn matrix_products_have_the_documented_bits() {
    // Channels in and out, images: whole tiles and remainders of every kind.
    let all = [(5, 7, 3), (32, 16, 16), (79, 40, 33), (40, 70, 300)];
    for &(cin, cout, n) in if cfg!(miri) { &all[..1] } else { &all[..] } {
        let (x, w, dy) = (values(n * cin, 1), values(cout * cin, 2), values(n * cout, 3));
        let row = |m: &[f32], i: usize, len: usize| m[i * len..(i + 1) * len].to_vec();
        let column = |m: &[f32], j: usize, len: usize| m.iter().skip(j).step_by(len).copied().collect();
        let columns = |m: &[f32], len: usize| (0..len).map(|j| column(m, j, len)).collect::<Vec<Vec<f32>>>();
        let (x_columns, dy_columns, w_columns) = (columns(&x, cin), columns(&dy, cout), columns(&w, cin));
        let dots = |rows: &dyn Fn(usize) -> Vec<f32>, count: usize, others: &[Vec<f32>]| {
            [tile_dot, pair_dot].map(|dot| -> Vec<f32> {
                let row = |i: usize| others.iter().map(|o| dot(&rows(i), o)).collect::<Vec<_>>();
                (0..count).flat_map(row).collect()
            })
        };
        let w_rows: Vec<Vec<f32>> = (0..cout).map(|o| row(&w, o, cin)).collect();
        let round = |of_both: [Vec<f32>; 2]| {
            of_both.map(|values| values.into_iter().map(|v| rounded(v) as f32).collect::<Vec<f32>>())
        };
        let y = round(dots(&|i| row(&x, i, cin), n, &w_rows));
        let dx = round(dots(&|i| row(&dy, i, cout), n, &w_columns));
        // The sums of weight gradients are cut where operands are held at a time; these are of one piece.
        let dw = dots(&|o| dy_columns[o].clone(), cout, &x_columns);

        let conv = Conv::new(cin, cout, 1, 1);
        let mut weights = Buffer::zeros(conv.packed_len());
        conv.pack(&w, &mut weights);
        let (x, dy) = (activation(&x, cin, n), activation(&dy, cout, n));
        for compute in computes() {
            let isa = compute.isa();
            let bits = usize::from(!has_bits_of_amx(isa));
            let forward = Bf16Conv::new(conv);
            let plan = Bf16Plan::new(&forward, &[(1, 1)], 1, n);
            let got = product(&plan, &x, &packed(&forward, &weights, isa), cout, &compute);
            assert_eq!(got, y[bits], "{isa} forward, {cin} {cout} {n}");
            let gradient = Bf16Conv::input_gradient(&[conv]);
            let plan = Bf16Plan::gradient(&gradient, (1, 1), 1, n);
            let got = product(&plan, &dy, &packed(&gradient, &weights, isa), cin, &compute);
            assert_eq!(got, dx[bits], "{isa} input gradient, {cin} {cout} {n}");
            let mut got = Buffer::zeros(conv.packed_len());
            let plan = Bf16GradPlan::new(conv, (1, 1), 1, n);
            plan.run(x.data(), dy.data(), [&mut got[..]], &compute);
            assert_eq!(conv.unpack(&got), dw[bits], "{isa} weight gradient, {cin} {cout} {n}");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too slow to interpret")]
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
        let isa = compute.isa();
        let (conv, forward) = (Conv::new(1, 1, 1, 1), Bf16Conv::new(Conv::new(1, 1, 1, 1)));
        let plan = Bf16Plan::new(&forward, &[(1, 1)], 1, 1);
        let run = |x: f32, w: f32| {
            let mut weights = Buffer::zeros(conv.packed_len());
            conv.pack(&[w], &mut weights);
            product(&plan, &activation(&[x], 1, 1), &packed(&forward, &weights, isa), 1, &compute)[0]
        };
        for (value, want) in cases {
            assert_eq!([run(value, 1.0), run(1.0, value)], [want; 2], "{isa} of {value:e}");
        }
        assert!(run(f32::NAN, 1.0).is_nan() && run(1.0, f32::NAN).is_nan(), "{isa}");
    }
}
