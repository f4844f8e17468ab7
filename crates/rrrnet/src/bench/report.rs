//! What a benchmark found.

use super::Latency;
use serde::Serialize;

/// Everything measured.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// The machine.
    pub machine: BenchMachine,
    /// The network.
    pub network: BenchNetwork,
    /// The way to the first prediction, in a process that has just started.
    pub cold_start: ColdStart,
    /// One per precision and batch size.
    pub cases: Vec<Case>,
}

/// What it was measured on.
#[derive(Clone, Debug, Serialize)]
pub struct BenchMachine {
    /// Processor model; none when unknown.
    pub cpu: Option<String>,
    /// Instruction set of the kernels.
    pub isa: String,
    /// Number of threads.
    pub threads: usize,
    /// Multiply-adds of 32-bit floats that these threads reach in registers, times two, in GFLOP/s.
    pub peak_gflops: f64,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct BenchNetwork {
    /// Number of branches.
    pub branches: usize,
    /// Number of classes.
    pub classes: usize,
    /// Trainable numbers.
    pub params: u64,
    /// Multiply-adds for one image.
    pub macs: u64,
    /// Side of the images in pixels.
    pub size: usize,
}

/// The way to the first prediction, in f32 unless the model is quantised, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ColdStart {
    /// Opening the file and understanding its header.
    pub open_ms: f64,
    /// Reading, folding and packing the weights.
    pub load_ms: f64,
    /// The first call, with one image.
    pub first_call_ms: f64,
    /// All of it.
    pub total_ms: f64,
}

/// Bytes that a network holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct NetworkMemory {
    /// Packed weights.
    pub weights_bytes: usize,
    /// Activations and input, kept from call to call.
    pub activations_bytes: usize,
}

/// One precision and batch size.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    /// What the network computes in: `f32`, `bf16`, or `int8` of a quantised model.
    pub precision: String,
    /// Images per call.
    pub batch: usize,
    /// Time of a call.
    pub latency: Latency,
    /// Images per second at the median latency.
    pub images_per_second: f64,
    /// Multiply-adds per second, times two, in GFLOP/s, at the median latency.
    pub gflops: f64,
    /// The same of what these threads reach in registers in this precision, with the instructions that the CPU has for it.
    pub peak_gflops: f64,
    /// What the network holds.
    pub memory: NetworkMemory,
    /// The most bytes that the whole process held during the case; none where the system does not tell.
    pub peak_resident_bytes: Option<u64>,
    /// The layers in the order they run, if asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Layer>,
}

/// One layer of all branches together.
#[derive(Clone, Debug, Serialize)]
pub struct Layer {
    /// Name, such as `stem.layer1.0.conv2`.
    pub name: String,
    /// Median time in milliseconds.
    pub ms: f64,
    /// Share of all layers' time.
    pub share: f64,
    /// Multiply-adds per second, times two, in GFLOP/s; none for layers that do not multiply.
    pub gflops: Option<f64>,
}
