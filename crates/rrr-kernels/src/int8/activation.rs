//! Activations of bytes in blocked layout.

use crate::{BLOCK, Buffer, blocks};

/// `channels` x `height` x `width` bytes for each of `n` images and each group, laid out as the [module](super)
/// says. Memory only ever grows, so that one activation can serve many layers.
#[derive(Clone, Default)]
pub struct Int8Activation {
    data: Buffer,
    groups: usize,
    channels: usize,
    height: usize,
    width: usize,
    n: usize,
}

impl Int8Activation {
    /// Gives it another shape; the values are unspecified afterwards, but for the zero rows.
    pub fn reshape(&mut self, groups: usize, channels: usize, (height, width): (usize, usize), n: usize) {
        (self.groups, self.channels, self.height, self.width, self.n) = (groups, channels, height, width, n);
        let bytes = groups * self.group_len();
        if self.data.len() * size_of::<f32>() < bytes {
            self.data = Buffer::zeros(bytes.div_ceil(size_of::<f32>()));
            return;
        }
        let (plane, zero) = (self.plane_len(), self.rows() * BLOCK);
        for plane in self.data_mut().chunks_exact_mut(plane) {
            plane[zero..zero + BLOCK].fill(0);
        }
    }

    /// Bytes that it holds: what the largest shape so far needed.
    pub fn bytes(&self) -> usize {
        self.data.as_bytes().len()
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

    /// Bytes in a plane, its zero row included.
    pub fn plane_len(&self) -> usize {
        super::plane_len(self.rows())
    }

    /// Bytes in a group.
    pub fn group_len(&self) -> usize {
        blocks(self.channels) * self.plane_len()
    }

    /// All groups' planes.
    pub fn data(&self) -> &[u8] {
        &self.data.as_bytes()[..self.groups * self.group_len()]
    }

    /// All groups' planes.
    pub fn data_mut(&mut self) -> &mut [u8] {
        let len = self.groups * self.group_len();
        &mut self.data.as_bytes_mut()[..len]
    }

    /// A value.
    ///
    /// # Panics
    /// If there is no such value.
    pub fn get(&self, group: usize, image: usize, channel: usize, pixel: usize) -> u8 {
        self.data()[self.index(group, image, channel, pixel)]
    }

    /// Sets a value.
    ///
    /// # Panics
    /// If there is no such value.
    pub fn set(&mut self, group: usize, image: usize, channel: usize, pixel: usize, value: u8) {
        let at = self.index(group, image, channel, pixel);
        self.data_mut()[at] = value;
    }

    fn index(&self, group: usize, image: usize, channel: usize, pixel: usize) -> usize {
        assert!(image < self.n && channel < self.channels && pixel < self.height * self.width);
        let plane = group * self.group_len() + channel / BLOCK * self.plane_len();
        plane + (pixel * self.n + image) * BLOCK + channel % BLOCK
    }
}
