use super::{Dims, Run, Taps, Winograd, weights, weights_len};
use crate::micro::{BLOCK, Micro};
use crate::{Activation, Buffer, Conv, Isa, Pool, RowsJob, Weights, blocks};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Case {
    cin: usize,
    cout: usize,
    size: (usize, usize),
    n: usize,
    threads: usize,
    /// Bias, residual, what the output holds, ReLU.
    finish: [bool; 4],
}

fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 23) as f32) - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn activation(values: &[f32], channels: usize, size: (usize, usize), n: usize) -> Activation {
    let mut a = Activation::zeros(channels, size.0, size.1, n);
    a.set_nchw(values);
    a
}

/// Random operands of a case.
struct Operands {
    x: Vec<f32>,
    w: Vec<f32>,
    /// What the output holds, which is the residual too.
    y: Vec<f32>,
    bias: Vec<f32>,
}

impl Operands {
    fn new(c: &Case) -> Self {
        let area = c.size.0 * c.size.1;
        Self {
            x: values(c.n * c.cin * area, 1),
            w: values(c.cout * c.cin * 9, 2),
            y: values(c.n * c.cout * area, 3),
            bias: values(blocks(c.cout) * BLOCK, 4),
        }
    }

    /// The convolution by plain loops in f64.
    fn expected(&self, c: &Case) -> Vec<f64> {
        let ((height, width), mut out) = (c.size, Vec::new());
        for (image, o) in (0..c.n).flat_map(|image| (0..c.cout).map(move |o| (image, o))) {
            for (oy, ox) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                let mut sum = 0.0;
                for (ky, kx) in (0..3).flat_map(|y| (0..3).map(move |x| (y, x))) {
                    let (y, x) = (oy + ky, ox + kx);
                    if y == 0 || x == 0 || y > height || x > width {
                        continue;
                    }
                    for i in 0..c.cin {
                        let at = ((image * c.cin + i) * height + y - 1) * width + x - 1;
                        let w = self.w[(o * c.cin + i) * 9 + ky * 3 + kx];
                        sum += f64::from(self.x[at]) * f64::from(w);
                    }
                }
                let held = f64::from(self.y[out.len()]);
                let [bias, residual, accumulate, relu] = c.finish.map(|on| f64::from(u8::from(on)));
                sum += bias * f64::from(self.bias[o]) + (residual + accumulate) * held;
                out.push(if relu > 0.0 { sum.max(0.0) } else { sum });
            }
        }
        out
    }

    /// The convolution of `count` images from `first` on.
    fn computed(&self, c: &Case, isa: Isa, threads: usize, first: usize, count: usize) -> Vec<f32> {
        let (pool, conv) = (Pool::new(threads), Conv::new(c.cin, c.cout, 3, 1));
        let area = c.size.0 * c.size.1;
        let part = |values: &[f32], channels: usize| {
            let image = channels * area;
            activation(&values[first * image..(first + count) * image], channels, c.size, count)
        };
        let (x, residual) = (part(&self.x, c.cin), part(&self.y, c.cout));
        let mut packed = Buffer::zeros(conv.packed_len());
        conv.pack(&self.w, &mut packed);
        let mut points = Buffer::zeros(weights_len(&conv));
        weights(isa, &pool, &conv, Taps::Forward, &packed, &mut points);
        let run = |tiles: Option<(usize, bool)>| {
            let mut y = residual.clone();
            let mut job = RowsJob::new(x.data(), Weights::Winograd(&points), y.data_mut());
            job.bias = c.finish[0].then_some(&self.bias[..]);
            job.residual = c.finish[1].then_some(residual.data());
            (job.accumulate, job.relu) = (c.finish[2], c.finish[3]);
            let (micro, winograd) = (Micro::new(isa).expect("available"), Winograd::of_maps(c.size, count));
            match tiles {
                None => winograd.run(micro, &pool, &conv, &[job]),
                Some((tiles, by_tiles)) => {
                    let (dims, jobs) = (Dims { by_tiles, ..winograd.dims(&conv, tiles) }, [job]);
                    let mut scratch = Buffer::zeros(dims.scratch_len(1, threads));
                    Run::new(&winograd, dims, micro, &jobs, None).run(&pool, &mut scratch);
                }
            }
            for plane in y.planes() {
                assert!(plane[plane.len() - BLOCK..].iter().all(|&v| v == 0.0), "the zero row stays");
            }
            y.to_nchw()
        };
        let y = run(None);
        let cuts = [(1, true), (7, false), (12, true)];
        for &cut in if cfg!(miri) { &cuts[..1] } else { &cuts[..] } {
            assert_eq!(y, run(Some(cut)), "{isa}: tasks of {cut:?}");
        }
        y
    }
}

/// Largest error, and its root mean square, as a share of the largest value and of the values' root mean square.
fn errors(got: &[f32], want: &[f64]) -> (f64, f64) {
    assert_eq!(got.len(), want.len());
    let differences: Vec<f64> = got.iter().zip(want).map(|(&g, w)| f64::from(g) - w).collect();
    let largest =
        |v: &[f64]| v.iter().fold(0.0, |m: f64, v| if v.is_nan() { f64::NAN } else { m.max(v.abs()) });
    let mean = |v: &[f64]| (v.iter().map(|v| v * v).sum::<f64>() / v.len() as f64).sqrt();
    (largest(&differences) / largest(want), mean(&differences) / mean(want))
}

fn check(case: &Case) {
    let operands = Operands::new(case);
    let expected = operands.expected(case);
    for isa in Isa::available() {
        let got = operands.computed(case, isa, case.threads, 0, case.n);
        let (error, _) = errors(&got, &expected);
        assert!(error < 5e-6, "{isa}: off by {error:e}");
        assert_eq!(
            got,
            operands.computed(case, isa, case.threads % 4 + 1, 0, case.n),
            "{isa}: other threads"
        );
        let image = got.len() / case.n;
        for i in 0..case.n {
            let alone = operands.computed(case, isa, case.threads, i, 1);
            assert_eq!(alone, got[i * image..(i + 1) * image], "{isa}: image {i} alone");
        }
    }
}

/// `PROPTEST_CASES` in the environment says how many cases; emulated machines are slow.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    ProptestConfig::with_cases(cases.unwrap_or(30))
}

fn cases() -> impl Strategy<Value = Case> {
    let channels = || prop_oneof![1usize..40, Just(79)];
    let shape = (channels(), channels(), (1usize..18, 1usize..18), 1usize..6);
    (shape, 1usize..5, any::<[bool; 4]>()).prop_map(|((cin, cout, size, n), threads, finish)| Case {
        cin,
        cout,
        size,
        n,
        threads,
        finish,
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    #[cfg_attr(miri, ignore = "too slow to interpret")]
    fn any_size_is_the_convolution_whatever_the_batch_and_threads(case in cases()) {
        check(&case);
    }
}

/// Small enough for Miri (`.ci/miri`).
#[test]
fn a_small_map_is_the_convolution() {
    let case = Case { cin: 2, cout: 3, size: (5, 3), n: 2, threads: 1, finish: [true; 4] };
    let operands = Operands::new(&case);
    let expected = operands.expected(&case);
    for isa in Isa::available() {
        let (error, _) = errors(&operands.computed(&case, isa, 1, 0, 2), &expected);
        assert!(error < 5e-6, "{isa}: off by {error:e}");
    }
}

/// The figures are in docs/performance.md.
#[test]
#[cfg_attr(miri, ignore = "too slow to interpret")]
fn errors_stay_small_with_many_channels() {
    for channels in [64, 128, 256, 512] {
        let case = Case { cin: channels, cout: 16, size: (16, 16), n: 1, threads: 2, finish: [false; 4] };
        let operands = Operands::new(&case);
        let expected = operands.expected(&case);
        for isa in Isa::available() {
            let (largest, mean) = errors(&operands.computed(&case, isa, 2, 0, 1), &expected);
            println!("{isa}, {channels} channels: {largest:.1e} at most, {mean:.1e} in the mean");
            assert!(largest < 4e-6 && mean < 4e-6);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too slow to interpret")]
fn the_choice_depends_on_the_map() {
    let chosen = |kernel, stride, size| {
        let conv = Conv::new(16, 16, kernel, stride);
        let by_batch = [1, 3, 32].map(|n| Winograd::new(&conv, (size, size), n).is_some());
        assert!(by_batch.iter().all(|&b| b == by_batch[0]));
        by_batch[0]
    };
    for size in [7, 8, 14, 16, 28, 32, 56] {
        assert!(chosen(3, 1, size), "maps of {size}");
        assert!(!chosen(3, 2, size) && !chosen(1, 1, size));
    }
    for size in 1..7 {
        assert!(!chosen(3, 1, size), "maps of {size}");
    }
}

#[test]
fn weights_of_one_call_need_enough_tiles() {
    let conv = Conv::new(16, 16, 3, 1);
    let chosen = |size, n| Winograd::for_one_call(&conv, (size, size), n).is_some();
    assert!(chosen(4, 32) && chosen(8, 8) && chosen(16, 2));
    assert!(!chosen(4, 31) && !chosen(8, 7) && !chosen(2, 1000));
}
