//! Which input pixel lies under which position of a kernel.

use super::Conv;
use crate::BLOCK;

/// Rows of `n` images.
///
/// # Panics
/// If there are none, or more than offsets of 32 bits reach.
pub(crate) fn rows((height, width): (usize, usize), n: usize) -> usize {
    let rows = height.checked_mul(width).and_then(|pixels| pixels.checked_mul(n));
    let rows = rows.filter(|rows| *rows <= u32::MAX as usize / BLOCK).expect("activation too large");
    assert!(rows > 0, "empty input");
    rows
}

/// What a convolution, or its input gradient, reads: images of one size.
#[derive(Clone, Copy)]
pub(crate) struct Geometry {
    pub conv: Conv,
    /// Height and width, of images without their padding.
    size: (usize, usize),
    /// Whether it is the gradient of the convolution's output, which gives that of the input.
    turned: bool,
}

impl Geometry {
    /// The input of `conv`.
    pub fn new(conv: Conv, size: (usize, usize)) -> Self {
        Self { conv, size, turned: false }
    }

    /// The gradient of the output of `conv`.
    pub fn gradient(conv: Conv, size: (usize, usize)) -> Self {
        Self { conv, size, turned: true }
    }

    /// Whether it is a gradient.
    pub fn is_gradient(&self) -> bool {
        self.turned
    }

    /// Channels.
    pub fn channels(&self) -> usize {
        if self.turned { self.conv.cout } else { self.conv.cin }
    }

    /// Pixels of `n` images, for RGB images those of their padding too.
    ///
    /// # Panics
    /// As [`rows`].
    pub fn pixels(&self, n: usize) -> usize {
        rows(self.stored(), n)
    }

    /// Height and width as they lie in memory.
    fn stored(&self) -> (usize, usize) {
        let pad = if self.conv.rgb { 2 * (self.conv.kernel / 2) } else { 0 };
        (self.size.0 + pad, self.size.1 + pad)
    }

    /// Number of the pixel under a tap of a pixel of what is computed (for RGB images, the first one of a kernel's row);
    /// `None`: padding.
    pub fn source(&self, (y, x): (usize, usize), tap: usize) -> Option<usize> {
        let Conv { kernel, stride, rgb, .. } = self.conv;
        let ((height, width), pad) = (self.stored(), kernel / 2);
        if rgb {
            return Some((y * stride + tap) * width + x * stride);
        }
        let under = |at: usize, offset: usize| (at * stride + offset).checked_sub(pad);
        // The output whose tap lies on an input.
        let over = |at: usize, offset: usize| {
            let at = (at + pad).checked_sub(offset)?;
            at.is_multiple_of(stride).then_some(at / stride)
        };
        let find = |at, offset| if self.turned { over(at, offset) } else { under(at, offset) };
        let (y, x) = (find(y, tap / kernel)?, find(x, tap % kernel)?);
        (y < height && x < width).then_some(y * width + x)
    }
}
