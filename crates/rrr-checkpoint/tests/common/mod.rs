//! Making checkpoint files by hand.

use std::io::{Cursor, Write};
use std::path::PathBuf;

use rrr_checkpoint::{Checkpoint, Error};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A PyTorch zip file with this pickle and these storages.
pub fn zip_file(pickle: &[u8], storages: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    zip.start_file("archive/data.pkl", options).unwrap();
    zip.write_all(pickle).unwrap();
    for (key, bytes) in storages {
        zip.start_file(format!("archive/data/{key}"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A safetensors file with this header.
pub fn safetensors_file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// Opens these bytes as a file.
pub fn open(bytes: &[u8]) -> Result<Checkpoint, Error> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    Checkpoint::open(file.path())
}

/// Opens and reads everything that can be read.
pub fn exhaust(bytes: &[u8]) -> Result<usize, Error> {
    let checkpoint = open(bytes)?;
    let mut values = 0;
    for info in checkpoint.tensors() {
        values += checkpoint.read_f32(&info.name)?.len();
    }
    Ok(values)
}

/// A committed PyTorch file.
#[allow(dead_code, reason = "not every test binary reads one")]
pub fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}
