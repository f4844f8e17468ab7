//! Activations of bf16 in blocked layout.

use super::super::tiles::bf16;
use super::{WIDTH, plane_rows};
use crate::{Activation, Aligned, BLOCK, Pool};

/// `channels` x `height` x `width` numbers for each of `n` images and each group, as bf16, in blocks of 32 channels:
/// `[group][channels / 32][row][32]` with `row = pixel * n + image`, and a row of zeros after each block's rows.
/// Memory only ever grows, so that one activation can serve many layers.
#[derive(Clone, Default)]
pub struct Bf16Activation {
    data: Aligned<u16>,
    groups: usize,
    channels: usize,
    height: usize,
    width: usize,
    n: usize,
}

impl Bf16Activation {
    /// Gives it another shape; the values are unspecified afterwards, but for the zero rows.
    pub fn reshape(&mut self, groups: usize, channels: usize, (height, width): (usize, usize), n: usize) {
        (self.groups, self.channels, self.height, self.width, self.n) = (groups, channels, height, width, n);
        let len = groups * self.group_len();
        if self.data.len() < len {
            self.data = Aligned::zeros(len);
            return;
        }
        let (plane, zero) = (self.plane_len(), self.rows() * WIDTH);
        for plane in self.data_mut().chunks_exact_mut(plane) {
            plane[zero..zero + WIDTH].fill(0);
        }
    }

    /// Bytes that it holds: what the largest shape so far needed.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.data[..])
    }

    /// Number of groups.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Channels of a group, without padding.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Height and width in pixels.
    pub fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// Number of images.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Pixels x images.
    pub fn rows(&self) -> usize {
        self.height * self.width * self.n
    }

    /// Numbers in a plane, its zero row included.
    pub fn plane_len(&self) -> usize {
        plane_rows(self.rows()) * WIDTH
    }

    /// Numbers in a group.
    pub fn group_len(&self) -> usize {
        self.channels.div_ceil(WIDTH) * self.plane_len()
    }

    /// All groups' planes.
    pub fn data(&self) -> &[u16] {
        &self.data[..self.groups * self.group_len()]
    }

    /// All groups' planes.
    pub fn data_mut(&mut self) -> &mut [u16] {
        let len = self.groups * self.group_len();
        &mut self.data[..len]
    }

    /// A value.
    ///
    /// # Panics
    /// If there is no such value.
    pub fn get(&self, group: usize, image: usize, channel: usize, pixel: usize) -> f32 {
        widen(self.data()[self.index(group, image, channel, pixel)])
    }

    /// Sets a value, rounded.
    ///
    /// # Panics
    /// If there is no such value.
    pub fn set(&mut self, group: usize, image: usize, channel: usize, pixel: usize, value: f32) {
        let at = self.index(group, image, channel, pixel);
        self.data_mut()[at] = bf16(value) as u16;
    }

    fn index(&self, group: usize, image: usize, channel: usize, pixel: usize) -> usize {
        assert!(image < self.n && channel < self.channels && pixel < self.height * self.width);
        let plane = group * self.group_len() + channel / WIDTH * self.plane_len();
        plane + (pixel * self.n + image) * WIDTH + channel % WIDTH
    }

    /// Copies `images` in, the first of which becomes image `at`.
    ///
    /// # Panics
    /// If they have another size, number of channels or groups, or go beyond the last image.
    pub fn put(&mut self, at: usize, images: &Self, pool: &Pool) {
        let shape = |a: &Self| (a.groups, a.channels, a.height, a.width);
        assert_eq!(shape(self), shape(images), "activations differ in shape");
        assert!(at + images.n <= self.n, "there are {} images", self.n);
        let (from, to) = (images.n * WIDTH, self.n * WIDTH);
        let (len, images_rows, plane) = (images.plane_len(), images.rows(), self.plane_len());
        let rows = self.rows() * WIDTH;
        pool.for_each(self.data_mut().chunks_exact_mut(plane), |i, plane| {
            let images = &images.data()[i * len..][..images_rows * WIDTH];
            for (from, to) in images.chunks_exact(from).zip(plane[..rows].chunks_exact_mut(to)) {
                to[at * WIDTH..][..from.len()].copy_from_slice(from);
            }
        });
    }

    /// Copies the images of a group to f32, where the first becomes image `at`.
    ///
    /// # Panics
    /// If they have another size or number of channels, or go beyond the last image.
    pub fn put_into(&self, group: usize, to: &mut Activation, at: usize, pool: &Pool) {
        let shape = (to.channels(), to.height(), to.width());
        assert_eq!((self.channels, self.height, self.width), shape, "activations differ in shape");
        let (n, all, pixels) = (self.n, to.n(), self.height * self.width);
        assert!(at + n <= all, "there are {all} images");
        let group = &self.data()[group * self.group_len()..];
        pool.for_each(to.planes_mut(), |block, plane| {
            let from = &group[block * BLOCK / WIDTH * self.plane_len()..];
            let half = block * BLOCK % WIDTH;
            for pixel in 0..pixels {
                let from = from[pixel * n * WIDTH..].chunks_exact(WIDTH);
                let to = plane[(pixel * all + at) * BLOCK..][..n * BLOCK].chunks_exact_mut(BLOCK);
                for (to, from) in to.zip(from) {
                    to.iter_mut().zip(&from[half..]).for_each(|(to, from)| *to = widen(*from));
                }
            }
        });
    }
}

/// The value of a bf16.
#[inline(always)]
pub fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}
