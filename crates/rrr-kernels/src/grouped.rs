//! Activations of several tensors of one shape in blocked layout: what inference in few bits stores.

use crate::{Aligned, Element};
use std::ops::Range;

/// Numbers that [`Grouped`] activations are made of.
pub trait Stored: Element + Default {
    /// Numbers of a plane of `rows` rows of `width` channels and a row of zeros.
    fn plane_len(rows: usize, width: usize) -> usize;
}

/// `channels` x `height` x `width` numbers for each of `n` images and each group, in blocks of channels:
/// `[group][block][row][channel of the block]` with `row = pixel * n + image`, and a row of zeros after each block's
/// rows. *Groups* are independent tensors: the branches of a network. Memory only ever grows, so that one activation
/// can serve many layers.
#[derive(Clone)]
pub struct Grouped<T: Stored> {
    data: Aligned<T>,
    /// Channels of a block.
    block: usize,
    groups: usize,
    channels: usize,
    height: usize,
    width: usize,
    n: usize,
}

impl<T: Stored> Grouped<T> {
    /// An empty one with blocks of `block` channels.
    pub(crate) fn with_block(block: usize) -> Self {
        Self { data: Aligned::default(), block, groups: 0, channels: 0, height: 0, width: 0, n: 0 }
    }

    /// Channels of a block.
    pub fn block(&self) -> usize {
        self.block
    }

    /// Gives it another shape; the values are unspecified afterwards, but for the zero rows.
    pub fn reshape(&mut self, groups: usize, channels: usize, (height, width): (usize, usize), n: usize) {
        (self.groups, self.channels, self.height, self.width, self.n) = (groups, channels, height, width, n);
        let len = groups * self.group_len();
        if self.data.len() < len {
            self.data = Aligned::zeros(len);
            return;
        }
        let (plane, zero, block) = (self.plane_len(), self.rows() * self.block, self.block);
        for plane in self.data_mut().chunks_exact_mut(plane) {
            plane[zero..zero + block].fill(T::default());
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
        T::plane_len(self.rows(), self.block)
    }

    /// Numbers in a group.
    pub fn group_len(&self) -> usize {
        self.channels.div_ceil(self.block) * self.plane_len()
    }

    /// All groups' planes.
    pub fn data(&self) -> &[T] {
        &self.data[..self.groups * self.group_len()]
    }

    /// All groups' planes.
    pub fn data_mut(&mut self) -> &mut [T] {
        let len = self.groups * self.group_len();
        &mut self.data[..len]
    }

    /// All groups' planes, where the row of an image's first pixel comes first: what is put out for `images` goes there.
    ///
    /// # Panics
    /// If there are no such images.
    pub fn images_mut(&mut self, images: Range<usize>) -> &mut [T] {
        assert!(images.end <= self.n, "there are {} images", self.n);
        let start = images.start * self.block;
        &mut self.data_mut()[start..]
    }

    /// Where a value lies in [`data`](Self::data).
    ///
    /// # Panics
    /// If there is no such value.
    pub(crate) fn index(&self, group: usize, image: usize, channel: usize, pixel: usize) -> usize {
        assert!(image < self.n && channel < self.channels && pixel < self.height * self.width);
        let plane = group * self.group_len() + channel / self.block * self.plane_len();
        plane + (pixel * self.n + image) * self.block + channel % self.block
    }
}
