//! Packs the sample dataset of `data/CLP_Micro` into one file for `include_bytes!` (see `src/sample.rs`).

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by Cargo"));
    let root = manifest.join("../../data/CLP_Micro");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut names = vec!["info.json".to_owned(), "labels.csv".to_owned()];
    let mut images: Vec<String> = fs::read_dir(root.join("images"))
        .expect("data/CLP_Micro/images is part of the repository")
        .map(|entry| format!("images/{}", entry.expect("readable folder").file_name().to_string_lossy()))
        .collect();
    images.sort();
    names.append(&mut images);
    let mut archive = Vec::new();
    for name in names {
        let data = fs::read(root.join(&name)).expect("every listed file is readable");
        archive.extend(u16::try_from(name.len()).expect("short names").to_le_bytes());
        archive.extend(u32::try_from(data.len()).expect("small files").to_le_bytes());
        archive.extend(name.as_bytes());
        archive.extend(data);
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by Cargo"));
    fs::write(Path::new(&out).join("clp_micro.bin"), archive).expect("OUT_DIR is writable");
}
