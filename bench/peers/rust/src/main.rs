//! Times one Rust engine on the network that `bench/peers/run.py` exported.
//!
//! `rust-peers ENGINE FOLDER BATCH THREADS REPEATS` reads `network-BATCH.onnx` (Burn: `network.pt`), `input-BATCH.f32` and
//! `expected-BATCH.f32` of the folder and prints one JSON object: the milliseconds of each of `REPEATS` calls after one
//! to warm up, and the largest difference from the expected probabilities.

#[cfg(feature = "burn")]
mod burn_peer;
#[cfg(feature = "rten")]
mod rten_peer;
#[cfg(feature = "tract")]
mod tract_peer;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// One call: the probabilities `[batch, classes]` of the images.
type Forward = Box<dyn FnMut() -> Result<Vec<f32>, Box<dyn Error>>>;

/// What an engine is given.
pub struct Work {
    pub model: PathBuf,
    /// `[batch, 3, size, size]`.
    pub input: Vec<f32>,
    pub size: usize,
    pub batch: usize,
    pub threads: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [engine, folder, batch, threads, repeats] = args.as_slice() else {
        return Err("usage: rust-peers ENGINE FOLDER BATCH THREADS REPEATS".into());
    };
    let (folder, batch): (_, usize) = (Path::new(folder), batch.parse()?);
    let input = floats(&folder.join(format!("input-{batch}.f32")))?;
    let work = Work {
        model: folder.join(format!("network-{batch}.onnx")),
        size: (input.len() / 3 / batch).isqrt(),
        input,
        batch,
        threads: threads.parse()?,
    };
    let expected = floats(&folder.join(format!("expected-{batch}.f32")))?;
    let mut forward: Forward = match engine.as_str() {
        #[cfg(feature = "tract")]
        "tract" => tract_peer::load(&work)?,
        #[cfg(feature = "rten")]
        "rten" => rten_peer::load(&work)?,
        #[cfg(feature = "burn")]
        "burn" => burn_peer::load(&work)?,
        _ => return Err(format!("{engine} was not built in").into()),
    };
    let output = forward()?;
    if output.len() != expected.len() {
        return Err(format!("{} values came out instead of {}", output.len(), expected.len()).into());
    }
    let difference = output.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let mut times = Vec::new();
    for _ in 0..repeats.parse()? {
        let start = Instant::now();
        forward()?;
        times.push((1e3 * start.elapsed().as_secs_f64()).to_string());
    }
    println!(r#"{{"times": [{}], "difference": {difference}}}"#, times.join(", "));
    Ok(())
}

fn floats(path: &Path) -> Result<Vec<f32>, Box<dyn Error>> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}
