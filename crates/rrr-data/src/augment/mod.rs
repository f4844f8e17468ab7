//! Seeded augmentation of 8-bit RGB images.

use crate::rng::SeededRng;

/// What is done to every training image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Nothing.
    #[default]
    None,
}

/// Memory that operations need beside the image. Keep one per thread.
#[derive(Debug, Default)]
pub struct Scratch {}

impl Policy {
    /// Augments one image `[size, size, 3]` in place with choices drawn from `rng`.
    pub fn apply(self, _image: &mut [u8], _size: usize, _rng: &mut SeededRng, _scratch: &mut Scratch) {
        match self {
            Self::None => {}
        }
    }
}
