//! Times the training loader: shuffled batches of 32 with the published augmentation, from images held decoded in
//! memory, made by all threads.
//!
//! `cargo run --release -p rrr-data --example loader_bench DATASET [REPEATS] [THREADS]` prints the milliseconds per
//! image, the median of `REPEATS` runs over five epochs, as `bench/peers/peer_albumentations.py` measures it.

use rrr_data::{ImageStore, Loader, LoaderOptions, OpenOptions, Policy, Source, StoreOptions, Workers};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const BATCH: usize = 32;
const SIZE: usize = 128;
const EPOCHS: u64 = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let data = args.first().ok_or("usage: loader_bench DATASET [REPEATS] [THREADS]")?;
    let number = |i: usize, usual: usize| args.get(i).map_or(Ok(usual), |s| s.parse());
    let (repeats, threads) = (number(1, 3)?.max(1), number(2, std::thread::available_parallelism()?.get())?);
    let workers = Workers::new(threads)?;
    let source = Source::open(Path::new(data), &OpenOptions::default())?;
    let store = Arc::new(ImageStore::load(source.evaluation(), StoreOptions::new(SIZE), &workers)?);
    let images = store.len();
    let loader = Loader::new(store, LoaderOptions::training(BATCH, 0, Policy::Paper), &workers);
    let epoch = |epoch: u64| -> rrr_data::Result<()> {
        let mut batches = loader.epoch(epoch, 0)?;
        while let Some(batch) = batches.next() {
            batches.recycle(batch?);
        }
        Ok(())
    };
    epoch(0)?;
    let mut times = Vec::new();
    for repeat in 0..repeats as u64 {
        let start = Instant::now();
        (0..EPOCHS).try_for_each(|e| epoch(1 + repeat * EPOCHS + e))?;
        times.push(1e3 * start.elapsed().as_secs_f64() / (EPOCHS as usize * images) as f64);
    }
    times.sort_by(f64::total_cmp);
    let ms = times[times.len() / 2];
    println!(r#"{{"work":"augment","batch":{BATCH},"ms":{ms:.6},"images":{images},"threads":{threads}}}"#);
    Ok(())
}
