//! Writes the images of a training as another framework can read them: the very split, augmentation and order that `rrr
//! train` uses, so that only what computes differs.
//!
//! ```text
//! cargo run --release -p rrr-data --example dump_batches -- DATASET OUT SEED SIZE AUGMENTATION EPOCHS [TRAIN VALID]
//! ```
//!
//! `OUT/PART.u8` holds images, `[size, size, 3]` bytes each, `OUT/PART.labels` a byte per image. `train` holds all epochs one
//! after another, each shuffled and augmented; `valid` (if `VALID` images of each class are asked for) and `test` the images as they
//! are. `TRAIN` is the number of training images per class.

use rrr_data::{
    ImageStore, Loader, LoaderOptions, OpenOptions, Policy, Source, SplitSpec, StoreOptions, Take, Workers,
};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

const USAGE: &str = "usage: dump_batches DATASET OUT SEED SIZE AUGMENTATION EPOCHS [TRAIN VALID]";
const BATCH: usize = 32;
const POLICIES: [(&str, Policy); 5] = [
    ("none", Policy::None),
    ("light", Policy::Light),
    ("shift", Policy::Shift),
    ("mixed", Policy::Mixed),
    ("paper", Policy::Paper),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [data, out, seed, size, policy, epochs, per_class @ ..] = args.as_slice() else {
        return Err(USAGE.into());
    };
    let (seed, size, epochs) = (seed.parse()?, size.parse()?, epochs.parse::<u64>()?);
    let policy = POLICIES.iter().find(|(name, _)| name == policy).ok_or(USAGE)?.1;
    let split = match per_class {
        [] => SplitSpec::default(),
        [train, valid] => SplitSpec {
            train: Some(Take::PerClass(train.parse()?)),
            valid: Some(Take::PerClass(valid.parse()?)),
            test: None,
        },
        _ => return Err(USAGE.into()),
    };
    let workers = Workers::new(1)?;
    let splits = Source::open(Path::new(data), &OpenOptions::default())?.split(&split, seed)?;
    let out = Path::new(out);
    std::fs::create_dir_all(out)?;
    let parts = [("train", Some(splits.train)), ("valid", splits.valid), ("test", splits.test)];
    for (name, dataset) in parts {
        let Some(dataset) = dataset else { continue };
        let store = Arc::new(ImageStore::load(dataset, StoreOptions::new(size), &workers)?);
        let (options, epochs) = match name {
            "train" => (LoaderOptions::training(BATCH, seed, policy), epochs),
            _ => (LoaderOptions::evaluation(BATCH), 1),
        };
        let loader = Loader::new(store, options, &workers);
        let mut pixels = BufWriter::new(File::create(out.join(format!("{name}.u8")))?);
        let mut labels = BufWriter::new(File::create(out.join(format!("{name}.labels")))?);
        for epoch in 0..epochs {
            for step in 0..loader.steps() {
                let batch = loader.batch(epoch, step)?;
                pixels.write_all(&batch.pixels)?;
                let bytes: Result<Vec<u8>, _> = batch.labels.iter().map(|&l| u8::try_from(l)).collect();
                labels.write_all(&bytes?)?;
            }
        }
        pixels.flush()?;
        labels.flush()?;
    }
    Ok(())
}
