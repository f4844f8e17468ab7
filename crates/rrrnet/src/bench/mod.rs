//! Measuring how fast a model runs on this machine, and what it needs.
//!
//! Pixels are made up: speed does not depend on them. Every speed is measured in one way, here, by [`quantize`](crate::quantize)
//! and at the end of trainings and of suites' tasks: warmed up, then timed call by call. Where one number is wanted, the median counts:
//! what else runs on the machine moves it little, and it is no lucky moment.

mod latency;
mod report;

pub use latency::Latency;
pub use report::{BenchMachine, BenchNetwork, BenchReport, Case, ColdStart, Layer, NetworkMemory};

use crate::compute::Precision;
use crate::cost::net_cost;
use crate::engine::Engine;
use crate::machine;
use crate::model::{ModelError, ModelFile};
use crate::predict::Predictor;
use rrr_data::rng::SeededRng;
use rrr_kernels::int8::Int8Compute;
use rrr_kernels::{bf16_peak, fma_peak, int8_peak};
use rrr_nn::{Compute, Images, Isa, LayerTime, Normalize, Pixels, Pool};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Calls before anything is timed: they plan the convolutions and touch the memory.
const WARM_UP: usize = 2;
/// Calls whose layers are timed; each layer's median counts.
const PROFILED: usize = 5;

/// What to measure.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// Numbers of images per call.
    pub batches: Vec<usize>,
    /// Precisions, of models that are not quantised.
    pub precisions: Vec<Precision>,
    /// Number of threads.
    pub threads: usize,
    /// Side of the images in pixels; the model's own if none.
    pub size: Option<usize>,
    /// When a case has been timed enough.
    pub until: Until,
    /// Also time every layer.
    pub layers: bool,
}

/// When a case has been timed enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Until {
    /// So much time has passed (one call at least).
    Time(Duration),
    /// So many calls were made.
    Calls(usize),
}

impl Until {
    fn is_reached(self, calls: usize, since: Instant) -> bool {
        match self {
            Self::Time(time) => calls >= 1 && since.elapsed() >= time,
            Self::Calls(enough) => calls >= enough,
        }
    }
}

/// Measures the model of a run or of a file; `begin` hears of each case before it is measured.
///
/// # Errors
/// [`ModelError`]: there is no usable model.
pub fn bench(
    path: &Path,
    options: &BenchOptions,
    begin: &mut dyn FnMut(&str, usize),
) -> Result<BenchReport, ModelError> {
    let pool = Arc::new(Pool::new(options.threads));
    let started = Instant::now();
    let file = ModelFile::open(path)?;
    let open = started.elapsed();
    let loading = Instant::now();
    let mut first = file.network(Compute::new(Arc::clone(&pool)))?;
    let load = loading.elapsed();
    let model = file.read()?;
    let size = options.size.unwrap_or(model.info.preprocessing.size);
    let normalize = model.info.preprocessing.normalize();
    let pixels = made_up(options.batches.iter().copied().max().unwrap_or(1).max(1), size);
    let images = |n| images(&pixels, n, size, normalize);

    let calling = Instant::now();
    first.forward(&images(1));
    let first_call = calling.elapsed();
    drop(first);

    let cost = net_cost(&model.spec, [size; 2]);
    let mut cases = Vec::new();
    let peak_f32 = fma_peak(&Compute::new(Arc::clone(&pool)));
    // A quantised model is computed with as it is.
    let precisions: Vec<(String, Precision)> = match model.quantization() {
        Some(_) => vec![("int8".into(), Precision::F32)],
        None => options.precisions.iter().map(|p| p.resolve()).map(|p| (p.to_string(), p)).collect(),
    };
    for (name, precision) in precisions {
        let peak = match (model.quantization(), precision) {
            (Some(_), _) => int8_peak(&Int8Compute::new(Arc::clone(&pool))),
            (None, Precision::Bf16) => bf16_peak(&precision.on(Arc::clone(&pool))),
            (None, _) => peak_f32,
        };
        for &batch in &options.batches {
            begin(&name, batch);
            machine::forget_peak_resident();
            let mut network = Engine::new(&model, precision.on(Arc::clone(&pool)))?;
            cases.push(case((&name, peak), &mut network, &images(batch), cost.macs, options));
        }
    }
    Ok(BenchReport {
        machine: BenchMachine {
            cpu: machine::cpu_model(),
            isa: Isa::active().to_string(),
            threads: pool.threads(),
            peak_gflops: 1e-9 * peak_f32,
        },
        network: BenchNetwork {
            branches: model.spec.branches,
            classes: model.info.classes.len(),
            params: cost.params,
            macs: cost.macs,
            size,
        },
        cold_start: ColdStart {
            open_ms: ms(open),
            load_ms: ms(load),
            first_call_ms: ms(first_call),
            total_ms: ms(open + load + first_call),
        },
        cases,
    })
}

fn case(
    (precision, peak): (&str, f64),
    network: &mut Engine,
    images: &Images<'_>,
    macs: u64,
    options: &BenchOptions,
) -> Case {
    let latency = timed(options.until, || drop(std::hint::black_box(network.forward(images))));
    let layers = if options.layers { layers(network, images) } else { Vec::new() };
    Case {
        precision: precision.into(),
        batch: images.n,
        images_per_second: 1e3 * images.n as f64 / latency.p50_ms,
        gflops: gflops(macs * images.n as u64, latency.p50_ms),
        peak_gflops: 1e-9 * peak,
        latency,
        memory: NetworkMemory {
            weights_bytes: network.weights_bytes(),
            activations_bytes: network.activations_bytes(),
        },
        peak_resident_bytes: machine::peak_resident(),
        layers,
    }
}

/// The speed of a model, in about a second.
#[derive(Clone, Copy, Debug)]
pub struct QuickSpeed {
    /// Median milliseconds for one image alone.
    pub latency_ms: f64,
    /// Images per second in batches of [`QuickSpeed::BATCH`], at their median time.
    pub images_per_second: f64,
}

impl QuickSpeed {
    /// Images per batch of the throughput.
    pub const BATCH: usize = 32;

    /// Measures the network of `predictor`.
    pub fn of(predictor: &mut Predictor) -> Self {
        let size = predictor.info().preprocessing.size;
        let pixels = made_up(Self::BATCH, size);
        let mut median = |n| {
            let pixels = &pixels[..n * size * size * 3];
            timed(Until::Time(Duration::from_millis(400)), || drop(predictor.logits(pixels, n))).p50_ms
        };
        Self { latency_ms: median(1), images_per_second: 1e3 * Self::BATCH as f64 / median(Self::BATCH) }
    }
}

/// The times of `call`, which runs a network, after some calls that warm it up.
pub(crate) fn timed(until: Until, mut call: impl FnMut()) -> Latency {
    (0..WARM_UP).for_each(|_| call());
    let started = Instant::now();
    let mut times = Vec::new();
    while !until.is_reached(times.len(), started) {
        let start = Instant::now();
        call();
        times.push(start.elapsed());
    }
    Latency::of(&times)
}

fn layers(network: &mut Engine, images: &Images<'_>) -> Vec<Layer> {
    let runs: Vec<Vec<LayerTime>> = (0..PROFILED).map(|_| whole(network.forward_timed(images).1)).collect();
    let median = |i: usize| {
        let mut times: Vec<Duration> = runs.iter().map(|run| run[i].elapsed).collect();
        times.sort_unstable();
        ms(times[PROFILED / 2])
    };
    let all: f64 = (0..runs[0].len()).map(median).sum();
    let layer = |(i, layer): (usize, &LayerTime)| {
        let ms = median(i);
        let gflops = (layer.macs > 0).then(|| gflops(layer.macs, ms));
        Layer { name: layer.name.clone(), ms, share: ms / all, gflops }
    };
    runs[0].iter().enumerate().map(layer).collect()
}

/// The times of a batch that ran in parts, each layer's added up.
fn whole(parts: Vec<LayerTime>) -> Vec<LayerTime> {
    let mut layers: Vec<LayerTime> = Vec::new();
    for part in parts {
        match layers.iter_mut().find(|l| l.name == part.name) {
            Some(layer) => {
                layer.macs += part.macs;
                layer.elapsed += part.elapsed;
            }
            None => layers.push(part),
        }
    }
    layers
}

/// `n` images of noise, `[n, size, size, 3]`.
fn made_up(n: usize, size: usize) -> Vec<u8> {
    let mut pixels = vec![0; n * size * size * 3];
    SeededRng::new(0, "bench", "", 0, 0).fill(&mut pixels);
    pixels
}

fn images(pixels: &[u8], n: usize, size: usize, normalize: Normalize) -> Images<'_> {
    let data = &pixels[..n * size * size * 3];
    Images { pixels: Pixels::U8 { data, normalize }, n, height: size, width: size }
}

fn gflops(macs: u64, ms: f64) -> f64 {
    2e-6 * macs as f64 / ms
}

fn ms(time: Duration) -> f64 {
    1e3 * time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_warms_up_does_not_count() {
        let mut calls = 0;
        let latency = timed(Until::Calls(5), || calls += 1);
        assert_eq!((latency.calls, calls), (5, 5 + WARM_UP));
    }
}
