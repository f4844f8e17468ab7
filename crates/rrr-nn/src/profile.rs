//! Times of the layers of a forward pass.

use std::time::{Duration, Instant};

/// What one layer of a forward pass cost, for all branches together.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerTime {
    /// `stem.layer1.0.conv2`, `branches.layer3.0.conv1`, ...
    pub name: String,
    /// Multiply-accumulates of all branches and images, without padding; 0 for what is no convolution.
    pub macs: u64,
    /// Wall-clock time, all threads at work.
    pub elapsed: Duration,
}

/// Collects [`LayerTime`]s in the order of the layers.
#[derive(Default)]
pub(crate) struct Profile {
    pub layers: Vec<LayerTime>,
}

impl Profile {
    pub fn time(&mut self, name: &str, macs: u64, run: impl FnOnce()) {
        let start = Instant::now();
        run();
        self.layers.push(LayerTime { name: name.to_owned(), macs, elapsed: start.elapsed() });
    }
}

/// Runs a layer, and notes its time if a profile is wanted.
pub(crate) fn timed(
    profile: &mut Option<Profile>,
    name: impl FnOnce() -> String,
    macs: u64,
    run: impl FnOnce(),
) {
    match profile {
        None => run(),
        Some(profile) => profile.time(&name(), macs, run),
    }
}
