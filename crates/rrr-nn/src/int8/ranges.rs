//! What the channels of an activation are like.

use rrr_kernels::{Activation, BLOCK, Pool};

/// Largest value and sum of a channel.
#[derive(Clone, Default)]
struct Channel {
    max: f32,
    sum: f64,
}

/// The ranges of an activation's channels. Activations are never negative: all are behind a ReLU.
#[derive(Clone)]
pub(super) struct Ranges {
    channels: Vec<Channel>,
    /// Values per channel.
    values: u64,
}

impl Ranges {
    pub fn new(channels: usize) -> Self {
        Self { channels: vec![Channel::default(); channels], values: 0 }
    }

    /// Takes in all values of an activation; what is not finite does not count.
    pub fn add(&mut self, a: &Activation, pool: &Pool) {
        self.values += a.rows() as u64;
        let (planes, plane, rows) = (a.data(), a.plane_len(), a.rows());
        pool.for_each_chunk(&mut self.channels, BLOCK, |block, channels| {
            let (rows, _) = planes[block * plane..][..rows * BLOCK].as_chunks::<BLOCK>();
            for row in rows {
                for (channel, v) in channels.iter_mut().zip(row).filter(|(_, v)| v.is_finite()) {
                    channel.max = channel.max.max(*v);
                    channel.sum += f64::from(*v);
                }
            }
        });
    }

    /// A step for every channel: its largest value is `levels` steps.
    pub fn steps(&self, levels: u8) -> Vec<f32> {
        let largest = self.channels.iter().fold(0.0, |m: f32, c| m.max(c.max));
        // A channel that was never above zero may be later; the finest steps would only make weights tiny.
        let floor = if largest > 0.0 { largest / 1024.0 } else { 1.0 };
        self.channels.iter().map(|c| c.max.max(floor) / f32::from(levels)).collect()
    }

    /// Mean of every channel.
    pub fn means(&self) -> Vec<f32> {
        self.channels.iter().map(|c| (c.sum / self.values as f64) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_has_its_range() {
        let mut a = Activation::zeros(3, 1, 2, 1);
        a.set_nchw(&[1.0, 3.0, 0.0, 0.0, f32::NAN, 0.5]);
        let mut ranges = Ranges::new(3);
        ranges.add(&a, &Pool::new(1));
        a.set_nchw(&[2.0, 2.0, 0.0, 0.0, 0.25, 0.25]);
        ranges.add(&a, &Pool::new(1));
        assert_eq!(ranges.steps(100), [0.03, 3.0 / 1024.0 / 100.0, 0.005]);
        assert_eq!(ranges.means(), [2.0, 0.0, 0.25]);
        assert_eq!(Ranges::new(2).steps(1), [1.0; 2]);
    }
}
