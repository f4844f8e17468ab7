//! Images as the quantised first convolution reads them.

use crate::{Images, Normalize, Pixels};
use rrr_kernels::int8::INT8_IMAGE_SLACK;
use rrr_kernels::{Buffer, Isa, Pool, Vectorize};

/// Zero padding of the 7x7 convolution.
const PAD: usize = 3;

/// The mean of a channel in halved pixels `p / 2`, which stand for `p` on average when they are taken as
/// `2 * (p / 2) + 0.5`.
pub(super) fn halved_mean(mean: f32) -> f32 {
    (255.0 * mean - 0.5) / 2.0
}

/// Halved pixels (7 bits are what convolutions take) with a border that stands for zero, `[n][height + 6][width + 6][3]` and a few bytes more.
#[derive(Default)]
pub(super) struct PaddedPixels {
    data: Buffer,
    n: usize,
    size: (usize, usize),
}

impl PaddedPixels {
    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.data.as_bytes().len()
    }

    /// Takes in a batch; `normalize` says what the pixels mean to the network.
    ///
    /// # Panics
    /// If the number of pixels is not what the sizes say.
    pub fn load(&mut self, images: &Images<'_>, normalize: &Normalize, isa: Isa, pool: &Pool) {
        let (n, height, width) = (images.n, images.height, images.width);
        let (padded_width, row) = (width + 2 * PAD, width * 3);
        let len = (height + 2 * PAD) * padded_width * 3;
        let bytes = n * len + INT8_IMAGE_SLACK;
        let too_short = self.data.as_bytes().len() < bytes;
        if too_short {
            self.data = Buffer::zeros(bytes.div_ceil(size_of::<f32>()));
        }
        if too_short || self.size != (height, width) {
            let black = normalize.mean.map(|mean| to_pixel(halved_mean(mean)));
            let (pixels, _) = self.data.as_bytes_mut().as_chunks_mut::<3>();
            pixels.fill(black);
        }
        (self.size, self.n) = ((height, width), n);
        let count = match images.pixels {
            Pixels::U8 { data, .. } => data.len(),
            Pixels::F32(data) => data.len(),
        };
        assert_eq!(count, n * height * row, "pixels do not match the sizes");
        pool.for_each_chunk(&mut self.data.as_bytes_mut()[..n * len], len, |image, padded| {
            for y in 0..height {
                let to = &mut padded[((y + PAD) * padded_width + PAD) * 3..][..row];
                let from = (image * height + y) * row;
                match images.pixels {
                    Pixels::U8 { data, normalize: n } if n == *normalize => {
                        to.iter_mut().zip(&data[from..from + row]).for_each(|(to, p)| *to = p / 2);
                    }
                    Pixels::U8 { data, normalize: n } => {
                        for (i, (to, p)) in to.iter_mut().zip(&data[from..from + row]).enumerate() {
                            let value = (f32::from(*p) / 255.0 - n.mean[i % 3]) / n.std[i % 3];
                            let pixel = 255.0 * (value * normalize.std[i % 3] + normalize.mean[i % 3]);
                            *to = to_pixel(pixel) / 2;
                        }
                    }
                    Pixels::F32(data) => {
                        let (scale, shift) =
                            (normalize.std.map(|s| 255.0 * s), normalize.mean.map(|m| 255.0 * m));
                        isa.vectorize(Halve { from: &data[from..from + row], to, scale, shift });
                    }
                }
            }
        });
    }

    pub fn data(&self) -> &[u8] {
        let len = (self.size.0 + 2 * PAD) * (self.size.1 + 2 * PAD) * 3;
        &self.data.as_bytes()[..self.n * len + INT8_IMAGE_SLACK]
    }
}

/// Pixels of channels that are converted at a time.
const GROUP: usize = 48;

/// Halves of the pixels nearest to `from * scale + shift`.
struct Halve<'a> {
    from: &'a [f32],
    to: &'a mut [u8],
    scale: [f32; 3],
    shift: [f32; 3],
}

impl Vectorize for Halve<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { from, to, scale, shift } = self;
        let (scale, shift): ([f32; GROUP], [f32; GROUP]) =
            (std::array::from_fn(|i| scale[i % 3]), std::array::from_fn(|i| shift[i % 3]));
        let convert = |from: f32, i: usize| to_pixel(from * scale[i] + shift[i]) / 2;
        let ((groups, rest), (from_groups, from_rest)) =
            (to.as_chunks_mut::<GROUP>(), from.as_chunks::<GROUP>());
        for (to, from) in groups.iter_mut().zip(from_groups) {
            for i in 0..GROUP {
                to[i] = convert(from[i], i);
            }
        }
        for (i, (to, from)) in rest.iter_mut().zip(from_rest).enumerate() {
            *to = convert(*from, i);
        }
    }
}

/// The nearest pixel value, ties to even.
#[inline(always)]
fn to_pixel(value: f32) -> u8 {
    /// Leaves the nearest integer in the low bits of a float.
    const ROUND: f32 = 8_388_608.0;
    let value = if value > 0.0 { value } else { 0.0 };
    let value = if value < 255.0 { value } else { 255.0 };
    (value + ROUND).to_bits() as u8
}
