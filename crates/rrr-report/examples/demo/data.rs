//! A plausible report from a seeded generator.

use rrr_report::metrics::{Combine, Metrics, Predictions, Temperature, argmax, softmax};
use rrr_report::report::{
    Backbone, Cost, CostComparison, CostPart, CurvePoint, Curves, Dataset, Fact, ImageFormat, Machine,
    Mistake, Provenance, Report, Speed, Thumbnail,
};

const NAMES: [&str; 20] = [
    "Brown spot",
    "Healthy leaf",
    "Rice blast",
    "Bacterial blight",
    "Sheath blight",
    "Tungro",
    "Leaf smut",
    "Hispa",
    "Powdery mildew",
    "Rust",
    "Early blight",
    "Late blight",
    "Leaf curl",
    "Mosaic virus",
    "Target spot",
    "Septoria leaf spot",
    "Spider mites, two-spotted",
    "Black rot",
    "Esca (black measles)",
    "Cedar apple rust",
];
const IMAGES_PER_CLASS: usize = 20;

/// A small linear congruential generator: good enough to look at, and the same everywhere.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Roughly standard normal: the sum of twelve uniform numbers.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

pub fn report(classes: usize, branches: usize) -> Report {
    let predictions = predictions(classes, branches);
    let metrics = Metrics::evaluate(&predictions).expect("made-up predictions are valid");
    let full = Cost { params: 58_184_788, macs: 3_782_000_000, bytes: 232_739_152 };
    let stem = Cost { params: 304_448, macs: 133_000_000, bytes: 1_217_792 };
    let branch = Cost { params: 958_000, macs: 55_600_000, bytes: 3_832_000 };
    let count = branches as u64;
    Report {
        title: "leaves-rrr-8".to_owned(),
        method: format!("RRR-Net, {branches} branches from layer3.0"),
        dataset: Dataset {
            name: "Leaf diseases (made up)".to_owned(),
            classes,
            train_images: Some(classes * IMAGES_PER_CLASS),
            split: "test".to_owned(),
            image_size: 128,
        },
        mistakes: mistakes(&predictions),
        curves: Some(curves(metrics.nll, metrics.accuracy)),
        metrics,
        cost: Some(CostComparison {
            image_size: 128,
            parts: vec![
                CostPart { name: "stem".to_owned(), count: 1, cost: stem },
                CostPart { name: "branch".to_owned(), count: branches, cost: branch },
            ],
            total: Cost {
                params: stem.params + count * branch.params,
                macs: stem.macs + count * branch.macs,
                bytes: stem.bytes + count * branch.bytes,
            },
            full_name: "ResNet-152".to_owned(),
            full,
        }),
        speed: Some(Speed {
            batch: 32,
            images_per_second: 251.4,
            latency_ms: Some(4.4),
            full_images_per_second: Some(31.2),
        }),
        config: Some(
            "[model]\nbackbone = \"resnet152.a1h_in1k\"\nblocks = [1, 1, 1, 1]\nsplit = \"layer3.0\"\n\n\
             [train]\nepochs = 60\nbatch = 32\nlearning_rate = 0.001\nseed = 7\n"
                .to_owned(),
        ),
        provenance: Provenance {
            versions: vec![Fact::new("rrr", "0.1.0")],
            seed: 7,
            command: Some("rrr train leaves --out runs/leaves-rrr-8 --branches 8 --epochs 60".to_owned()),
            backbone: Some(Backbone {
                name: "resnet152.a1h_in1k".to_owned(),
                licence: Some("apache-2.0".to_owned()),
                sha256: Some("9f".repeat(32)),
                source: Some("Hugging Face hub, timm/resnet152.a1h_in1k".to_owned()),
            }),
            machine: Machine {
                cpu: Some("Example CPU @ 2.0 GHz".to_owned()),
                cores: 2,
                isa: "avx512".to_owned(),
                platform: "linux x86_64".to_owned(),
            },
            finished: Some("2025-03-01 12:00 UTC".to_owned()),
            train_seconds: Some(734.0),
            notes: vec![],
        },
    }
}

fn predictions(classes: usize, branches: usize) -> Predictions {
    let mut random = Random(11);
    let images = classes * IMAGES_PER_CLASS;
    let labels: Vec<u32> = (0..images).map(|image| (image / IMAGES_PER_CLASS) as u32).collect();
    let shared: Vec<f64> = (0..images * classes)
        .map(|i| {
            let (label, class) = (i / classes / IMAGES_PER_CLASS, i % classes);
            let skill = 2.6 + 2.4 * (label as f64 * 1.7).sin();
            let alike = if class / 2 == label / 2 { 1.2 } else { 0.0 };
            random.normal() + alike + if class == label { skill + 1.0 } else { 0.0 }
        })
        .collect();
    let mut probs: Vec<f32> = (0..branches)
        .flat_map(|_| shared.iter().map(|s| ((s + random.normal()) * 1.3) as f32).collect::<Vec<_>>())
        .collect();
    softmax(&mut probs, classes);
    let names = (0..classes).map(|class| match NAMES.get(class) {
        Some(name) => (*name).to_owned(),
        None => format!("{} {}", NAMES[class % NAMES.len()], class / NAMES.len() + 1),
    });
    Predictions {
        classes: names.collect(),
        labels,
        branches,
        probs,
        combine: Combine::MeanOfSoftmax,
        temperature: Temperature::new(0.8),
    }
}

fn mistakes(predictions: &Predictions) -> Vec<Mistake> {
    let classes = predictions.classes.len();
    let ensemble = predictions.ensemble().expect("made-up predictions are valid");
    let mut wrong: Vec<Mistake> = Vec::new();
    for (image, (row, &label)) in ensemble.chunks_exact(classes).zip(&predictions.labels).enumerate() {
        let predicted = argmax(row);
        if predicted != label as usize {
            wrong.push(Mistake {
                name: format!("images/IMG_{:04}.jpg", 1000 + image),
                thumbnail: (image % 7 != 0).then(|| picture(image)),
                label: predictions.classes[label as usize].clone(),
                predicted: predictions.classes[predicted].clone(),
                confidence: f64::from(row[predicted]),
                label_probability: f64::from(row[label as usize]),
            });
        }
    }
    wrong.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    wrong.truncate(12);
    wrong
}

fn curves(final_loss: f64, final_accuracy: f64) -> Curves {
    let mut random = Random(5);
    let epochs = 60;
    let points = (1..=epochs).map(|epoch| {
        let decay = (-f64::from(epoch) / 11.0).exp();
        let noise = 0.03 * random.normal() * (0.3 + decay);
        let evaluated = epoch % 2 == 0 || epoch == 1;
        CurvePoint {
            at: f64::from(epoch),
            train_loss: Some((0.05 + 2.9 * decay + noise).max(0.01)),
            train_accuracy: Some((0.99 - 0.93 * decay + noise / 3.0).clamp(0.0, 1.0)),
            eval_loss: evaluated.then_some(final_loss + 2.2 * decay + noise),
            eval_accuracy: evaluated
                .then_some((final_accuracy * (1.0 - 0.93 * decay) + noise / 3.0).clamp(0.0, 1.0)),
            learning_rate: Some(
                5e-4 * (1.0 + (std::f64::consts::PI * f64::from(epoch - 1) / f64::from(epochs)).cos()),
            ),
        }
    });
    Curves { axis: "epoch".to_owned(), points: points.collect() }
}

/// A PNG of a blotchy leaf-coloured gradient, stored without compression.
fn picture(seed: usize) -> Thumbnail {
    const SIDE: usize = 48;
    let mut rows = Vec::new();
    for y in 0..SIDE {
        rows.push(0); // no filter
        for x in 0..SIDE {
            let (u, v) = (x as f64 / SIDE as f64, y as f64 / SIDE as f64);
            let wave = ((u * 7.0 + seed as f64).sin() * (v * 9.0 - seed as f64 * 0.7).cos() + 1.0) / 2.0;
            rows.extend(
                [60.0 + 120.0 * wave, 110.0 + 70.0 * u, 40.0 + 50.0 * v].map(|channel| channel as u8),
            );
        }
    }
    let side = (SIDE as u32).to_be_bytes();
    let header = [&side[..], &side, &[8, 2, 0, 0, 0]].concat();
    let length = rows.len() as u16;
    let mut zlib = vec![0x78, 0x01, 0x01];
    zlib.extend(length.to_le_bytes());
    zlib.extend((!length).to_le_bytes());
    zlib.extend(&rows);
    zlib.extend(adler32(&rows).to_be_bytes());
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, content) in [(b"IHDR", &header), (b"IDAT", &zlib), (b"IEND", &Vec::new())] {
        bytes.extend((content.len() as u32).to_be_bytes());
        let checked = [&kind[..], content].concat();
        bytes.extend(&checked);
        bytes.extend(crc32(&checked).to_be_bytes());
    }
    Thumbnail { format: ImageFormat::Png, bytes }
}

fn adler32(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1u32, 0u32), |(a, b), &byte| {
        let a = (a + u32::from(byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    b << 16 | a
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    })
}
