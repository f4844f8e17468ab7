//! Convolutions on every instruction set of this machine against plain loops.

use proptest::prelude::*;
use rrr_kernels::{
    Activation, AdamWStep, AdamWTensor, BLOCK, Buffer, Compute, Conv, ConvPlan, GradWeight, Isa, Pool,
    RowsJob, blocks,
};
use std::sync::Arc;

/// Every instruction set of this machine.
fn computes(threads: usize) -> impl Iterator<Item = Compute> {
    let pool = Arc::new(Pool::new(threads));
    Isa::available().map(move |isa| Compute::with_isa(pool.clone(), isa).unwrap())
}

/// Packed weights, for the forward pass.
fn packed(conv: Conv, weights: &[f32]) -> Buffer {
    let mut packed = Buffer::zeros(conv.packed_len());
    conv.pack(weights, &mut packed);
    assert_eq!(conv.unpack(&packed), weights);
    packed
}

/// The same for the input gradient.
fn transposed(conv: Conv, packed: &[f32]) -> Buffer {
    let mut transposed = Buffer::zeros(conv.transposed_len());
    conv.transpose(packed, &mut transposed);
    transposed
}

#[derive(Clone, Debug)]
struct Case {
    cin: usize,
    cout: usize,
    kernel: usize,
    stride: usize,
    height: usize,
    width: usize,
    n: usize,
    threads: usize,
}

fn channels() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..40, Just(79), Just(170)]
}

fn cases() -> impl Strategy<Value = Case> {
    let shape = (channels(), channels(), prop_oneof![Just(1usize), Just(3)], 1usize..3);
    (shape, 1usize..9, 1usize..9, prop_oneof![1usize..8, Just(12), Just(33)], 1usize..4).prop_map(
        |((cin, cout, kernel, stride), height, width, n, threads)| Case {
            cin,
            cout,
            kernel,
            stride,
            height,
            width,
            n,
            threads,
        },
    )
}

/// Small integers: every sum is exact in f32, so direct results must agree to the bit.
fn values(len: usize, seed: usize) -> Vec<f32> {
    (0..len)
        .map(|i| ((i.wrapping_mul(2_654_435_761).wrapping_add(seed * 97) >> 7) % 7) as f32 - 3.0)
        .collect()
}

/// Calls `f(image, output channel, input channel, output pixel, input pixel, kernel position)` for each
/// multiply-add.
fn each_mac(c: &Case, mut f: impl FnMut(usize, usize, usize, usize, usize, usize)) {
    let pad = c.kernel / 2;
    let size = |s: usize| (s + 2 * pad - c.kernel) / c.stride + 1;
    let (oh, ow) = (size(c.height), size(c.width));
    for oy in 0..oh {
        for ox in 0..ow {
            for ky in 0..c.kernel {
                for kx in 0..c.kernel {
                    let (y, x) = (oy * c.stride + ky, ox * c.stride + kx);
                    if y < pad || x < pad || y - pad >= c.height || x - pad >= c.width {
                        continue;
                    }
                    let input = (y - pad) * c.width + x - pad;
                    for image in 0..c.n {
                        for o in 0..c.cout {
                            for i in 0..c.cin {
                                f(image, o, i, oy * ow + ox, input, ky * c.kernel + kx);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// To the bit, but for what may be computed by Winograd's points, which are not integers.
fn assert_close(what: &str, case: &Case, got: &[f32], want: &[f32]) {
    if (case.kernel, case.stride) != (3, 1) {
        return assert_eq!(got, want, "{what}");
    }
    assert_eq!(got.len(), want.len(), "{what}");
    let allowed = 8e-6 * want.iter().fold(0f32, |m, v| m.max(v.abs()));
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() <= allowed, "{what}: {got} is not {want} within {allowed:e}");
    }
}

fn check(case: &Case, compute: &Compute) {
    let name = compute.isa();
    let conv = Conv::new(case.cin, case.cout, case.kernel, case.stride);
    let plan = ConvPlan::new(conv, (case.height, case.width), case.n, true, compute);
    let (oh, ow) = plan.output();
    let (pixels, out_pixels, taps) = (case.height * case.width, oh * ow, case.kernel * case.kernel);
    let (x, dy) = (values(case.n * case.cin * pixels, 1), values(case.n * case.cout * out_pixels, 2));
    let w = values(case.cout * case.cin * taps, 3);
    let mut y = vec![0.0; dy.len()];
    let mut dx = vec![0.0; x.len()];
    let mut dw = vec![0.0; w.len()];
    each_mac(case, |image, o, i, op, ip, tap| {
        let (yi, xi) = ((image * case.cout + o) * out_pixels + op, (image * case.cin + i) * pixels + ip);
        let wi = (o * case.cin + i) * taps + tap;
        y[yi] += x[xi] * w[wi];
        dx[xi] += dy[yi] * w[wi];
        dw[wi] += x[xi] * dy[yi];
    });

    let activation = |values: &[f32], channels, h, w| {
        let mut a = Activation::zeros(channels, h, w, case.n);
        a.set_nchw(values);
        a
    };
    let x_act = activation(&x, case.cin, case.height, case.width);
    let dy_act = activation(&dy, case.cout, oh, ow);
    let packed = packed(conv, &w);
    let transposed = transposed(conv, &packed);
    let mut y_act = Activation::zeros(case.cout, oh, ow, case.n);
    plan.forward([RowsJob::new(x_act.data(), &packed, y_act.data_mut())]);
    assert_eq!(y_act.to_nchw(), y, "{name} forward");
    plan.forward_training([RowsJob::new(x_act.data(), &packed, y_act.data_mut())]);
    assert_close(&format!("{name} forward in training"), case, &y_act.to_nchw(), &y);

    let bias: Vec<f32> = values(blocks(case.cout) * BLOCK, 4);
    let mut full = dy_act.clone();
    let mut job = RowsJob::new(x_act.data(), &packed, full.data_mut());
    (job.bias, job.residual, job.accumulate, job.relu) =
        (Some(bias.as_slice()), Some(dy_act.data()), true, true);
    plan.forward([job]);
    let expected: Vec<f32> =
        (0..y.len()).map(|at| (y[at] + 2.0 * dy[at] + bias[at / out_pixels % case.cout]).max(0.0)).collect();
    assert_eq!(full.to_nchw(), expected, "{name} epilogue");

    if case.kernel == 1 {
        // Summed with a convolution of an input of another size.
        let (other, size, n) = (Conv::new(5, case.cout, 1, 2), (2 * oh - 1, 2 * ow), case.n);
        let (mut skip, mut both) = (Activation::zeros(5, size.0, size.1, n), dy_act.clone());
        skip.set_nchw(&values(n * 5 * size.0 * size.1, 7));
        let other_packed = self::packed(other, &values(case.cout * 5, 8));
        let panels = packed.chunks_exact(conv.panel_len()).zip(other_packed.chunks_exact(other.panel_len()));
        let panels: Vec<f32> = panels.flat_map(|(first, second)| [first, second].concat()).collect();
        let mut alone = Activation::zeros(case.cout, oh, ow, n);
        let plan = ConvPlan::new(other, size, n, false, compute);
        plan.forward([RowsJob::new(skip.data(), &other_packed, alone.data_mut())]);
        let plan = ConvPlan::sum([(conv, (case.height, case.width)), (other, size)], (n, n), compute);
        let mut job = RowsJob::new(x_act.data(), &panels[..], both.data_mut());
        job.skip = Some(skip.data());
        plan.forward([job]);
        let expected: Vec<f32> = y.iter().zip(alone.to_nchw()).map(|(y, other)| y + other).collect();
        assert_eq!(both.to_nchw(), expected, "{name} sum");

        // As some images of a larger batch, finished in every way; alone, and as one half of a sum.
        let all = case.n + 3;
        let (size, images) = ((case.height, case.width), (case.n, all));
        let plan = ConvPlan::within(conv, size, images, compute);
        let sum = ConvPlan::sum([(conv, size), (conv, size)], images, compute);
        let mut twice = Vec::new();
        let panel = conv.panel_len();
        packed.chunks_exact(panel).for_each(|panel| twice.extend([panel, panel].concat()));
        for (times, residual) in [(1.0, None), (1.0, Some(dy_act.data())), (2.0, None)] {
            let old = values(all * case.cout * out_pixels, 6);
            let mut whole = Activation::zeros(case.cout, oh, ow, all);
            whole.set_nchw(&old);
            let weights = if times == 1.0 { &packed[..] } else { &twice };
            let mut job = RowsJob::new(x_act.data(), weights, whole.images_mut(2..2 + case.n));
            (job.bias, job.residual, job.relu) = (Some(bias.as_slice()), residual, true);
            if times == 1.0 {
                plan.forward([job]);
            } else {
                job.skip = Some(x_act.data());
                sum.forward([job]);
            }
            let added = |at: usize| if residual.is_some() { dy[at] } else { 0.0 };
            let put = (0..y.len())
                .map(|at| (times * y[at] + bias[at / out_pixels % case.cout] + added(at)).max(0.0));
            let mut expected = old;
            expected[2 * case.cout * out_pixels..][..y.len()].copy_from_slice(&put.collect::<Vec<_>>());
            assert_eq!(whole.to_nchw(), expected, "{name} within a batch, {times} times");
        }
    }

    let mut dx_act = Activation::zeros(case.cin, case.height, case.width, case.n);
    plan.grad_input([RowsJob::new(dy_act.data(), &transposed, dx_act.data_mut())]);
    assert_close(&format!("{name} input gradient"), case, &dx_act.to_nchw(), &dx);
    let mut onto = x_act.clone();
    let mut job = RowsJob::new(dy_act.data(), &transposed, onto.data_mut());
    (job.residual, job.accumulate) = (Some(x_act.data()), true);
    plan.grad_input([job]);
    let expected: Vec<f32> = dx.iter().zip(&x).map(|(dx, x)| dx + 2.0 * x).collect();
    assert_close(&format!("{name} input gradient, added"), case, &onto.to_nchw(), &expected);

    let mut dw_packed = Buffer::zeros(conv.packed_len());
    plan.grad_weight([GradWeight::new(x_act.data(), dy_act.data(), &mut dw_packed)]);
    assert_eq!(conv.unpack(&dw_packed), dw, "{name} weight gradient");

    // A step of the optimiser within the call is one behind it.
    let step = AdamWStep::new(3, 0.01, (0.9, 0.999), 1e-8, 0.01);
    let before = || [0.5, 0.25, 2.0, 1.0].map(|value| vec![value; dw_packed.len()]);
    let (mut got, mut want) = (before(), before());
    fn tensor([params, m, v, ema]: &mut [Vec<f32>; 4], step: AdamWStep) -> AdamWTensor<'_> {
        AdamWTensor { step, params, m, v, ema: Some((ema, 0.75)) }
    }
    plan.grad_weight([GradWeight::updating(x_act.data(), dy_act.data(), tensor(&mut got, step))]);
    tensor(&mut want, step).update(&dw_packed, compute.isa());
    assert!(got == want, "{name} weights after a step");

    // Jobs on one input are cut together.
    let other = activation(&values(dy.len(), 5), case.cout, oh, ow);
    let mut alone = Buffer::zeros(conv.packed_len());
    plan.grad_weight([GradWeight::new(x_act.data(), other.data(), &mut alone)]);
    let mut both = [Buffer::zeros(conv.packed_len()), Buffer::zeros(conv.packed_len())];
    let gradients = [&dy_act, &other].into_iter().zip(&mut both);
    plan.grad_weight(gradients.map(|(dy, dw)| GradWeight::new(x_act.data(), dy.data(), dw)));
    assert_eq!([&both[0][..], &both[1][..]], [&dw_packed[..], &alone[..]], "{name} two weight gradients");
}

/// Input and output channels, kernel, stride, height (the width is one more) and images, small enough for Miri, which
/// interprets the AVX-512 kernels on machines without AVX-512 (`.ci/miri`): rows apart, in runs that are one sequence and
/// in runs of images; two blocks of output channels.
const SMALL: [(usize, usize, usize, usize, usize, usize); 4] =
    [(3, 5, 3, 2, 3, 1), (17, 4, 1, 1, 1, 5), (5, 18, 3, 1, 1, 4), (2, 3, 1, 2, 2, 3)];

#[test]
fn small_convolutions_equal_plain_loops() {
    for compute in computes(2) {
        for (cin, cout, kernel, stride, size, n) in SMALL {
            check(
                &Case { cin, cout, kernel, stride, height: size, width: size + 1, n, threads: 2 },
                &compute,
            );
        }
    }
}

/// `PROPTEST_CASES` in the environment says how many cases; emulated machines are slow.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    ProptestConfig::with_cases(cases.unwrap_or(40))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    #[cfg_attr(miri, ignore = "too slow to interpret")]
    fn convolution_equals_plain_loops(case in cases()) {
        for compute in computes(case.threads) {
            check(&case, &compute);
        }
    }
}

/// Enough tiles for Winograd's points in training; the same bits for any number of threads.
#[test]
#[cfg_attr(miri, ignore = "too slow to interpret")]
fn training_by_points_equals_plain_loops() {
    for (cin, cout, height, width, n) in [(79, 40, 8, 8, 8), (17, 33, 4, 4, 33), (16, 5, 7, 11, 6)] {
        let case = Case { cin, cout, kernel: 3, stride: 1, height, width, n, threads: 2 };
        for compute in computes(case.threads) {
            check(&case, &compute);
        }
        let conv = Conv::new(cin, cout, 3, 1);
        let mut dy = Activation::zeros(cout, height, width, n);
        dy.set_nchw(&values(n * cout * height * width, 1));
        let gradients = [1, 2, 4].map(|threads| {
            let compute = Compute::new(Arc::new(Pool::new(threads)));
            let transposed = transposed(conv, &packed(conv, &values(cout * cin * 9, 2)));
            let plan = ConvPlan::new(conv, (height, width), n, true, &compute);
            let mut dx = Activation::zeros(cin, height, width, n);
            plan.grad_input([RowsJob::new(dy.data(), &transposed, dx.data_mut())]);
            dx.to_nchw()
        });
        assert!(gradients.iter().all(|g| *g == gradients[0]));
    }
}

#[test]
fn image_convolution_equals_plain_loops() {
    // Outputs of a multiple of four pixels in a line have rows in runs of pixels.
    let all = [(1, 8, 1), (1, 1, 1), (2, 2, 3), (8, 6, 1), (9, 13, 5), (12, 12, 2), (32, 32, 3)];
    let (sizes, cout) = if cfg!(miri) { (&all[..1], 5) } else { (&all[..], 20) };
    for compute in computes(2) {
        let name = compute.isa();
        for &(height, width, n) in sizes {
            let case = Case { cin: 3, cout, kernel: 7, stride: 2, height, width, n, threads: 2 };
            let conv = Conv::image(case.cout);
            let plan = ConvPlan::new(conv, (height, width), n, true, &compute);
            let (oh, ow) = plan.output();
            let x = values(n * 3 * height * width, 1);
            let (w, dy) = (values(case.cout * 3 * 49, 2), values(n * case.cout * oh * ow, 3));
            let mut y = vec![0.0; dy.len()];
            let mut dw = vec![0.0; w.len()];
            each_mac(&case, |image, o, i, op, ip, tap| {
                let xi = (image * 3 + i) * height * width + ip;
                let (yi, wi) = ((image * case.cout + o) * oh * ow + op, (o * 3 + i) * 49 + tap);
                y[yi] += x[xi] * w[wi];
                dw[wi] += x[xi] * dy[yi];
            });
            let (ph, pw) = (height + 6, width + 6);
            let mut padded = vec![0.0; n * ph * pw * 3];
            for (at, &v) in x.iter().enumerate() {
                let (px, rest) = (at % width, at / width);
                let (py, rest) = (rest % height, rest / height);
                padded[((rest / 3 * ph + py + 3) * pw + px + 3) * 3 + rest % 3] = v;
            }
            let packed = packed(conv, &w);
            let mut y_act = Activation::zeros(case.cout, oh, ow, n);
            plan.forward([RowsJob::new(&padded, &packed, y_act.data_mut())]);
            assert_eq!(y_act.to_nchw(), y, "{name} forward");
            let mut dy_act = Activation::zeros(case.cout, oh, ow, n);
            dy_act.set_nchw(&dy);
            let mut dw_packed = Buffer::zeros(conv.packed_len());
            plan.grad_weight([GradWeight::new(&padded, dy_act.data(), &mut dw_packed)]);
            assert_eq!(conv.unpack(&dw_packed), dw, "{name} weight gradient");
        }
    }
}

/// Lengths that wrapped around would pass the checks of a job's slices.
#[test]
fn what_no_memory_could_hold_is_refused() {
    let compute = Compute::new(Arc::new(Pool::new(1)));
    let plan = |conv: Conv, size, n| drop(ConvPlan::new(conv, size, n, false, &compute));
    let attempts: [&dyn Fn(); 4] = [
        &|| plan(Conv::new((1 << 60) + 16, 16, 1, 1), (2, 2), 1),
        &|| plan(Conv::new(16, 0, 1, 1), (2, 2), 1),
        &|| plan(Conv::new(16, 16, 1, 1), (1 << 32, 1 << 32), 1),
        &|| plan(Conv::new(16, 16, 1, 1), (2, 2), 1 << 62),
    ];
    for (i, attempt) in attempts.iter().enumerate() {
        let attempt = std::panic::AssertUnwindSafe(attempt);
        assert!(std::panic::catch_unwind(attempt).is_err(), "{i}");
    }
}
