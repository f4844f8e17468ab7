//! Convolutions of activations in bf16: every instruction set of this machine against plain loops, and against each
//! other to the bit.

mod common;

use common::{are_close, has_bits_of_amx, isas, values_of};
use proptest::prelude::*;
use rrr_kernels::{
    Bf16Activation, Bf16Conv, Bf16Job, Bf16Plan, Buffer, Compute, Conv, IMAGE_SLACK, Isa, Pool,
    bf16_avg_pool, bf16_max_pool, max_pool_size, round_bf16,
};
use std::sync::Arc;

#[derive(Clone, Debug)]
struct Case {
    cin: usize,
    cout: usize,
    kernel: usize,
    stride: usize,
    size: (usize, usize),
    n: usize,
    /// Images before and behind these in the output.
    among: (usize, usize),
    groups: usize,
    /// Channels of a second input, if there is one, of which a 1x1 convolution is added.
    skip: Option<usize>,
    /// Whether all groups read the same input.
    shared: bool,
    residual: bool,
    relu: bool,
    threads: usize,
}

fn channels() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..70, Just(79), Just(128)]
}

/// Many channels or large images: with both at once, emulated machines would take minutes per case.
fn cases() -> impl Strategy<Value = Case> {
    let n = prop_oneof![1usize..8, Just(16), Just(20)];
    let wide = (channels(), channels(), (1usize..10, 1usize..10), n);
    let large = (1usize..40, 1usize..40, (15usize..20, 15usize..36), 1usize..8);
    let layer = (prop_oneof![Just(1usize), Just(3)], 1usize..3, 1usize..4);
    let options = (prop::option::of(channels()), any::<bool>(), any::<bool>(), any::<bool>());
    let among = prop_oneof![Just((0, 0)), (0usize..4, 0usize..4)];
    (prop_oneof![wide, large], among, layer, options, 1usize..4).prop_map(
        |((cin, cout, size, n), among, (kernel, stride, groups), options, threads)| {
            let (skip, shared, residual, relu) = options;
            Case { cin, cout, kernel, stride, size, n, among, groups, skip, shared, residual, relu, threads }
        },
    )
}

/// Stands where nothing was written.
const NAN: u16 = 0x7fc0;

/// Small integers, so that every sum is exact in f32.
fn integers(len: usize, seed: usize) -> Vec<f32> {
    (0..len)
        .map(|i| ((i.wrapping_mul(2_654_435_761).wrapping_add(seed * 97) >> 7) % 7) as f32 - 3.0)
        .collect()
}

/// Values of all magnitudes that a network has.
fn reals(len: usize, seed: usize) -> Vec<f32> {
    let mut state = seed as u64;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mantissa = ((state >> 40) as f32 / (1 << 23) as f32) - 1.0;
            mantissa * 2f32.powi((state >> 32) as i32 % 12 - 8)
        })
        .collect()
}

/// The nearest bf16, ties to even, of numbers that are no special ones.
fn rounded(x: f32) -> f32 {
    f32::from_bits((x.to_bits() + 0x7fff + (x.to_bits() >> 16 & 1)) & 0xffff_0000)
}

/// `[group][n][channels][pixels]`.
fn activation(
    values: &[f32],
    groups: usize,
    channels: usize,
    size: (usize, usize),
    n: usize,
) -> Bf16Activation {
    let mut a = Bf16Activation::default();
    // Larger first: what is left in memory must not matter.
    a.reshape(groups, channels + 32, (size.0 + 1, size.1), n);
    a.data_mut().fill(NAN);
    a.reshape(groups, channels, size, n);
    let plane = a.plane_len();
    let rows = a.rows() * 32;
    a.data_mut().chunks_exact_mut(plane).for_each(|plane| plane[..rows].fill(0));
    let pixels = size.0 * size.1;
    for (i, &value) in values.iter().enumerate() {
        let (rest, pixel) = (i / pixels, i % pixels);
        let (rest, channel) = (rest / channels, rest % channels);
        a.set(rest / n, rest % n, channel, pixel, value);
    }
    a
}

fn output(size: (usize, usize), kernel: usize, stride: usize) -> (usize, usize) {
    let one = |s: usize| (s + 2 * (kernel / 2) - kernel) / stride + 1;
    (one(size.0), one(size.1))
}

/// Adds a convolution's sums: `x` is `[n][cin][pixels]`, `y` `[n][cout][pixels]`.
fn convolve(
    conv: (usize, usize, usize, usize),
    size: (usize, usize),
    n: usize,
    x: &[f32],
    w: &[f32],
    y: &mut [f32],
) {
    let (cin, cout, kernel, stride) = conv;
    let (pad, out) = (kernel / 2, output(size, kernel, stride));
    for image in 0..n {
        for oy in 0..out.0 {
            for ox in 0..out.1 {
                for tap in 0..kernel * kernel {
                    let (iy, ix) = (oy * stride + tap / kernel, ox * stride + tap % kernel);
                    if iy < pad || ix < pad || iy - pad >= size.0 || ix - pad >= size.1 {
                        continue;
                    }
                    let at = (iy - pad) * size.1 + ix - pad;
                    for o in 0..cout {
                        let sum: f32 = (0..cin)
                            .map(|i| {
                                x[(image * cin + i) * size.0 * size.1 + at]
                                    * w[(o * cin + i) * kernel * kernel + tap]
                            })
                            .sum();
                        y[(image * cout + o) * out.0 * out.1 + oy * out.1 + ox] += sum;
                    }
                }
            }
        }
    }
}

/// What goes into a convolution of every group.
#[derive(Clone)]
struct Inputs {
    x: Vec<f32>,
    skipped: Vec<f32>,
    w: Vec<Vec<f32>>,
    skip_w: Vec<Vec<f32>>,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

impl Case {
    fn inputs(&self, values: fn(usize, usize) -> Vec<f32>) -> Inputs {
        let pixels = self.size.0 * self.size.1;
        let out = output(self.size, self.kernel, self.stride);
        let x_groups = if self.shared { 1 } else { self.groups };
        let skip = self.skip.unwrap_or(0);
        let weights = |len: usize, seed: usize| (0..self.groups).map(|g| values(len, seed + g)).collect();
        Inputs {
            x: values(x_groups * self.n * self.cin * pixels, 1),
            skipped: values(self.n * skip * pixels, 2),
            w: weights(self.cout * self.cin * self.kernel * self.kernel, 10),
            skip_w: weights(self.cout * skip, 20),
            bias: values(self.groups * self.cout, 3),
            residual: values(self.groups * self.n * self.cout * out.0 * out.1, 4),
        }
    }

    fn expected(&self, i: &Inputs) -> Vec<f32> {
        let out = output(self.size, self.kernel, self.stride);
        let len = self.n * self.cout * out.0 * out.1;
        let mut all = Vec::new();
        for g in 0..self.groups {
            let mut y = vec![0.0; len];
            let x_len = self.n * self.cin * self.size.0 * self.size.1;
            let x = &i.x[if self.shared { 0 } else { g * x_len }..][..x_len];
            convolve((self.cin, self.cout, self.kernel, self.stride), self.size, self.n, x, &i.w[g], &mut y);
            if let Some(skip) = self.skip {
                let conv = (skip, self.cout, 1, self.stride);
                convolve(conv, self.size, self.n, &i.skipped, &i.skip_w[g], &mut y);
            }
            for (at, y) in y.iter_mut().enumerate() {
                *y += i.bias[g * self.cout + at / (out.0 * out.1) % self.cout];
                if self.residual {
                    *y += i.residual[g * len + at];
                }
                *y = rounded(if self.relu { y.max(0.0) } else { *y });
            }
            all.extend(y);
        }
        all
    }

    fn run(&self, i: &Inputs, compute: &Compute) -> Bf16Activation {
        let first = Conv::new(self.cin, self.cout, self.kernel, self.stride);
        let second = self.skip.map(|skip| Conv::new(skip, self.cout, 1, self.stride));
        let conv = second.map_or(Bf16Conv::new(first), |second| Bf16Conv::sum(first, second));
        let pack = |conv: &Conv, weights: &[f32]| {
            let mut packed = Buffer::zeros(conv.packed_len());
            conv.pack(weights, &mut packed);
            packed
        };
        let padded = self.cout.next_multiple_of(32);
        let (mut w, mut bias) = (Vec::new(), vec![0.0; self.groups * padded]);
        for g in 0..self.groups {
            let packed = pack(&first, &i.w[g]);
            let skipped = second.map(|conv| pack(&conv, &i.skip_w[g]));
            let mut one = vec![0; conv.packed_len()];
            let parts: Vec<&[f32]> =
                [Some(&packed), skipped.as_ref()].into_iter().flatten().map(|b| &b[..]).collect();
            conv.pack(compute.isa(), &parts, &mut one);
            w.extend(one);
            bias[g * padded..][..self.cout].copy_from_slice(&i.bias[g * self.cout..][..self.cout]);
        }
        let x_groups = if self.shared { 1 } else { self.groups };
        let x = activation(&i.x, x_groups, self.cin, self.size, self.n);
        let skipped = self.skip.map(|skip| activation(&i.skipped, 1, skip, self.size, self.n));
        let inputs: Vec<&[u16]> =
            [Some(&x), skipped.as_ref()].into_iter().flatten().map(|a| a.data()).collect();
        let plan = Bf16Plan::within(
            &conv,
            &vec![self.size; inputs.len()],
            self.groups,
            (self.n, self.among.0 + self.n + self.among.1),
        );
        let residual = activation(&i.residual, self.groups, self.cout, plan.output(), self.n);
        let (before, after) = self.among;
        let (images, all) = (before..before + self.n, before + self.n + after);
        let mut whole = Bf16Activation::default();
        whole.reshape(self.groups, self.cout, plan.output(), all);
        whole.data_mut().fill(NAN);
        whole.reshape(self.groups, self.cout, plan.output(), all);
        let job = Bf16Job {
            x: &inputs,
            w: &w,
            bias: &bias,
            residual: self.residual.then(|| residual.data()),
            relu: self.relu,
            y: whole.images_mut(images.clone()),
        };
        plan.forward(job, compute);
        // Other images are as they were.
        let mut y = Bf16Activation::default();
        y.reshape(self.groups, self.cout, plan.output(), self.n);
        let (from_len, to_len) = (whole.plane_len(), y.plane_len());
        for (from, to) in whole.data().chunks_exact(from_len).zip(y.data_mut().chunks_exact_mut(to_len)) {
            for (i, row) in from[..whole.rows() * 32].chunks_exact(32).enumerate() {
                match (i % all).checked_sub(before).filter(|image| *image < self.n) {
                    Some(image) => to[(i / all * self.n + image) * 32..][..32].copy_from_slice(row),
                    None => assert!(row.iter().all(|v| *v == NAN), "another image"),
                }
            }
            assert!(from[whole.rows() * 32..][..32].iter().all(|v| *v == 0), "zero row");
        }
        y
    }
}

fn check(case: &Case) {
    let pool = Arc::new(Pool::new(case.threads));
    let computes = || isas().map(|isa| Compute::with_isa(pool.clone(), isa).unwrap());
    let inputs = case.inputs(integers);
    let expected = case.expected(&inputs);
    for compute in computes() {
        let y = case.run(&inputs, &compute);
        assert_eq!(values_of(&y), expected, "{}", compute.isa());
        let (plane, rows) = (y.plane_len(), y.rows() * 32);
        // Channels that are none, and the rows of zeros, are zero.
        let padding = case.cout.next_multiple_of(32) - case.cout;
        for (i, plane) in y.data().chunks_exact(plane).enumerate() {
            let last = (i + 1) % case.cout.div_ceil(32) == 0;
            for row in plane[..rows + 32].chunks_exact(32) {
                let row = if last { &row[32 - padding..] } else { &[] };
                assert!(row.iter().all(|&v| v == 0), "{} padding", compute.isa());
            }
            assert!(plane[rows..rows + 32].iter().all(|&v| v == 0), "{} zero row", compute.isa());
        }
    }
    if cfg!(miri) {
        // The same memory for other values.
        return;
    }
    let inputs = case.inputs(reals);
    let want = values_of(&case.run(&inputs, &Compute::with_isa(pool.clone(), Isa::Portable).unwrap()));
    let pixels = case.size.0 * case.size.1;
    let one = Case { n: 1, ..case.clone() };
    let last = |values: &[f32], len: usize| -> Vec<f32> {
        values.chunks_exact((len * case.n).max(1)).flat_map(|g| g[len * (case.n - 1)..].to_vec()).collect()
    };
    let out = want.len() / (case.groups * case.n * case.cout);
    let alone = Inputs {
        x: last(&inputs.x, case.cin * pixels),
        skipped: last(&inputs.skipped, case.skip.unwrap_or(0) * pixels),
        residual: last(&inputs.residual, case.cout * out),
        ..inputs.clone()
    };
    for compute in computes() {
        let isa = compute.isa();
        let got = values_of(&case.run(&inputs, &compute));
        let equal = if has_bits_of_amx(isa) { got == want } else { are_close(&got, &want) };
        assert!(equal, "{isa} and portable differ");
        if isa == Isa::active() || !has_bits_of_amx(isa) {
            // An image alone is what it is in the batch.
            assert_eq!(values_of(&one.run(&alone, &compute)), last(&got, case.cout * out), "{isa} alone");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    #[cfg_attr(miri, ignore = "too slow to interpret")]
    fn convolutions_equal_plain_loops(case in cases()) {
        check(&case);
    }
}

/// Small enough for Miri (`.ci/miri`).
#[test]
fn small_convolutions_equal_plain_loops() {
    let plain = Case {
        cin: 3,
        cout: 18,
        kernel: 3,
        stride: 1,
        size: (2, 3),
        n: 2,
        among: (1, 1),
        groups: 1,
        skip: None,
        shared: false,
        residual: true,
        relu: true,
        threads: 2,
    };
    check(&plain);
    check(&Case { kernel: 1, stride: 2, n: 9, groups: 2, skip: Some(33), ..plain });
}

/// Shapes of the networks: every kind of tile.
#[test]
#[cfg_attr(miri, ignore = "too slow to interpret")]
fn layers_of_networks_equal_plain_loops() {
    let plain = Case {
        cin: 64,
        cout: 64,
        kernel: 3,
        stride: 1,
        size: (16, 16),
        n: 1,
        among: (0, 0),
        groups: 1,
        skip: None,
        shared: false,
        residual: false,
        relu: true,
        threads: 2,
    };
    let cases = [
        Case { size: (32, 32), ..plain },
        Case { n: 16, size: (6, 5), ..plain },
        Case { stride: 2, n: 16, size: (8, 8), groups: 2, cin: 79, cout: 79, ..plain },
        Case { stride: 2, size: (33, 32), ..plain },
        Case { kernel: 1, cin: 100, cout: 79, groups: 3, shared: true, ..plain },
        Case { kernel: 1, cin: 40, cout: 170, groups: 2, skip: Some(96), stride: 2, n: 3, ..plain },
        Case { kernel: 1, cin: 64, cout: 256, residual: true, n: 4, ..plain },
        Case { kernel: 1, cin: 64, cout: 256, residual: true, n: 4, among: (4, 24), ..plain },
        Case { kernel: 1, cin: 64, cout: 96, residual: true, n: 16, among: (16, 0), size: (8, 8), ..plain },
        Case { kernel: 1, cin: 64, cout: 96, skip: Some(64), stride: 2, n: 4, among: (8, 1), ..plain },
    ];
    cases.iter().for_each(check);
}

/// The 7x7 convolution with stride 2 of padded images.
#[test]
fn convolutions_of_images_equal_plain_loops() {
    let all = [(1, (3, 4), 5), (1, (32, 32), 64), (3, (33, 41), 40), (2, (7, 5), 16)];
    for &(n, (height, width), cout) in if cfg!(miri) { &all[..1] } else { &all[..] } {
        let (pad, out) = (3, output((height, width), 7, 2));
        let (x, w) = (integers(n * 3 * height * width, 1), integers(cout * 3 * 49, 2));
        let mut expected = vec![0.0; n * cout * out.0 * out.1];
        convolve((3, cout, 7, 2), (height, width), n, &x, &w, &mut expected);
        expected.iter_mut().for_each(|y| *y = rounded(y.max(0.0)));

        let mut images = vec![0.0; n * (height + 2 * pad) * (width + 2 * pad) * 3 + IMAGE_SLACK];
        for (i, &value) in x.iter().enumerate() {
            let (rest, at) = (i / (height * width), i % (height * width));
            let (image, channel) = (rest / 3, rest % 3);
            let line = image * (height + 2 * pad) + at / width + pad;
            images[(line * (width + 2 * pad) + at % width + pad) * 3 + channel] = value;
        }
        let conv = Conv::image(cout);
        let mut packed = Buffer::zeros(conv.packed_len());
        conv.pack(&w, &mut packed);
        let stored = Bf16Conv::new(conv);
        let pool = Arc::new(Pool::new(2));
        for isa in isas() {
            let compute = Compute::with_isa(pool.clone(), isa).unwrap();
            let mut rounded = vec![0; images.len()];
            round_bf16(isa, &images, &mut rounded);
            let mut w = vec![0; stored.packed_len()];
            stored.pack(isa, &[&packed], &mut w);
            let plan = Bf16Plan::new(&stored, &[(height, width)], 1, n);
            let mut y = Bf16Activation::default();
            y.reshape(1, cout, plan.output(), n);
            let bias = vec![0.0; cout.next_multiple_of(32)];
            let job =
                Bf16Job { x: &[&rounded], w: &w, bias: &bias, residual: None, relu: true, y: y.data_mut() };
            plan.forward(job, &compute);
            assert_eq!(values_of(&y), expected, "{isa}");
        }
    }
}

#[test]
fn pooling_equals_plain_loops() {
    let pool = Arc::new(Pool::new(2));
    let (groups, channels, n, size) = if cfg!(miri) { (2, 33, 1, (3, 2)) } else { (2, 40, 5, (9, 6)) };
    let pixels = size.0 * size.1;
    let values: Vec<f32> = integers(groups * n * channels * pixels, 1).iter().map(|v| v.max(0.0)).collect();
    let x = activation(&values, groups, channels, size, n);
    let out = (max_pool_size(size.0), max_pool_size(size.1));
    for isa in Isa::available() {
        let compute = Compute::with_isa(pool.clone(), isa).unwrap();
        let mut y = Bf16Activation::default();
        bf16_max_pool(&x, &mut y, &compute);
        let mut expected = vec![0.0; groups * n * channels * out.0 * out.1];
        for (i, most) in expected.iter_mut().enumerate() {
            let (map, at) = (i / (out.0 * out.1), i % (out.0 * out.1));
            let (oy, ox) = (at / out.1, at % out.1);
            for y in (2 * oy).saturating_sub(1)..(2 * oy + 2).min(size.0) {
                for x in (2 * ox).saturating_sub(1)..(2 * ox + 2).min(size.1) {
                    *most = values[map * pixels + y * size.1 + x].max(*most);
                }
            }
        }
        assert_eq!(values_of(&y), expected, "{isa} maximum");
        let mut mean = vec![0.0; groups * n * channels];
        bf16_avg_pool(&x, &mut mean, &compute);
        let expected: Vec<f32> =
            values.chunks(pixels).map(|map| map.iter().sum::<f32>() / pixels as f32).collect();
        assert_eq!(mean, expected, "{isa} mean");
    }
}
