//! Any bytes as a file of whatever format. Seeds: `tests/golden`.
//! Run: cargo +nightly fuzz run file fuzz/corpus/file tests/golden
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use rrr_checkpoint::Checkpoint;

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    if let Ok(checkpoint) = Checkpoint::open(file.path()) {
        for info in checkpoint.tensors() {
            checkpoint.read_f32(&info.name).unwrap();
        }
    }
});
