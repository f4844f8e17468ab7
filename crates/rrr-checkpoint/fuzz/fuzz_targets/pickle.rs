//! Any bytes as the pickle of a PyTorch zip file with one storage.
//! Run: cargo +nightly fuzz run pickle
#![no_main]

use std::io::{Cursor, Write};

use libfuzzer_sys::fuzz_target;
use rrr_checkpoint::Checkpoint;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

fuzz_target!(|pickle: &[u8]| {
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in [("a/data.pkl", pickle), ("a/data/0", &[0; 64])] {
        zip.start_file(name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(zip.finish().unwrap().get_ref()).unwrap();
    if let Ok(checkpoint) = Checkpoint::open(file.path()) {
        for info in checkpoint.tensors() {
            checkpoint.read_f32(&info.name).unwrap();
        }
    }
});
