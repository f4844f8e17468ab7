//! Convolution plans and activation memory, made once and reused.

use rrr_kernels::{Activation, Compute, Conv, ConvPlan};
use std::collections::HashMap;
use std::sync::Arc;

/// Plans by convolution, input size and batch size.
pub(crate) struct Plans {
    compute: Compute,
    gradients: bool,
    plans: HashMap<(Conv, (usize, usize), usize), Arc<ConvPlan>>,
}

impl Plans {
    pub fn new(compute: Compute, gradients: bool) -> Self {
        Self { compute, gradients, plans: HashMap::new() }
    }

    pub fn compute(&self) -> &Compute {
        &self.compute
    }

    pub fn get(&mut self, conv: Conv, size: (usize, usize), n: usize) -> Arc<ConvPlan> {
        let plan = self
            .plans
            .entry((conv, size, n))
            .or_insert_with(|| Arc::new(ConvPlan::new(conv, size, n, self.gradients, &self.compute)));
        Arc::clone(plan)
    }
}

/// Activations that are not in use, to be taken again instead of allocated (touching new memory is slow).
#[derive(Default)]
pub(crate) struct Workspace {
    free: Vec<Activation>,
}

impl Workspace {
    /// An activation with unspecified values (zero rows aside).
    pub fn take(&mut self, channels: usize, (height, width): (usize, usize), n: usize) -> Activation {
        let fits = |a: &Activation| (a.channels(), a.height(), a.width()) == (channels, height, width);
        match self.free.iter().rposition(fits) {
            Some(i) => {
                let mut a = self.free.swap_remove(i);
                a.set_batch(n);
                a
            }
            None => Activation::zeros(channels, height, width, n),
        }
    }

    pub fn take_many(
        &mut self,
        count: usize,
        channels: usize,
        size: (usize, usize),
        n: usize,
    ) -> Vec<Activation> {
        (0..count).map(|_| self.take(channels, size, n)).collect()
    }

    pub fn give(&mut self, activations: impl IntoIterator<Item = Activation>) {
        self.free.extend(activations);
    }
}
