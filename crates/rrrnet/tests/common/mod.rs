//! A tiny backbone and tiny images, made on the spot.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use rrr_checkpoint::{Card, ResNetLayout, TensorRef, write_safetensors};
use rrrnet::compute::Precision;
use rrrnet::evaluate::{Columns, EvaluateOptions};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A folder with a backbone, `backbone/`, and a dataset of three classes, `photos/`.
pub struct World {
    dir: tempfile::TempDir,
}

pub const CLASSES: [&str; 3] = ["blue", "green", "red"];
/// How everything is measured.
pub const OPTIONS: EvaluateOptions<'_> = EvaluateOptions {
    batch_size: 4,
    threads: 1,
    precision: Precision::Auto,
    skip_bad: false,
    columns: Columns { image: None, label: None },
    abstain_below: None,
    ood: None,
};

/// Images per class; a fifth of them are test images by default.
pub const IMAGES: usize = 5;

impl World {
    pub fn new() -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap() };
        write_backbone(&world.backbone(), None);
        write_photos(&world.photos());
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn backbone(&self) -> PathBuf {
        self.path("backbone")
    }

    pub fn photos(&self) -> PathBuf {
        self.path("photos")
    }

    /// The photos as `train/`, `val/` and `test/`, where one validation image comes twice, with different labels: no
    /// model can be right about both, so that there is a best temperature.
    pub fn mislabelled(&self) -> PathBuf {
        let root = self.path("mislabelled");
        for class in CLASSES {
            for (i, part) in ["train", "train", "train", "val", "test"].into_iter().enumerate() {
                copy(&self.photos().join(format!("{class}/{i}.jpg")), &root.join(part).join(class));
            }
        }
        fs::copy(root.join("val/green/3.jpg"), root.join("val/blue/green.jpg")).unwrap();
        root
    }
}

/// Copies a file into a folder, which is made.
pub fn copy(file: &Path, folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    fs::copy(file, folder.join(file.file_name().unwrap())).unwrap();
}

/// Writes a random bottleneck ResNet with its card, without the tensor `missing`.
pub fn write_backbone(dir: &Path, missing: Option<&str>) {
    let layout = ResNetLayout {
        blocks: [1, 1, 2, 1],
        stem_width: 8,
        widths: [8, 8, 16, 16],
        outputs: [32, 32, 64, 64],
        classes: Some(10),
        prefix: String::new(),
    };
    let mut random = Lcg(1);
    let tensors: Vec<(String, Vec<usize>, Vec<f32>)> = layout
        .tensors()
        .into_iter()
        .filter(|(name, _)| Some(name.as_str()) != missing)
        .map(|(name, shape)| {
            let n: usize = shape.iter().product();
            let fan_in: usize = shape[1..].iter().product::<usize>().max(1);
            let positive = name.ends_with("running_var") || (shape.len() == 1 && name.ends_with("weight"));
            let value = |x: f32| if positive { 1.0 + 0.2 * x } else { x * (3.0 / fan_in as f32).sqrt() };
            let data = (0..n).map(|_| value(random.unit())).collect();
            (name, shape, data)
        })
        .collect();
    let refs: Vec<TensorRef<'_>> =
        tensors.iter().map(|(name, shape, data)| TensorRef { name, shape, data }).collect();
    fs::create_dir_all(dir).unwrap();
    let weights = dir.join("model.safetensors");
    write_safetensors(&weights, &refs, &BTreeMap::new()).unwrap();
    let card = Card::from_mean_std([0.5; 3], [0.25; 3]);
    Card { license: Some("made for this test".into()), ..card }.write(&Card::path_beside(&weights)).unwrap();
}

/// Writes noisy squares of one colour per class.
pub fn write_photos(dir: &Path) {
    let mut random = Lcg(7);
    for (class, name) in CLASSES.iter().enumerate() {
        for i in 0..IMAGES {
            let mut colour = [60.0; 3];
            colour[2 - class] = 180.0;
            let noisy = |c: f32, random: &mut Lcg| (c + 50.0 * random.unit()).clamp(0.0, 255.0) as u8;
            let pixels: Vec<u8> = (0..40 * 40).flat_map(|_| colour.map(|c| noisy(c, &mut random))).collect();
            write_jpeg(&dir.join(name).join(format!("{i}.jpg")), &pixels, 40);
        }
    }
}

pub fn write_jpeg(path: &Path, pixels: &[u8], side: u16) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let encoder = jpeg_encoder::Encoder::new_file(path, 90).unwrap();
    encoder.encode(pixels, side, side, jpeg_encoder::ColorType::Rgb).unwrap();
}

/// Numbers that look random, in -1..1.
struct Lcg(u64);

impl Lcg {
    fn unit(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 40) as f32 / (1u64 << 23) as f32) - 1.0
    }
}
