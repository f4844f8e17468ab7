//! What the channels of an activation are like.

use rrr_kernels::{Activation, BLOCK, Pool};

/// Largest value and sum of a channel, and how many values are above zero.
#[derive(Clone, Default)]
struct Channel {
    max: f32,
    sum: f64,
    above_zero: u64,
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
                    channel.above_zero += u64::from(*v > 0.0);
                }
            }
        });
    }

    /// A step for every channel: its largest value is at most `levels` steps.
    ///
    /// Other images have larger values, above all in channels that are small here because nothing has excited them yet,
    /// and what is cut off costs more than coarser steps do. So the range of a channel is the largest value of all, times
    /// its own share of that to the power of 5/8 (square roots, which every CPU rounds in the same way).
    pub fn steps(&self, levels: u8) -> Vec<f32> {
        let largest = self.channels.iter().fold(0.0, |m: f32, c| m.max(c.max));
        let largest = if largest > 0.0 { largest } else { 1.0 };
        let range = |c: &Channel| {
            // A channel that was never above zero may be later; the finest steps would only make weights tiny.
            let root = (c.max / largest).max(1.0 / 1024.0).sqrt();
            largest * root * root.sqrt().sqrt()
        };
        self.channels.iter().map(|c| range(c) / f32::from(levels)).collect()
    }

    /// Mean of every channel.
    pub fn means(&self) -> Vec<f32> {
        self.channels.iter().map(|c| (c.sum / self.values as f64) as f32).collect()
    }

    /// Share of every channel's values that are above zero.
    pub fn shares_above_zero(&self) -> Vec<f64> {
        self.channels.iter().map(|c| c.above_zero as f64 / self.values as f64).collect()
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
        let power = |x: f64| (3.0 * x.powf(0.625) / 100.0) as f32;
        for (step, expected) in ranges.steps(100).iter().zip([0.03, power(1.0 / 1024.0), power(0.5 / 3.0)]) {
            assert!((step / expected - 1.0).abs() < 1e-6, "{step}, expected {expected}");
        }
        assert_eq!(ranges.means(), [2.0, 0.0, 0.25]);
        assert_eq!(ranges.shares_above_zero(), [1.0, 0.0, 0.75]);
        let unseen = Ranges::new(2).steps(1);
        assert!(unseen.iter().all(|step| step.is_finite() && *step > 0.0), "{unseen:?}");
    }
}
