//! Quantised networks: close to f32, and the same bits everywhere.

mod common;

use common::*;
use rrr_kernels::int8::Int8Isa;
use rrr_nn::{
    Calibrator, Compute, Images, Logits, NetSpec, NetState, Network, Normalize, Pixels, Pool,
    QuantizedNetwork, QuantizedState, SequenceSpec,
};
use std::sync::Arc;

/// The normalisation of [`Batch::u8`].
const NORMALIZE: Normalize = Normalize { mean: [128.0 / 255.0; 3], std: [64.0 / 255.0; 3] };

fn pool(threads: usize) -> Arc<Pool> {
    Arc::new(Pool::new(threads))
}

fn quantized(spec: &NetSpec, state: &NetState, seen: &[Images<'_>]) -> QuantizedState {
    let mut calibrator = Calibrator::new(spec, state, pool(2)).unwrap();
    seen.iter().for_each(|images| calibrator.observe(images));
    calibrator.quantize(NORMALIZE)
}

/// Two branches that begin without a downsample, and so share what they skip.
fn shared_skip_spec() -> NetSpec {
    NetSpec {
        coarse: 1,
        stem: SequenceSpec { conv1: Some(20), blocks: Vec::new(), classes: None },
        branches: 2,
        branch: SequenceSpec {
            conv1: None,
            blocks: vec![block("layer1.0", 20, 5, 1, false), block("layer2.0", 20, 18, 2, true)],
            classes: Some(4),
        },
    }
}

/// Root mean square of the difference, relative to that of `want`.
fn relative_error(got: &Logits, want: &Logits) -> f32 {
    let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>();
    let error = squares(&mut got.data.iter().zip(&want.data).map(|(g, w)| g - w));
    (error / squares(&mut want.data.iter().copied())).sqrt()
}

#[test]
fn quantised_networks_are_close_to_f32() {
    for (name, spec) in
        [("split", split_spec()), ("whole", whole_spec()), ("shared skip", shared_skip_spec())]
    {
        let mut rng = Rng(3);
        let state = rng.net_state(&spec);
        let (seen, other) = (rng.batch(40, 33, 30), rng.batch(9, 33, 30));
        let mut q = QuantizedNetwork::new(&spec, &quantized(&spec, &state, &[seen.u8()]), pool(2)).unwrap();
        let mut f32 = Network::new(&spec, &state, Compute::new(pool(2))).unwrap();
        let (got, want) = (q.forward(&other.u8()), f32.forward(&other.u8()));
        let error = relative_error(&got, &want);
        assert!(error < 0.06, "{name}: logits off by {error}");
        let (got, want) = (q.features(&other.u8()), f32.features(&other.u8()));
        assert_eq!((got.branches, got.n, got.classes), (want.branches, want.n, want.classes));
        let error = relative_error(&got, &want);
        assert!(error < 0.06, "{name}: features off by {error}");
    }
}

#[test]
fn means_over_the_calibration_images_are_those_of_f32() {
    for (name, spec) in
        [("split", split_spec()), ("whole", whole_spec()), ("shared skip", shared_skip_spec())]
    {
        let mut rng = Rng(11);
        let state = rng.net_state(&spec);
        let batch = rng.batch(36, 32, 32);
        let seen = [batch.u8().slice(0, 20), batch.u8().slice(20, 16)];
        let mut q = QuantizedNetwork::new(&spec, &quantized(&spec, &state, &seen), pool(2)).unwrap();
        let mut f32 = Network::new(&spec, &state, Compute::new(pool(2))).unwrap();
        let (got, want) = (q.features(&batch.u8()), f32.features(&batch.u8()));
        for branch in 0..spec.branches {
            let mean = |of: &Logits| -> Vec<f32> {
                let column = |c: usize| (0..of.n).map(move |i| of.row(branch, i)[c]).sum::<f32>();
                (0..of.classes).map(|c| column(c) / of.n as f32).collect()
            };
            let (got, want) = (mean(&got), mean(&want));
            let largest = want.iter().fold(0f32, |m, v| m.max(*v));
            for (got, want) in got.iter().zip(&want) {
                assert!(
                    (got - want).abs() < 2e-3 * largest,
                    "{name}: {got}, in f32 {want} of up to {largest}"
                );
            }
        }
    }
}

#[test]
fn quantising_gives_the_same_bits_for_any_number_of_threads() {
    let spec = split_spec();
    let mut rng = Rng(13);
    let state = rng.net_state(&spec);
    let batch = rng.batch(33, 24, 24);
    let quantized = |threads| {
        let mut calibrator = Calibrator::new(&spec, &state, pool(threads)).unwrap();
        calibrator.observe(&batch.u8());
        calibrator.quantize(NORMALIZE)
    };
    let one = quantized(1);
    assert!([2, 3].iter().all(|threads| quantized(*threads) == one));
}

#[test]
fn the_bits_do_not_depend_on_the_cpu_the_threads_or_the_batch() {
    for spec in [split_spec(), whole_spec()] {
        let mut rng = Rng(5);
        let state = rng.net_state(&spec);
        let images = rng.batch(37, 24, 27);
        let state = quantized(&spec, &state, &[images.u8()]);
        let expected = QuantizedNetwork::new(&spec, &state, pool(1)).unwrap().forward(&images.u8());
        for isa in Int8Isa::available() {
            for threads in [1, 2, 4] {
                let network = QuantizedNetwork::with_isa(&spec, &state, pool(threads), isa).unwrap();
                assert_eq!(network.unwrap().forward(&images.u8()), expected, "{isa}, {threads} threads");
            }
        }
        let mut network = QuantizedNetwork::new(&spec, &state, pool(2)).unwrap();
        for (start, count) in [(0, 1), (1, 5), (6, 31)] {
            let part = network.forward(&images.u8().slice(start, count));
            for branch in 0..spec.branches {
                for i in 0..count {
                    assert_eq!(part.row(branch, i), expected.row(branch, start + i), "batch of {count}");
                }
            }
        }
        assert_eq!(network.forward(&images.f32()), expected, "values that are pixels");
    }
}

#[test]
fn calibration_in_parts_is_calibration() {
    let spec = split_spec();
    let mut rng = Rng(7);
    let state = rng.net_state(&spec);
    let images = rng.batch(35, 16, 16);
    let whole = quantized(&spec, &state, &[images.u8()]);
    let parts = quantized(&spec, &state, &[images.u8().slice(5, 30), images.u8().slice(0, 5)]);
    let sequences = |s: &QuantizedState| [vec![s.stem.clone()], s.branches.clone()].concat();
    for (whole, parts) in sequences(&whole).iter().zip(&sequences(&parts)) {
        assert_eq!(whole.weights, parts.weights);
        // Sums of means are rounded differently.
        assert_state_close("values", &parts.values, &whole.values, 1e-5);
    }
}

#[test]
fn states_that_do_not_fit_are_refused() {
    let spec = split_spec();
    let mut rng = Rng(9);
    let state = rng.net_state(&spec);
    let good = quantized(&spec, &state, &[rng.batch(2, 16, 16).u8()]);
    type Break = fn(&mut QuantizedState);
    let breaks: [(Break, &str); 6] = [
        (|s| drop(s.branches.pop()), "2 branches given"),
        (|s| drop(s.stem.weights.remove("conv1.weight")), "stem: conv1.weight is missing"),
        (|s| s.stem.values.get_mut("conv1.step").unwrap().data[0] = 0.0, "conv1.step has values"),
        (|s| s.stem.values.get_mut("conv1.bias").unwrap().data[0] = f32::NAN, "conv1.bias has values"),
        (|s| s.branches[1].weights.get_mut("layer3.0.conv2.weight").unwrap().data.truncate(3), "has shape"),
        (|s| s.branches[0].weights.get_mut("layer3.0.conv1.weight").unwrap().data.fill(127), "too large"),
    ];
    for (damage, expected) in breaks {
        let mut bad = good.clone();
        damage(&mut bad);
        let error = QuantizedNetwork::new(&spec, &bad, pool(1)).err().expect("refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
    let images = Images { pixels: Pixels::F32(&[0.0; 3]), n: 1, height: 1, width: 1 };
    QuantizedNetwork::new(&spec, &good, pool(1)).unwrap().forward(&images);
}
