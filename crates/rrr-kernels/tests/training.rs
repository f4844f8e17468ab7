//! What training in bf16 is made of: every instruction set of this machine against the kernels of f32 on rounded values,
//! and against each other to the bit.

mod common;

use common::{are_close, has_bits_of_amx, isas, values_of};
use proptest::prelude::*;
use rrr_kernels::{
    Activation, AdamWStep, AdamWTensor, Aligned, Bf16Activation, Bf16BnBackward, Bf16BnForward, Bf16Conv,
    Bf16Copy, Bf16GradPlan, Bf16Job, Bf16Norm, Bf16NormGrad, Bf16Plan, Bf16Skip, Bf16Weights, BnBackward,
    BnForward, Buffer, Compute, Conv, ConvPlan, GradWeight, IMAGE_SLACK, Isa, NormGrad, Pool, RowsJob, Skip,
    bf16_avg_pool_backward, bf16_bn_backward, bf16_bn_forward, bf16_max_pool_backward, bf16_mean_of_groups,
    bf16_pool_features, bn_backward, bn_forward, max_pool_backward, max_pool_size, round_bf16,
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
    groups: usize,
    shared: bool,
    /// Whether a 1x1 convolution of the same stride reads the same input.
    downsample: bool,
    threads: usize,
}

/// Many channels or several chunks of rows: with both at once, emulated machines would take minutes per case.
fn cases() -> impl Strategy<Value = Case> {
    let many = || prop_oneof![1usize..70, Just(79)];
    let wide = (many(), many(), (2usize..9, 2usize..9), 1usize..8);
    let few = || 1usize..40;
    let rows = prop_oneof![
        ((15usize..18, 15usize..18), 1usize..5),
        ((2usize..5, 15usize..18), prop_oneof![Just(16usize), Just(32)])
    ];
    let long = (few(), few(), rows).prop_map(|(cin, cout, (size, n))| (cin, cout, size, n));
    let layer = (prop_oneof![Just(1usize), Just(3)], 1usize..3, 1usize..4);
    (prop_oneof![wide, long], layer, any::<bool>(), any::<bool>(), 1usize..4).prop_map(
        |((cin, cout, size, n), (kernel, stride, groups), shared, downsample, threads)| Case {
            cin,
            cout,
            kernel,
            // Some pixels have no part in a 1x1 convolution with a stride.
            stride: if kernel == 1 { 1 } else { stride },
            size,
            n,
            groups,
            shared,
            downsample,
            threads,
        },
    )
}

/// Small integers, so that every sum is exact in f32.
fn integers(len: usize, seed: usize) -> Vec<f32> {
    (0..len)
        .map(|i| ((i.wrapping_mul(2_654_435_761).wrapping_add(seed * 97) >> 7) % 5) as f32 - 2.0)
        .collect()
}

/// bf16 values near 1.
fn reals(len: usize, seed: usize) -> Vec<f32> {
    let mut state = seed as u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        rounded((state >> 40) as f32 / (1 << 23) as f32 - 1.0)
    };
    (0..len).map(|_| next()).collect()
}

fn rounded(x: f32) -> f32 {
    f32::from_bits((x.to_bits() + 0x7fff + (x.to_bits() >> 16 & 1)) & 0xffff_0000)
}

/// The same values, `[group][n][channels][pixels]`, in both kinds of activations.
fn both(
    values: &[f32],
    groups: usize,
    channels: usize,
    size: (usize, usize),
    n: usize,
) -> (Bf16Activation, Vec<Activation>) {
    let mut a = Bf16Activation::default();
    a.reshape(groups, channels, size, n);
    let pixels = size.0 * size.1;
    for (i, &value) in values.iter().enumerate() {
        let (rest, pixel) = (i / pixels, i % pixels);
        a.set(rest / channels / n, rest / channels % n, rest % channels, pixel, value);
    }
    let parts = values.chunks(n * channels * pixels).map(|values| {
        let mut a = Activation::zeros(channels, size.0, size.1, n);
        a.set_nchw(values);
        a
    });
    (a, parts.collect())
}

fn output(conv: &Conv, size: (usize, usize)) -> (usize, usize) {
    (conv.output_size(size.0), conv.output_size(size.1))
}

fn packed(conv: &Conv, seed: usize) -> Buffer {
    let mut packed = Buffer::zeros(conv.packed_len());
    conv.pack(&integers(conv.weight_shape().iter().product(), seed), &mut packed);
    packed
}

fn computes(threads: usize) -> impl Iterator<Item = Compute> {
    let pool = Arc::new(Pool::new(threads));
    isas().map(move |isa| Compute::with_isa(pool.clone(), isa).unwrap())
}

/// Input and weight gradients of a case, to the bit.
fn check(case: &Case) {
    let Case { cin, cout, kernel, stride, size, n, groups, shared, downsample, threads } = *case;
    let mut convs = vec![Conv::new(cin, cout, kernel, stride)];
    if downsample {
        convs.push(Conv::new(cin, cout + 3, 1, stride));
    }
    let x_groups = if shared { 1 } else { groups };
    let pixels = size.0 * size.1;
    let (x, x32) = both(&integers(x_groups * n * cin * pixels, 1), x_groups, cin, size, n);
    let gradients: Vec<_> = convs
        .iter()
        .enumerate()
        .map(|(i, conv)| {
            let out = output(conv, size);
            let values = integers(groups * n * conv.cout() * out.0 * out.1, 2 + i);
            both(&values, groups, conv.cout(), out, n)
        })
        .collect();
    let weights = |i: usize, group: usize| packed(&convs[i], 10 + group + 20 * i);

    let reference = Compute::new(Arc::new(Pool::new(1)));
    let mut want_dx = vec![vec![0.0; n * cin * pixels]; groups];
    let mut want_dw = Vec::new();
    for (i, conv) in convs.iter().enumerate() {
        let plan = ConvPlan::new(*conv, size, n, true, &reference);
        for group in 0..groups {
            let (w, dy) = (weights(i, group), &gradients[i].1[group]);
            let mut transposed = Buffer::zeros(conv.transposed_len());
            conv.transpose(&w, &mut transposed);
            let mut dx = Activation::zeros(cin, size.0, size.1, n);
            plan.grad_input([RowsJob::new(dy.data(), &transposed, dx.data_mut())]);
            // Winograd's products are not exact.
            want_dx[group].iter_mut().zip(dx.to_nchw()).for_each(|(sum, d)| *sum += d.round());
            let mut dw = Buffer::zeros(conv.packed_len());
            let x = &x32[if shared { 0 } else { group }];
            plan.grad_weight([GradWeight::new(x.data(), dy.data(), &mut dw)]);
            want_dw.push(dw.to_vec());
        }
    }
    let want_dx: Vec<f32> = want_dx.concat().into_iter().map(rounded).collect();

    for compute in computes(threads) {
        let isa = compute.isa();
        let gradient = Bf16Conv::input_gradient(&convs);
        let plan = Bf16Plan::gradient(&gradient, size, groups, n);
        let mut w = Aligned::zeros(groups * gradient.packed_len());
        for (group, to) in w.chunks_exact_mut(gradient.packed_len()).enumerate() {
            let parts: Vec<Buffer> = (0..convs.len()).map(|i| weights(i, group)).collect();
            gradient.pack(isa, &parts.iter().map(|w| &w[..]).collect::<Vec<_>>(), to);
        }
        let mut dx = Bf16Activation::default();
        dx.reshape(groups, cin, size, n);
        let inputs: Vec<&[u16]> = gradients.iter().map(|(dy, _)| dy.data()).collect();
        let bias = Buffer::zeros(groups * cin.next_multiple_of(32));
        let job = Bf16Job { x: &inputs, w: &w, bias: &bias, residual: None, relu: false, y: dx.data_mut() };
        plan.forward(job, &compute);
        assert_eq!(&values_of(&dx), &want_dx, "input gradient, {}", isa);

        let plans: Vec<_> = convs.iter().map(|conv| Bf16GradPlan::new(*conv, size, groups, n)).collect();
        let mut dws = Vec::new();
        for (i, (conv, plan)) in convs.iter().zip(&plans).enumerate() {
            let mut dw = vec![vec![f32::NAN; conv.packed_len()]; groups];
            plan.run(x.data(), gradients[i].0.data(), dw.iter_mut().map(|dw| &mut dw[..]), &compute);
            for (group, dw) in dw.iter().enumerate() {
                let want = conv.unpack(&want_dw[i * groups + group]);
                assert_eq!(&conv.unpack(dw), &want, "weight gradient {}, {}", i, isa);
                let padding = dw.iter().sum::<f32>() - want.iter().sum::<f32>();
                assert_eq!(padding, 0.0, "padding of the weight gradient");
            }
            dws.push(dw);
        }
        check_update((&convs, &plans), (x.data(), &inputs), &dws, &compute);
    }
}

/// A step of the optimiser within the plans has the bits of one with the gradients `dw[conv][group]`, and so have the copies
/// of the weights: those of the forward pass, and those of all convolutions for the input's gradient.
fn check_update(
    (convs, plans): (&[Conv], &[Bf16GradPlan]),
    (x, dy): (&[u16], &[&[u16]]),
    dw: &[Vec<Vec<f32>>],
    compute: &Compute,
) {
    let isa = compute.isa();
    let groups = dw[0].len();
    // Weights, moments and average.
    let before = |conv: &Conv, seed: usize| {
        [0, 1, 2, 3].map(|i| {
            let values = reals(conv.packed_len(), seed + i);
            values.iter().map(|v| if i == 2 { v.abs() } else { *v }).collect::<Vec<f32>>()
        })
    };
    fn tensor([params, m, v, ema]: &mut [Vec<f32>; 4]) -> AdamWTensor<'_> {
        let step = AdamWStep::new(3, 0.01, (0.9, 0.999), 1e-8, 0.01);
        AdamWTensor { step, params, m, v, ema: Some((ema, 0.75)) }
    }
    let gradient = Bf16Conv::input_gradient(convs);
    let mut turned = vec![vec![0; gradient.packed_len()]; groups];
    let mut after = Vec::new();
    for (part, (conv, plan)) in convs.iter().zip(plans).enumerate() {
        let forward = Bf16Conv::new(*conv);
        let mut packed = vec![vec![0; forward.packed_len()]; groups];
        let mut got: Vec<_> = (0..groups).map(|group| before(conv, 10 * group)).collect();
        let weights = got.iter_mut().zip(&mut packed).zip(&mut turned).map(|((tensors, packed), turned)| {
            let forward = Bf16Copy { conv: &forward, part: 0, packed };
            let gradient = Bf16Copy { conv: &gradient, part, packed: turned };
            Bf16Weights { tensor: tensor(tensors), copies: [Some(forward), Some(gradient)] }
        });
        plan.update(x, dy[part], weights, compute);
        for (group, (got, packed)) in got.iter().zip(&packed).enumerate() {
            let mut want = before(conv, 10 * group);
            tensor(&mut want).update(&dw[part][group], isa);
            assert!(got == &want, "weights and moments, {isa}");
            let mut copy = vec![0; packed.len()];
            forward.pack(isa, &[&want[0]], &mut copy);
            assert!(packed == &copy, "weights in bf16, {isa}");
        }
        after.push(got);
    }
    for (group, turned) in turned.iter().enumerate() {
        let weights: Vec<&[f32]> = after.iter().map(|of_conv| &of_conv[group][0][..]).collect();
        let mut want = vec![0; turned.len()];
        gradient.pack(isa, &weights, &mut want);
        assert!(turned == &want, "weights for the input's gradient, {isa}");
    }
}

/// Small enough for Miri (`.ci/miri`).
#[test]
fn small_gradients_are_exact() {
    let small = |cin, cout, kernel, stride, n, downsample| Case {
        cin,
        cout,
        kernel,
        stride,
        size: (3, 2),
        n,
        groups: 2,
        shared: n == 1,
        downsample,
        threads: 2,
    };
    check(&small(3, 5, 3, 2, 1, true));
    check(&small(17, 4, 1, 1, 5, false));
    check(&small(5, 34, 1, 1, 3, false));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    #[cfg_attr(miri, ignore = "too slow to interpret")]
    fn gradients_of_integers_are_exact(case in cases()) {
        check(&case);
    }
}

#[test]
fn the_gradient_of_the_convolution_of_images_is_exact() {
    let (n, size, cout) = if cfg!(miri) { (1, (3, 4), 5) } else { (3, (12, 17), 20) };
    let conv = Conv::image(cout);
    let len = n * (size.0 + 6) * (size.1 + 6) * 3;
    let images = integers(len, 1);
    let out = output(&conv, size);
    let (dy, dy32) = both(&integers(2 * n * cout * out.0 * out.1, 2), 2, cout, out, n);
    let plan32 = ConvPlan::new(conv, size, n, true, &Compute::new(Arc::new(Pool::new(1))));
    for compute in computes(2) {
        let mut x = vec![0x4040; len + IMAGE_SLACK];
        round_bf16(compute.isa(), &images, &mut x[..len]);
        let mut dw = vec![vec![f32::NAN; conv.packed_len()]; 2];
        Bf16GradPlan::new(conv, size, 2, n).run(&x, dy.data(), dw.iter_mut().map(|dw| &mut dw[..]), &compute);
        for (dw, dy) in dw.iter().zip(&dy32) {
            let mut want = Buffer::zeros(conv.packed_len());
            plan32.grad_weight([GradWeight::new(&images, dy.data(), &mut want)]);
            assert_eq!(dw[..], want[..], "{}", compute.isa());
        }
    }
}

/// Weight gradients of any values have the bits of AMX for any number of threads, or an instruction set's own.
#[test]
#[cfg_attr(miri, ignore = "too slow to interpret")]
fn weight_gradients_have_the_same_bits_everywhere() {
    let (conv, size, groups, n) = (Conv::new(70, 45, 3, 2), (9, 11), 3, 13);
    let out = output(&conv, size);
    let (x, _) = both(&reals(n * 70 * size.0 * size.1, 1), 1, 70, size, n);
    let (dy, _) = both(&reals(groups * n * 45 * out.0 * out.1, 2), groups, 45, out, n);
    let run = |compute: Compute| {
        let mut dw = vec![vec![0.0; conv.packed_len()]; groups];
        let plan = Bf16GradPlan::new(conv, size, groups, n);
        plan.run(x.data(), dy.data(), dw.iter_mut().map(|dw| &mut dw[..]), &compute);
        dw
    };
    let want = run(Compute::with_isa(Arc::new(Pool::new(1)), Isa::Portable).unwrap());
    for (alone, together) in computes(1).zip(computes(3)) {
        let isa = alone.isa();
        let got = run(alone);
        assert!(run(together) == got, "{isa} with three threads");
        let equal = if has_bits_of_amx(isa) { got == want } else { are_close(&got.concat(), &want.concat()) };
        assert!(equal, "{isa} and portable differ");
    }
}

/// Statistics and parameters of a batch norm of `channels`, padded to blocks of 16.
struct Norm {
    affine: [Vec<f32>; 2],
    running: [Vec<f32>; 2],
    batch: [Vec<f32>; 2],
    gradients: [Vec<f32>; 2],
}

impl Norm {
    fn new(channels: usize, seed: usize) -> Self {
        let padded = channels.next_multiple_of(16);
        let vector = |seed: usize, add: f32| {
            let mut v: Vec<f32> = reals(channels, seed).iter().map(|v| v + add).collect();
            v.resize(padded, 0.0);
            v
        };
        Self {
            affine: [vector(seed, 1.5), vector(seed + 1, 0.0)],
            running: [vector(seed + 2, 0.0), vector(seed + 3, 1.5)],
            batch: [vec![0.0; padded], vec![0.0; padded]],
            gradients: [vec![0.0; padded], vec![0.0; padded]],
        }
    }

    fn forward<'a>(&'a mut self, x: &'a [u16], c: std::ops::Range<usize>) -> Bf16Norm<'a> {
        let [mean, inv_std] = &mut self.batch;
        let [running_mean, running_var] = &mut self.running;
        Bf16Norm {
            x,
            gamma: &self.affine[0][c.clone()],
            beta: &self.affine[1][c.clone()],
            mean: &mut mean[c.clone()],
            inv_std: &mut inv_std[c.clone()],
            running_mean: &mut running_mean[c.clone()],
            running_var: &mut running_var[c],
        }
    }

    fn backward<'a>(
        &'a mut self,
        x: &'a [u16],
        dx: Option<&'a mut [u16]>,
        c: std::ops::Range<usize>,
    ) -> Bf16NormGrad<'a> {
        let [dgamma, dbeta] = &mut self.gradients;
        Bf16NormGrad {
            x,
            gamma: &self.affine[0][c.clone()],
            beta: &self.affine[1][c.clone()],
            mean: &self.batch[0][c.clone()],
            inv_std: &self.batch[1][c.clone()],
            dgamma: &mut dgamma[c.clone()],
            dbeta: &mut dbeta[c],
            dx,
        }
    }

    /// The same in f32, of a block of channels.
    fn forward_f32<'a>(&'a mut self, x: &'a Activation, block: usize) -> rrr_kernels::Norm<'a> {
        let c = block * 16..block * 16 + 16;
        let [mean, inv_std] = &mut self.batch;
        let [running_mean, running_var] = &mut self.running;
        rrr_kernels::Norm {
            x: x.plane(block),
            gamma: self.affine[0][c.clone()].try_into().unwrap(),
            beta: self.affine[1][c.clone()].try_into().unwrap(),
            mean: (&mut mean[c.clone()]).try_into().unwrap(),
            inv_std: (&mut inv_std[c.clone()]).try_into().unwrap(),
            running_mean: (&mut running_mean[c.clone()]).try_into().unwrap(),
            running_var: (&mut running_var[c]).try_into().unwrap(),
        }
    }

    fn backward_f32<'a>(&'a mut self, x: &'a Activation, block: usize) -> NormGrad<'a> {
        let c = block * 16..block * 16 + 16;
        let [dgamma, dbeta] = &mut self.gradients;
        NormGrad {
            x: x.plane(block),
            gamma: self.affine[0][c.clone()].try_into().unwrap(),
            beta: self.affine[1][c.clone()].try_into().unwrap(),
            mean: self.batch[0][c.clone()].try_into().unwrap(),
            inv_std: self.batch[1][c.clone()].try_into().unwrap(),
            dgamma: (&mut dgamma[c.clone()]).try_into().unwrap(),
            dbeta: (&mut dbeta[c]).try_into().unwrap(),
        }
    }
}

fn assert_close(what: &str, got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= tolerance * scale, "{what}[{i}] is {g}, expected {w}");
    }
}

/// What rounding a value to bf16 may change of it.
const ROUNDED: f32 = 1.0 / 256.0;

#[test]
fn batch_norm_is_that_of_f32_rounded() {
    let all = [(33usize, (2, 1), 2), (79, (5, 3), 7), (40, (9, 9), 16), (16, (1, 1), 5)];
    for &(channels, size, n) in if cfg!(miri) { &all[..1] } else { &all[..] } {
        let len = channels * size.0 * size.1 * n;
        let planes = |i: usize| i * 32..(i * 32 + 32).min(channels.next_multiple_of(16));
        let (x, x32) = both(&reals(len, 1), 1, channels, size, n);
        let (other, other32) = both(&reals(len, 2), 1, channels, size, n);
        let (dy, dy32) = both(&reals(len, 3), 1, channels, size, n);
        // Nothing, a plane or another batch norm on the skip path.
        for skip in 0..3 {
            let (mut want, mut want_skip) = (Norm::new(channels, 4), Norm::new(channels, 8));
            let (x32, other32) = (&x32[0], &other32[0]);
            let mut want_y = x32.clone();
            for (i, y) in want_y.planes_mut().enumerate() {
                let skip = match skip {
                    0 => Skip::None,
                    1 => Skip::Plane(other32.plane(i)),
                    _ => Skip::Norm(want_skip.forward_f32(other32, i)),
                };
                bn_forward(Isa::active(), 0.1, BnForward { norm: want.forward_f32(x32, i), skip, y });
            }
            let mut bits: Option<Vec<u16>> = None;
            for isa in Isa::available() {
                let (mut norm, mut skip_norm) = (Norm::new(channels, 4), Norm::new(channels, 8));
                let like = || {
                    let mut a = Bf16Activation::default();
                    a.reshape(1, channels, size, n);
                    a
                };
                let (mut y, rows, plane) = (like(), x.rows(), x.plane_len());
                for (i, y) in y.data_mut().chunks_exact_mut(plane).enumerate() {
                    let other = &other.data()[i * plane..][..plane];
                    let skip = match skip {
                        0 => Bf16Skip::None,
                        1 => Bf16Skip::Plane(other),
                        _ => Bf16Skip::Norm(skip_norm.forward(other, planes(i))),
                    };
                    let norm = norm.forward(&x.data()[i * plane..], planes(i));
                    bf16_bn_forward(isa, 0.1, Bf16BnForward { rows, norm, skip, y });
                }
                assert_close("output", &values_of(&y), &want_y.to_nchw(), ROUNDED);
                for (got, want) in [(&norm, &want), (&skip_norm, &want_skip)] {
                    for i in 0..2 {
                        let real =
                            |n: &Norm| [n.batch[i][..channels].to_vec(), n.running[i].clone()].concat();
                        assert_close("statistics", &real(got), &real(want), 1e-5);
                    }
                }

                let (_, y32) = both(&values_of(&y), 1, channels, size, n);
                let (mut want_dy, mut want_dx, mut want_dskip) = (dy32[0].clone(), x32.clone(), x32.clone());
                let gradients = want_dx.planes_mut().zip(want_dskip.planes_mut());
                for (i, (dy, (dx, dskip))) in want_dy.planes_mut().zip(gradients).enumerate() {
                    let job = BnBackward {
                        y: Some(y32[0].plane(i)),
                        dy,
                        norm: want.backward_f32(x32, i),
                        dx: Some(dx),
                        skip: (skip == 2).then(|| (want_skip.backward_f32(other32, i), dskip)),
                    };
                    bn_backward(Isa::active(), job);
                }
                let (mut dy, mut dx, mut dskip) = (dy.clone(), like(), like());
                let in_place = skip == 0;
                let gradients =
                    dx.data_mut().chunks_exact_mut(plane).zip(dskip.data_mut().chunks_exact_mut(plane));
                for (i, (dy, (dx, dskip))) in dy.data_mut().chunks_exact_mut(plane).zip(gradients).enumerate()
                {
                    let at = i * plane..(i + 1) * plane;
                    let dx = (!in_place).then_some(dx);
                    let job = Bf16BnBackward {
                        rows,
                        y: (!in_place).then_some(&y.data()[at.clone()]),
                        dy,
                        norm: norm.backward(&x.data()[at.clone()], dx, planes(i)),
                        skip: (skip == 2)
                            .then(|| skip_norm.backward(&other.data()[at], Some(dskip), planes(i))),
                    };
                    bf16_bn_backward(isa, job);
                }
                let dx = if in_place { &dy } else { &dx };
                assert_close("gradient", &values_of(dx), &want_dx.to_nchw(), 2.0 * ROUNDED);
                if skip == 2 {
                    assert_close(
                        "gradient of skip",
                        &values_of(&dskip),
                        &want_dskip.to_nchw(),
                        2.0 * ROUNDED,
                    );
                    assert_close("gamma of skip", &skip_norm.gradients[0], &want_skip.gradients[0], 1e-4);
                }
                if !in_place {
                    let kept: Vec<f32> = std::iter::zip(values_of(&dy), y32[0].to_nchw())
                        .map(|(g, y)| if y > 0.0 { g } else { 0.0 })
                        .collect();
                    assert_eq!(values_of(&dy), kept, "the gradient before ReLU");
                }
                for i in 0..2 {
                    let got = &norm.gradients[i];
                    assert_close("gradient of parameters", got, &want.gradients[i], 1e-4);
                }
                let all = [y.data(), dy.data(), dx.data(), dskip.data()].concat();
                assert!(bits.get_or_insert(all.clone()) == &all, "{isa}");
            }
        }
    }
}

#[test]
fn pooling_gradients_are_those_of_f32_rounded() {
    let all = [(33, (1, 2), 1), (40, (7, 10), 3), (16, (6, 5), 4)];
    for &(channels, size, n) in if cfg!(miri) { &all[..1] } else { &all[..] } {
        let out = (max_pool_size(size.0), max_pool_size(size.1));
        // Few values, so that maxima are equal; none negative.
        let values: Vec<f32> =
            integers(2 * n * channels * size.0 * size.1, 1).iter().map(|v| v.max(0.0)).collect();
        let (x, x32) = both(&values, 2, channels, size, n);
        let (dy, dy32) = both(&reals(2 * n * channels * out.0 * out.1, 2), 2, channels, out, n);
        let mut want = Vec::new();
        for (x, dy) in x32.iter().zip(&dy32) {
            let mut dx = Activation::zeros(channels, size.0, size.1, n);
            for ((x, dy), dx) in x.planes().zip(dy.planes()).zip(dx.planes_mut()) {
                max_pool_backward(Isa::active(), (size.0, size.1, n), x, dy, dx);
            }
            want.extend(dx.to_nchw().into_iter().map(rounded));
        }
        for compute in computes(2) {
            let mut dx = Bf16Activation::default();
            bf16_max_pool_backward(&x, &dy, &mut dx, &compute);
            assert_eq!(values_of(&dx), want, "{}", compute.isa());

            let mut features = vec![Activation::zeros(channels, 1, 1, n); 2];
            bf16_pool_features(&x, &mut features, &compute);
            let pixels = size.0 * size.1;
            let means: Vec<f32> =
                values.chunks(pixels).map(|values| values.iter().sum::<f32>() / pixels as f32).collect();
            let features: Vec<f32> = features.iter().flat_map(Activation::to_nchw).collect();
            assert_close("features", &features, &means, 1e-6);

            let gradients = reals(2 * n * channels, 3);
            let (_, dy32) = both(&gradients, 2, channels, (1, 1), n);
            dx.reshape(2, channels, size, n);
            bf16_avg_pool_backward(&dy32, &mut dx, &compute);
            let want: Vec<f32> =
                gradients.iter().flat_map(|g| vec![rounded(g * (1.0 / pixels as f32)); pixels]).collect();
            assert_eq!(values_of(&dx), want);

            let mut mean = Bf16Activation::default();
            bf16_mean_of_groups(&x, &mut mean, &compute);
            let (first, second) = values.split_at(values.len() / 2);
            let want: Vec<f32> = first.iter().zip(second).map(|(a, b)| rounded((a + b) * 0.5)).collect();
            assert_eq!(values_of(&mean), want);
        }
    }
}
