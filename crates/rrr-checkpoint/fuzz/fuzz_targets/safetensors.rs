//! Any bytes as the header and data of a safetensors file.
//! Run: cargo +nightly fuzz run safetensors
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use rrr_checkpoint::Checkpoint;

fuzz_target!(|input: (&str, &[u8])| {
    let (fields, data) = input;
    let header = format!("{{{fields}");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&[&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()).unwrap();
    if let Ok(checkpoint) = Checkpoint::open(file.path()) {
        for info in checkpoint.tensors() {
            checkpoint.read_f32(&info.name).unwrap();
        }
    }
});
