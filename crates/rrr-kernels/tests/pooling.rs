//! Max pooling in f32 on every instruction set against plain loops.

use rrr_kernels::{Activation, Compute, Isa, Pool, max_pool, max_pool_size};
use std::sync::Arc;

/// Numbers from -1 to 1.
fn reals(len: usize) -> Vec<f32> {
    let mut state = 5u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn max_pooling_equals_plain_loops_and_keeps_nan() {
    let all = [(20, (1, 1), 1), (17, (2, 3), 5), (33, (9, 6), 3), (16, (8, 7), 4), (5, (13, 12), 9)];
    for &(channels, size, n) in if cfg!(miri) { &all[..2] } else { &all[..] } {
        let out = (max_pool_size(size.0), max_pool_size(size.1));
        let (pixels, maps) = (size.0 * size.1, n * channels);
        let mut values = reals(maps * pixels);
        values.iter_mut().step_by(37).for_each(|v| *v = f32::NAN);
        let mut x = Activation::zeros(channels, size.0, size.1, n);
        x.set_nchw(&values);
        let mut expected = vec![f32::NEG_INFINITY; maps * out.0 * out.1];
        for (i, most) in expected.iter_mut().enumerate() {
            let (map, at) = (i / (out.0 * out.1), i % (out.0 * out.1));
            let window = |o: usize, size: usize| (2 * o).saturating_sub(1)..(2 * o + 2).min(size);
            for (py, px) in
                window(at / out.1, size.0).flat_map(|y| window(at % out.1, size.1).map(move |x| (y, x)))
            {
                let value = values[map * pixels + py * size.1 + px];
                if value > *most || value.is_nan() {
                    *most = value;
                }
            }
        }
        for isa in Isa::available() {
            let compute = Compute::with_isa(Arc::new(Pool::new(2)), isa).unwrap();
            let mut y = Activation::zeros(channels, out.0, out.1, n);
            max_pool(&compute, &x, &mut y);
            let mut got = vec![0.0; expected.len()];
            y.copy_nchw(&mut got);
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&got), bits(&expected), "{isa}, {n} images of {size:?}");
        }
    }
}
