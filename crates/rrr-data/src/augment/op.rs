//! Operations with their parameters.

use super::filter::{self, MotionKernel};
use super::geometric::{self, Border};
use super::{Scratch, jpeg, noise, pointwise};
use crate::rng::SeededRng;
use rrr_kernels::{Isa, Vectorize};

/// An operation and its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// Shear by the same angle on both axes about the centre, black outside.
    Shear {
        /// Degrees.
        degrees: f64,
    },
    /// Rotation and scaling about the centre, then a shift; reflected outside.
    ShiftScaleRotate {
        /// Counter-clockwise, in degrees.
        degrees: f64,
        /// Above 1 enlarges.
        scale: f64,
        /// To the right, relative to the side.
        dx: f64,
        /// Downwards, relative to the side.
        dy: f64,
    },
    /// Adds a level to each channel.
    RgbShift {
        /// Added to red, green and blue.
        shift: [f64; 3],
    },
    /// `contrast * p + 255 * brightness`.
    BrightnessContrast {
        /// Factor.
        contrast: f64,
        /// Relative to 255.
        brightness: f64,
    },
    /// Keeps the highest bits.
    Posterize {
        /// Bits kept, 0 to 8.
        bits: u32,
    },
    /// Mean along a short line.
    MotionBlur {
        /// The line.
        kernel: MotionKernel,
    },
    /// JPEG compression and decompression.
    Jpeg {
        /// 1 to 100.
        quality: u32,
    },
    /// Independent normal noise on every value.
    GaussianNoise {
        /// Standard deviation on the scale of 0 to 255.
        sigma: f64,
        /// Seed of the noise.
        seed: u64,
    },
    /// Histogram equalisation of each channel.
    Equalize,
    /// Inverts levels from a threshold on.
    Solarize {
        /// The lowest level inverted.
        threshold: u8,
    },
    /// Blends in a sharpened image.
    Sharpen {
        /// Share of the sharpened image.
        alpha: f64,
        /// Added to the weight 8 of the sharpened image's centre.
        lightness: f64,
    },
    /// 255 minus every value.
    Invert,
    /// Left and right exchanged.
    FlipHorizontal,
}

impl Op {
    /// One of the paper's twelve operations, uniformly, with its published parameters.
    pub fn sample_paper(rng: &mut SeededRng) -> Self {
        match rng.below(12) {
            0 => Self::Shear { degrees: 10.0 },
            1 => Self::ShiftScaleRotate {
                degrees: rng.uniform(-30.0, 30.0),
                scale: rng.uniform(0.99, 1.01),
                dx: rng.uniform(-0.1, 0.1),
                dy: rng.uniform(-0.1, 0.1),
            },
            2 => Self::RgbShift { shift: std::array::from_fn(|_| rng.uniform(-15.0, 15.0)) },
            3 => Self::BrightnessContrast {
                contrast: 1.0 + rng.uniform(-0.2, 0.2),
                brightness: rng.uniform(-0.2, 0.2),
            },
            4 => Self::Posterize { bits: 4 },
            5 => Self::MotionBlur { kernel: MotionKernel::sample(rng) },
            6 => Self::Jpeg { quality: 99 + rng.below(2) as u32 },
            7 => Self::GaussianNoise { sigma: rng.uniform(10.0, 50.0).sqrt(), seed: rng.next_u64() },
            8 => Self::Equalize,
            9 => Self::Solarize { threshold: 128 },
            10 => Self::Sharpen { alpha: rng.uniform(0.2, 0.5), lightness: rng.uniform(0.5, 1.0) },
            _ => Self::Invert,
        }
    }

    /// A small shift and scale.
    pub(super) fn sample_light_shift(rng: &mut SeededRng) -> Self {
        Self::ShiftScaleRotate {
            degrees: 0.0,
            scale: rng.uniform(0.9, 1.1),
            dx: rng.uniform(-0.0625, 0.0625),
            dy: rng.uniform(-0.0625, 0.0625),
        }
    }

    /// Applies the operation to an image `[size, size, 3]` in place.
    ///
    /// # Panics
    /// If `image` is not `size * size * 3` long.
    pub fn apply(&self, image: &mut [u8], size: usize, scratch: &mut Scratch) {
        self.apply_on(Isa::active(), image, size, scratch);
    }

    fn apply_on(self, isa: Isa, image: &mut [u8], size: usize, scratch: &mut Scratch) {
        assert_eq!(image.len(), size * size * 3, "image must hold size x size RGB pixels");
        isa.vectorize(Application { op: self, image, size, scratch });
    }
}

/// An operation to be applied, compiled for every instruction set with all that it calls, unless that gains nothing.
struct Application<'a> {
    op: Op,
    image: &'a mut [u8],
    size: usize,
    scratch: &'a mut Scratch,
}

impl Vectorize for Application<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { op, image, size, scratch } = self;
        match op {
            Op::Shear { degrees } => {
                let matrix = geometric::shear_matrix(size, degrees);
                geometric::warp(image, size, &matrix, Border::Black, &mut scratch.warp);
            }
            Op::ShiftScaleRotate { degrees, scale, dx, dy } => {
                let matrix = geometric::shift_scale_rotate_matrix(size, degrees, scale, dx, dy);
                geometric::warp(image, size, &matrix, Border::Reflect, &mut scratch.warp);
            }
            Op::RgbShift { shift } => pointwise::rgb_shift(image, shift),
            Op::BrightnessContrast { contrast, brightness } => {
                pointwise::brightness_contrast(image, contrast, brightness);
            }
            Op::Posterize { bits } => pointwise::posterize(image, bits),
            Op::MotionBlur { kernel } => filter::motion_blur(image, size, &kernel, scratch),
            Op::Jpeg { quality } => jpeg::compress(image, size, quality, &mut scratch.jpeg),
            Op::GaussianNoise { sigma, seed } => noise::gaussian(image, sigma, seed, &mut scratch.levels),
            Op::Equalize => pointwise::equalize(image),
            Op::Solarize { threshold } => pointwise::solarize(image, threshold),
            Op::Sharpen { alpha, lightness } => filter::sharpen(image, size, alpha, lightness, scratch),
            Op::Invert => pointwise::invert(image),
            Op::FlipHorizontal => geometric::flip_horizontal(image, size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn op(kind: u64, rng: &mut SeededRng) -> Op {
        match kind {
            0 => Op::Shear { degrees: rng.uniform(-60.0, 60.0) },
            1 => Op::ShiftScaleRotate {
                degrees: rng.uniform(-180.0, 180.0),
                scale: rng.uniform(0.1, 3.0),
                dx: rng.uniform(-2.0, 2.0),
                dy: rng.uniform(-2.0, 2.0),
            },
            2 => Op::Jpeg { quality: 1 + rng.below(100) as u32 },
            3 => Op::GaussianNoise { sigma: rng.uniform(0.0, 60.0), seed: rng.next_u64() },
            4 => Op::FlipHorizontal,
            _ => Op::sample_paper(rng),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn instruction_sets_agree(size in 1usize..70, seed: u64) {
            let mut rng = SeededRng::new(seed, "test", "", 0, 0);
            let mut image = vec![0; size * size * 3];
            rng.fill(&mut image);
            for kind in 0..17 {
                let op = op(kind, &mut rng);
                let apply = |isa: Isa| {
                    let mut image = image.clone();
                    op.apply_on(isa, &mut image, size, &mut Scratch::default());
                    image
                };
                let portable = apply(Isa::Portable);
                for isa in Isa::available() {
                    prop_assert_eq!(&apply(isa), &portable, "{} differs in {:?}", isa, op);
                }
            }
        }
    }
}
