//! Convolutions of bytes on every instruction set of this machine against plain loops: every byte must agree.

use proptest::prelude::*;
use rrr_kernels::int8::{
    ACTIVATION_MAX, INT8_IMAGE_SLACK, Int8Activation, Int8Compute, Int8Conv, Int8Isa, Int8Job, Int8Plan,
    int8_avg_pool, int8_max_pool,
};
use rrr_kernels::{BLOCK, Buffer, Conv, Pool, blocks};
use std::sync::Arc;

/// Pseudo-random numbers below `bound`.
fn values(len: usize, seed: usize, bound: usize) -> impl Iterator<Item = usize> {
    (0..len).map(move |i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed * 977 + 13) >> 9) % bound)
}

/// Largest magnitude that any weight may have anywhere: 16 of them still fit.
const SMALL: usize = ((i16::MAX / ACTIVATION_MAX as i16) / 16) as usize;

#[derive(Clone, Copy, Debug)]
struct Part {
    cin: usize,
    kernel: usize,
    stride: usize,
    size: (usize, usize),
    /// Whether all groups read the same.
    shared: bool,
}

#[derive(Clone, Debug)]
struct Case {
    parts: Vec<Part>,
    cout: usize,
    groups: usize,
    n: usize,
    /// Images before and behind these in the output.
    among: (usize, usize),
    threads: usize,
    residual: bool,
    max: u8,
}

fn channels() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..40, Just(79), Just(170)]
}

fn cases() -> impl Strategy<Value = Case> {
    let part =
        (channels(), prop_oneof![Just(1usize), Just(3)], 1usize..3, 1usize..9, 1usize..9, any::<bool>());
    let second = proptest::option::of((channels(), any::<bool>()));
    let rest = (1usize..4, prop_oneof![1usize..8, Just(33)], 1usize..4, any::<bool>(), any::<bool>());
    let among = prop_oneof![Just((0, 0)), (0usize..4, 0usize..4)];
    (part, second, channels(), rest, among).prop_map(
        |(
            (cin, kernel, stride, h, w, shared),
            second,
            cout,
            (groups, n, threads, residual, seven),
            among,
        )| {
            let first = Part { cin, kernel, stride, size: (h, w), shared };
            // The second part is a 1x1 convolution whose output has the first one's size.
            let out = |s: usize| (s + kernel / 2 * 2 - kernel) / stride + 1;
            let second = second.map(|(cin, shared)| Part {
                cin,
                kernel: 1,
                stride: 2,
                size: (2 * out(h), 2 * out(w) - 1),
                shared,
            });
            let parts = std::iter::once(first).chain(second).collect();
            let max = if seven { ACTIVATION_MAX } else { u8::MAX };
            Case { parts, cout, groups, n, among, threads, residual, max }
        },
    )
}

/// The rounding and clamping of the documentation of [`Int8Job`].
fn finish(sum: i32, scale: f32, offset: f32, residual: f32, max: u8) -> u8 {
    let v = sum as f32 * scale + offset + residual;
    v.max(0.0).min(f32::from(max)).round_ties_even() as u8
}

fn activation(part: &Part, groups: usize, n: usize, seed: usize, compute: &Int8Compute) -> Int8Activation {
    let mut x = Int8Activation::new(compute);
    x.reshape(if part.shared { 1 } else { groups }, part.cin, part.size, n);
    fill(&mut x, seed, ACTIVATION_MAX);
    x
}

/// Values up to `max` for every real channel; the padding stays zero.
fn fill(x: &mut Int8Activation, seed: usize, max: u8) {
    let (pixels, channels) = (x.size().0 * x.size().1, x.channels());
    let count = x.groups() * x.n() * channels * pixels;
    for (i, v) in values(count, seed, usize::from(max) + 1).enumerate() {
        let (rest, pixel) = (i / pixels, i % pixels);
        let (rest, channel) = (rest / channels, rest % channels);
        x.set(rest / x.n(), rest % x.n(), channel, pixel, v as u8);
    }
}

fn check(case: &Case) {
    let mut expected = Vec::new();
    for isa in Int8Isa::available() {
        check_isa(case, isa, &mut expected);
    }
}

/// `expected` holds every output once one instruction set was checked.
fn check_isa(case: &Case, isa: Int8Isa, expected: &mut Vec<u8>) {
    let Case { groups, n, cout, max, .. } = *case;
    let compute = Int8Compute::with_isa(Arc::new(Pool::new(case.threads)), isa).unwrap();
    let convs: Vec<Conv> = case.parts.iter().map(|p| Conv::new(p.cin, cout, p.kernel, p.stride)).collect();
    let conv = match *convs.as_slice() {
        [a] => Int8Conv::new(a),
        [a, b] => Int8Conv::sum(a, b),
        _ => unreachable!(),
    };
    let sizes: Vec<(usize, usize)> = case.parts.iter().map(|p| p.size).collect();
    let (images, all) = (case.among.0..case.among.0 + n, case.among.0 + n + case.among.1);
    let plan = Int8Plan::within(&conv, &sizes, groups, (n, all), &compute);
    let (oh, ow) = plan.output();
    let x: Vec<Int8Activation> =
        case.parts.iter().enumerate().map(|(i, p)| activation(p, groups, n, i, &compute)).collect();
    // Per group and part.
    let weights: Vec<Vec<Vec<i8>>> = (0..groups)
        .map(|g| {
            let of = |(i, p): (usize, &Part)| {
                let count = cout * p.cin * p.kernel * p.kernel;
                values(count, 10 + g * 2 + i, 2 * SMALL + 1)
                    .map(|v| (v as i32 - SMALL as i32) as i8)
                    .collect()
            };
            case.parts.iter().enumerate().map(of).collect()
        })
        .collect();
    let mut packed = Buffer::zeros((groups * conv.packed_len(&compute)).div_ceil(4));
    for (g, w) in weights.iter().enumerate() {
        let parts: Vec<&[i8]> = w.iter().map(Vec::as_slice).collect();
        let len = conv.packed_len(&compute);
        conv.pack(&parts, &mut packed.as_bytes_mut()[g * len..][..len], &compute).unwrap();
    }
    let padded = blocks(cout) * BLOCK;
    let scale: Vec<f32> = values(groups * padded, 3, 100).map(|v| (v + 1) as f32 / 7000.0).collect();
    let offset: Vec<f32> = values(groups * padded, 4, 100).map(|v| v as f32 - 30.0).collect();
    let residual_scales: Vec<f32> = values(groups * padded, 6, 9).map(|v| 0.3 + v as f32 / 8.0).collect();
    let mut residual = Int8Activation::new(&compute);
    residual.reshape(groups, cout, (oh, ow), n);
    fill(&mut residual, 5, u8::MAX);

    let mut y = Int8Activation::new(&compute);
    y.reshape(groups, cout, (oh, ow), all);
    fill(&mut y, 7, u8::MAX);
    let before = y.clone();
    let inputs: Vec<&[u8]> = x.iter().map(Int8Activation::data).collect();
    plan.forward(
        Int8Job {
            x: &inputs,
            w: &packed.as_bytes()[..groups * conv.packed_len(&compute)],
            scale: &scale,
            offset: &offset,
            residual: case.residual.then(|| (residual.data(), residual_scales.as_slice())),
            max,
            y: y.images_mut(images.clone()),
        },
        &compute,
    );
    let others = (0..all).filter(|image| !images.contains(image));
    for (image, o, pixel) in
        others.flat_map(|image| (0..cout).flat_map(move |o| (0..oh * ow).map(move |p| (image, o, p))))
    {
        let of = |y: &Int8Activation| y.get(groups - 1, image, o, pixel);
        assert_eq!(of(&y), of(&before), "{isa}: another image of {case:?}");
    }

    let place = |i: usize| {
        let (pixel, rest) = (i % (oh * ow), i / (oh * ow));
        (rest / n / cout, rest / n % cout, rest % n, pixel)
    };
    let outputs = groups * cout * n * oh * ow;
    for i in expected.len()..outputs {
        let (g, o, image, pixel) = place(i);
        let mut sum = 0;
        for (i, p) in case.parts.iter().enumerate() {
            let from = if p.shared { 0 } else { g };
            sum += product(p, &x[i], from, &weights[g][i], o, image, (pixel / ow, pixel % ow));
        }
        let r = f32::from(residual.get(g, image, o, pixel)) * residual_scales[g * padded + o];
        let r = if case.residual { r } else { 0.0 };
        expected.push(finish(sum, scale[g * padded + o], offset[g * padded + o], r, max));
    }
    for (i, &expected) in expected.iter().enumerate() {
        let (g, o, image, pixel) = place(i);
        let at = (g, o, image, pixel);
        assert_eq!(y.get(g, images.start + image, o, pixel), expected, "{isa} at {at:?} of {case:?}");
    }
}

fn product(
    p: &Part,
    x: &Int8Activation,
    group: usize,
    weights: &[i8],
    o: usize,
    image: usize,
    (oy, ox): (usize, usize),
) -> i32 {
    let (pad, area) = (p.kernel / 2, p.kernel * p.kernel);
    let mut sum = 0;
    for position in 0..area {
        let (y, x_at) = (oy * p.stride + position / p.kernel, ox * p.stride + position % p.kernel);
        if y < pad || x_at < pad || y - pad >= p.size.0 || x_at - pad >= p.size.1 {
            continue;
        }
        let pixel = (y - pad) * p.size.1 + x_at - pad;
        for i in 0..p.cin {
            let w = i32::from(weights[(o * p.cin + i) * area + position]);
            sum += w * i32::from(x.get(group, image, i, pixel));
        }
    }
    sum
}

/// Small enough for Miri (`.ci/miri`).
#[test]
fn small_convolutions_equal_plain_loops() {
    let part = |cin, kernel, stride, size| Part { cin, kernel, stride, size, shared: cin == 2 };
    for (parts, cout, groups, n) in [
        (vec![part(3, 3, 2, (3, 4))], 5, 1, 1),
        (vec![part(5, 3, 1, (1, 2))], 18, 1, 4),
        (vec![part(17, 1, 1, (1, 2)), part(2, 1, 2, (2, 3))], 4, 2, 5),
        // A tile of runs with a shorter one behind it.
        (vec![part(16, 1, 1, (5, 2)), part(16, 1, 2, (10, 3))], 3, 1, 4),
    ] {
        check(&Case {
            parts,
            cout,
            groups,
            n,
            among: (n % 2, 0),
            threads: 2,
            residual: n > 4,
            max: ACTIVATION_MAX,
        });
    }
}

/// Shapes of the networks: every kind of product of tiles, sums that are finished with the next one's and without.
#[test]
#[cfg_attr(miri, ignore = "too slow to interpret")]
fn layers_of_networks_equal_plain_loops() {
    let part = |cin, kernel, stride, size| Part { cin, kernel, stride, size: (size, size), shared: false };
    let plain = Case {
        parts: vec![part(64, 1, 1, 8)],
        cout: 256,
        groups: 1,
        n: 3,
        among: (0, 0),
        threads: 2,
        residual: false,
        max: ACTIVATION_MAX,
    };
    let cases = [
        plain.clone(),
        Case { residual: true, max: u8::MAX, ..plain.clone() },
        Case { residual: true, n: 16, among: (16, 0), ..plain.clone() },
        Case { residual: true, n: 4, among: (4, 24), ..plain.clone() },
        Case { n: 4, among: (0, 28), parts: vec![part(64, 1, 1, 16), part(256, 1, 2, 31)], ..plain.clone() },
        Case { parts: vec![part(64, 3, 1, 17)], cout: 48, n: 1, ..plain.clone() },
        Case { parts: vec![part(170, 3, 1, 2)], cout: 79, n: 24, ..plain.clone() },
        Case { parts: vec![part(79, 3, 2, 7)], cout: 40, n: 16, ..plain.clone() },
        Case { parts: vec![part(170, 1, 1, 3), part(316, 1, 2, 5)], cout: 100, groups: 2, ..plain.clone() },
        Case { parts: vec![Part { shared: true, ..part(512, 1, 1, 4) }], cout: 79, n: 2, groups: 3, ..plain },
    ];
    cases.iter().for_each(check);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    #[cfg_attr(miri, ignore = "too slow to interpret")]
    fn convolution_equals_plain_loops(case in cases()) {
        check(&case);
    }
}

/// Sums at the very end of the 16 bits that some instruction sets add in.
#[test]
fn the_largest_sums_are_exact() {
    let conv = Int8Conv::new(Conv::new(16, 2, 1, 1));
    // A lane takes the channels 0, 1, 4, 5, 8, 9, 12 and 13.
    let mut weights = [0i8; 32];
    for (at, w) in [(0, 127), (4, 127), (13, 4), (1, -128), (2, -127), (3, -127), (15, -4)] {
        weights[at] = w;
        weights[16 + at] = if w == -128 { 127 } else { -w };
    }
    assert!(conv.share_of_16_bits(&[&weights[..16]]) <= 1.0);
    let mut more = weights;
    more[9] = 1;
    assert!(conv.share_of_16_bits(&[&more[..16]]) > 1.0);
    weights[17] = 0;
    for isa in Int8Isa::available() {
        let compute = Int8Compute::with_isa(Arc::new(Pool::new(1)), isa).unwrap();
        let mut packed = Buffer::zeros(conv.packed_len(&compute) / 4);
        assert_eq!(conv.pack(&[&more], packed.as_bytes_mut(), &compute), Err(0));
        conv.pack(&[&weights], packed.as_bytes_mut(), &compute).unwrap();
        let plan = Int8Plan::new(&conv, &[(1, 1)], 1, 1, &compute);
        let mut y = Int8Activation::new(&compute);
        y.reshape(1, 2, (1, 1), 1);
        // One over the sums: 127 times the sum of the weights.
        let sum = |o: usize| weights[o * 16..][..16].iter().map(|&w| i32::from(w) * 127).sum::<i32>();
        for expected in [0u8, 1, 2] {
            let mut offset = [0.0; 16];
            (0..2).for_each(|o| offset[o] = f32::from(expected) - sum(o) as f32);
            let mut x = Int8Activation::new(&compute);
            x.reshape(1, 16, (1, 1), 1);
            (0..16).for_each(|channel| x.set(0, 0, channel, 0, 127));
            let job = Int8Job {
                x: &[x.data()],
                w: packed.as_bytes(),
                scale: &[1.0; 16],
                offset: &offset,
                residual: None,
                max: 255,
                y: y.data_mut(),
            };
            plan.forward(job, &compute);
            assert_eq!([y.get(0, 0, 0, 0), y.get(0, 0, 1, 0)], [expected; 2], "{isa}");
        }
    }
}

#[test]
fn image_convolution_equals_plain_loops() {
    // Outputs of a multiple of four pixels in a line have rows in runs of pixels.
    let all = [(1, 8, 1), (1, 1, 1), (8, 6, 1), (9, 13, 5), (32, 32, 3)];
    let (sizes, cout) = if cfg!(miri) { (&all[..1], 5) } else { (&all[..], 20) };
    for isa in Int8Isa::available() {
        for &(height, width, n) in sizes {
            let compute = Int8Compute::with_isa(Arc::new(Pool::new(2)), isa).unwrap();
            let (conv, padded) = (Int8Conv::new(Conv::image(cout)), blocks(cout) * BLOCK);
            let plan = Int8Plan::new(&conv, &[(height, width)], 1, n, &compute);
            let (oh, ow) = plan.output();
            let (ph, pw) = (height + 6, width + 6);
            // The border holds whatever stands for black, so it is compared too.
            let x: Vec<u8> = values(n * ph * pw * 3 + INT8_IMAGE_SLACK, 1, 128).map(|v| v as u8).collect();
            let weights: Vec<i8> = values(cout * 3 * 49, 2, 256).map(|v| (v as i32 - 128) as i8).collect();
            let mut packed = Buffer::zeros(conv.packed_len(&compute) / 4);
            conv.pack(&[&weights], packed.as_bytes_mut(), &compute).unwrap();
            let mut y = Int8Activation::new(&compute);
            y.reshape(1, cout, (oh, ow), n);
            let job = Int8Job {
                x: &[&x],
                w: packed.as_bytes(),
                scale: &[0.002; 32][..padded],
                offset: &[3.0; 32][..padded],
                residual: None,
                max: ACTIVATION_MAX,
                y: y.data_mut(),
            };
            plan.forward(job, &compute);
            for (image, o, pixel) in
                (0..n * cout * oh * ow).map(|i| (i / (oh * ow) / cout, i / (oh * ow) % cout, i % (oh * ow)))
            {
                let mut sum = 0;
                for at in 0..147 {
                    let (c, ky, kx) = (at / 49, at / 7 % 7, at % 7);
                    let (py, px) = (pixel / ow * 2 + ky, pixel % ow * 2 + kx);
                    let v = x[((image * ph + py) * pw + px) * 3 + c];
                    sum += i32::from(v) * i32::from(weights[o * 147 + at]);
                }
                let expected = finish(sum, 0.002, 3.0, 0.0, ACTIVATION_MAX);
                assert_eq!(y.get(0, image, o, pixel), expected, "{isa} at {image}, {o}, {pixel}");
            }
        }
    }
}

#[test]
fn pooling_equals_plain_loops() {
    let all = [(2, 17, 3, 2, 1), (1, 5, 1, 1, 1), (2, 20, 5, 4, 3), (3, 16, 8, 7, 1), (1, 20, 9, 5, 21)];
    let sizes = if cfg!(miri) { &all[..2] } else { &all[..] };
    for isa in Int8Isa::available() {
        let compute = Int8Compute::with_isa(Arc::new(Pool::new(2)), isa).unwrap();
        for &(groups, channels, h, w, n) in sizes {
            let mut x = Int8Activation::new(&compute);
            x.reshape(groups, channels, (h, w), n);
            fill(&mut x, 7, u8::MAX);
            let mut y = Int8Activation::new(&compute);
            int8_max_pool(&x, &mut y, &compute);
            let mut mean = vec![0.0; groups * n * channels];
            let scales: Vec<f32> = (0..groups * channels).map(|c| 0.5 + c as f32).collect();
            int8_avg_pool(&x, &scales, &mut mean, &compute);
            let (oh, ow) = y.size();
            for (g, image, c) in
                (0..groups * n * channels).map(|i| (i / channels / n, i / channels % n, i % channels))
            {
                for (oy, ox) in (0..oh * ow).map(|p| (p / ow, p % ow)) {
                    let window = |o: usize, size: usize| (2 * o).saturating_sub(1)..(2 * o + 2).min(size);
                    let values = window(oy, h).flat_map(|py| window(ox, w).map(move |px| py * w + px));
                    let expected = values.map(|p| x.get(g, image, c, p)).max().unwrap();
                    assert_eq!(y.get(g, image, c, oy * ow + ox), expected, "{isa}");
                }
                let sum: u32 = (0..h * w).map(|p| u32::from(x.get(g, image, c, p))).sum();
                let expected = sum as f32 * (scales[g * channels + c] / (h * w) as f32);
                assert_eq!(mean[(g * n + image) * channels + c], expected, "{isa}");
            }
        }
    }
}
