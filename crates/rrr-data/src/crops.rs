//! Square crops of unlabelled pictures.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::ImageReader;
use rayon::prelude::*;

use crate::decode::{self, Limits, RgbImage};
use crate::error::BadImage;
use crate::resize::Resize;
use crate::rng::SeededRng;
use crate::workers::Workers;

/// Most crops of one picture for each one of a picture no larger than the crops.
const LARGEST_SHARE: f64 = 64.0;

/// Which crops to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CropOptions {
    /// Number of crops, over all pictures.
    pub count: usize,
    /// Side of the crops in pixels.
    pub size: usize,
    /// Seed of their places.
    pub seed: u64,
    /// What is too much to decode.
    pub limits: Limits,
}

/// Crops, those of a picture one after another, pictures in the order given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Crops {
    /// `[n, size, size, 3]`, RGB.
    pub pixels: Vec<u8>,
    /// Number of crops.
    pub n: usize,
    /// Pictures that gave crops.
    pub pictures: usize,
    /// Pictures that could not be read.
    pub bad: Vec<BadImage>,
}

impl Crops {
    /// Takes crops of pictures, each of which gives a number in proportion to its area, up to 64 times as many as one
    /// that is no larger than the crops.
    ///
    /// A crop is a square with a side between that of the result and the picture's shorter one (log-uniform), anywhere
    /// in the picture, in half of the cases mirrored, and resized with antialiasing. Places are a function of the
    /// seed and of the picture's place in `paths`. Unreadable pictures are left out; if others remain, they do not make
    /// up for them.
    ///
    /// # Panics
    /// If the size is 0.
    pub fn take(paths: &[PathBuf], options: CropOptions, workers: &Workers) -> Self {
        assert!(options.size > 0, "crops must have a size");
        let weights: Vec<f64> =
            workers.run(|| paths.par_iter().map(|path| weight(path, options.size)).collect());
        let shares = share_out(&weights, options.count);
        let taken: Vec<Result<Vec<u8>, BadImage>> = workers.run(|| {
            let pictures = paths.par_iter().zip(shares).enumerate();
            pictures.map(|(i, (path, count))| crops_of(path, i, count, &options)).collect()
        });
        let mut crops = Self::default();
        for result in taken {
            match result {
                Ok(pixels) => {
                    crops.pictures += usize::from(!pixels.is_empty());
                    crops.pixels.extend_from_slice(&pixels);
                }
                Err(bad) => crops.bad.push(bad),
            }
        }
        crops.n = crops.pixels.len() / (options.size * options.size * 3);
        crops
    }

    /// The pixels of all crops, which have a side of `from` pixels, with one of `to`.
    ///
    /// # Panics
    /// If a side is 0, or `from` is not that of the crops.
    pub fn resized(&self, from: usize, to: usize, resize: Resize, workers: &Workers) -> Vec<u8> {
        assert_eq!(self.pixels.len(), self.n * from * from * 3, "the crops have another size");
        let mut pixels = vec![0; self.n * to * to * 3];
        workers.run(|| {
            let both =
                pixels.par_chunks_exact_mut(to * to * 3).zip(self.pixels.par_chunks_exact(from * from * 3));
            both.for_each(|(out, crop)| {
                let crop = RgbImage { width: from, height: from, pixels: crop.to_vec() };
                crop.resize_into(out, to, resize);
            });
        });
        pixels
    }
}

/// How many crops a picture is worth; nothing is decoded. Of one whose size is unknown the decoder will say why.
fn weight(path: &Path, size: usize) -> f64 {
    let dimensions = fs::read(path).ok().and_then(|bytes| {
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().ok()?.into_dimensions().ok()
    });
    let area = dimensions.map_or(0.0, |(w, h)| f64::from(w) * f64::from(h));
    (area / (size * size) as f64).clamp(1.0, LARGEST_SHARE)
}

/// Whole numbers in proportion to `weights` that sum to `count` (to 0 without weights).
fn share_out(weights: &[f64], count: usize) -> Vec<usize> {
    let total: f64 = weights.iter().sum();
    let (mut sum, mut given) = (0.0, 0);
    weights
        .iter()
        .map(|weight| {
            sum += weight;
            let until = (count as f64 * sum / total).round() as usize;
            until - std::mem::replace(&mut given, until)
        })
        .collect()
}

fn crops_of(path: &Path, index: usize, count: usize, options: &CropOptions) -> Result<Vec<u8>, BadImage> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let picture = decode::read(path, &options.limits)?;
    let bytes = options.size * options.size * 3;
    let mut pixels = vec![0; count * bytes];
    for (i, out) in pixels.chunks_exact_mut(bytes).enumerate() {
        let mut rng = SeededRng::new(options.seed, "crop", "", index as u64, i as u64);
        let shorter = picture.width.min(picture.height);
        let ratio = (options.size.min(shorter) as f64 / shorter as f64).powf(rng.unit());
        let side = ((shorter as f64 * ratio).round() as usize).clamp(1, shorter);
        let left = rng.below((picture.width - side + 1) as u64) as usize;
        let top = rng.below((picture.height - side + 1) as u64) as usize;
        let mirrored = rng.below(2) == 1;
        square(&picture, left, top, side).resize_into(out, options.size, Resize::Antialias);
        if mirrored {
            for row in out.as_chunks_mut::<3>().0.chunks_exact_mut(options.size) {
                row.reverse();
            }
        }
    }
    Ok(pixels)
}

fn square(picture: &RgbImage, left: usize, top: usize, side: usize) -> RgbImage {
    let rows = picture.pixels.chunks_exact(3 * picture.width).skip(top).take(side);
    let pixels = rows.flat_map(|row| &row[3 * left..3 * (left + side)]).copied().collect();
    RgbImage { width: side, height: side, pixels }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write(folder: &Path, name: &str, (width, height): (u32, u32)) -> PathBuf {
        let path = folder.join(name);
        let picture = image::RgbImage::from_fn(width, height, |x, y| {
            image::Rgb([(255 * x / width) as u8, (255 * y / height) as u8, 7])
        });
        picture.save(&path).unwrap();
        path
    }

    fn options(count: usize) -> CropOptions {
        CropOptions { count, size: 16, seed: 3, limits: Limits::default() }
    }

    #[test]
    fn larger_pictures_give_more_crops_whatever_the_threads() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [write(folder.path(), "a.png", (16, 16)), write(folder.path(), "b.png", (64, 48))];
        let take = |threads| Crops::take(&paths, options(26), &Workers::new(threads).unwrap());
        let crops = take(1);
        assert_eq!((crops.n, crops.pictures, crops.bad.len()), (26, 2, 0));
        assert_eq!(crops, take(3));
        // 2 crops of the small picture, then 24 of the one with 12 times its area.
        let bytes = 16 * 16 * 3;
        let plain = decode::read(&paths[0], &Limits::default()).unwrap().pixels;
        let mut mirrored = plain.clone();
        for row in mirrored.as_chunks_mut::<3>().0.chunks_exact_mut(16) {
            row.reverse();
        }
        for crop in crops.pixels[..2 * bytes].chunks_exact(bytes) {
            assert!(crop == plain || crop == mirrored);
        }
        assert_ne!(&crops.pixels[2 * bytes..3 * bytes], &crops.pixels[3 * bytes..4 * bytes]);
    }

    #[test]
    fn unreadable_pictures_are_named_and_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let bad = folder.path().join("bad.png");
        fs::write(&bad, b"no picture").unwrap();
        let paths = [bad.clone(), write(folder.path(), "a.png", (20, 20))];
        let crops = Crops::take(&paths, options(10), &Workers::new(1).unwrap());
        assert_eq!((crops.pictures, crops.bad.len()), (1, 1));
        assert_eq!(crops.bad[0].path, bad);
        assert!(crops.n > 0 && crops.n < 10);
    }

    proptest! {
        #[test]
        fn shares_sum_up_and_follow_the_weights(
            weights in prop::collection::vec(1.0f64..64.0, 1..40),
            count in 0usize..5000,
        ) {
            let shares = share_out(&weights, count);
            prop_assert_eq!(shares.iter().sum::<usize>(), count);
            let total: f64 = weights.iter().sum();
            for (share, weight) in shares.iter().zip(&weights) {
                prop_assert!((*share as f64 - count as f64 * weight / total).abs() <= 1.0 + 1e-6);
            }
        }
    }
}
