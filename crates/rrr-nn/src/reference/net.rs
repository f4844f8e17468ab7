//! A whole network: inference and training steps.

use super::{Nchw, classifier, optim, pool, sequence};
use crate::{
    Images, Logits, NetSpec, NetState, Pixels, State, StateError, StepOutput, Tensor, Trainable,
    TrainerOptions, TrainerState,
};

/// Does what [`crate::Network`] and [`crate::Trainer`] with a frozen stem do, in the plainest way.
#[derive(Clone, Debug)]
pub struct Net {
    spec: NetSpec,
    options: TrainerOptions,
    /// Weights, statistics, moments and averages, in the form that [`crate::Trainer::save`] gives.
    pub state: TrainerState,
}

impl Net {
    /// A network with moments at zero.
    ///
    /// # Errors
    /// [`StateError`] names every tensor that is missing, extra or misshapen.
    ///
    /// # Panics
    /// If the stem is to be trained.
    pub fn new(spec: &NetSpec, state: &NetState, options: &TrainerOptions) -> Result<Self, StateError> {
        state.check(spec)?;
        assert!(options.stem_rate == 0.0, "the reference keeps the stem frozen");
        let trained = |name: &str| options.trainable == Trainable::All || name.starts_with("fc.");
        let zeros: State = (spec.branch.params().into_iter())
            .filter(|p| p.trainable && trained(&p.name))
            .map(|p| (p.name, Tensor::zeros(&p.shape)))
            .collect();
        let state = TrainerState {
            net: state.clone(),
            m: vec![zeros.clone(); spec.branches],
            v: vec![zeros; spec.branches],
            ema: None,
            steps: vec![0; spec.branches],
            ema_updates: vec![0; spec.branches],
            ema_decay: None,
            stem: None,
        };
        Ok(Self { spec: spec.clone(), options: options.clone(), state })
    }

    /// Logits in eval mode, as [`crate::Network::forward`].
    pub fn forward(&self, images: &Images<'_>) -> Logits {
        self.per_branch(images, |state, x| sequence::eval(&self.spec.branch, state, x))
    }

    /// Pooled features before the classifier, as [`crate::Network::features`].
    pub fn features(&self, images: &Images<'_>) -> Logits {
        self.per_branch(images, |state, x| {
            pool::average_forward(&sequence::eval_features(&self.spec.branch, state, x))
        })
    }

    fn per_branch(&self, images: &Images<'_>, run: impl Fn(&State, &Nchw) -> Nchw) -> Logits {
        let branches = self.state.net.branches.iter().enumerate();
        let outputs: Vec<Nchw> = branches.map(|(i, state)| run(state, &self.stem(i, images))).collect();
        Logits {
            branches: self.spec.branches,
            n: images.n,
            classes: outputs[0].c,
            data: outputs.into_iter().flat_map(|y| y.data).collect(),
        }
    }

    /// The stem's output in eval mode, as a branch sees it.
    fn stem(&self, branch: usize, images: &Images<'_>) -> Nchw {
        let x = if branch < self.spec.coarse { halved(images) } else { Nchw::from_images(images) };
        sequence::eval(&self.spec.stem, &self.state.net.stem, &x)
    }

    /// One pass through the stem in train mode, which updates its running statistics.
    pub fn warm_stem(&mut self, images: &Images<'_>) {
        let x = Nchw::from_images(images);
        sequence::train(&self.spec.stem, &mut self.state.net.stem, &x, self.options.bn_momentum);
    }

    /// One optimiser step of all branches on one batch; returns also the gradient of every trainable tensor,
    /// one state per branch, whether or not the options have it trained.
    pub fn step(&mut self, images: &Images<'_>, labels: &[u32], lr: f64) -> (StepOutput, Vec<State>) {
        let mut out = StepOutput { loss: Vec::new(), correct: Vec::new() };
        let mut gradients = Vec::new();
        for branch in 0..self.spec.branches {
            let (loss, grads) = self.step_branch(branch, images, labels, lr);
            out.loss.push(loss.loss);
            out.correct.push(loss.correct);
            gradients.push(grads);
        }
        (out, gradients)
    }

    /// One optimiser step of one branch: its loss and gradients.
    pub fn step_branch(
        &mut self,
        branch: usize,
        images: &Images<'_>,
        labels: &[u32],
        lr: f64,
    ) -> (classifier::Loss, State) {
        let x = self.stem(branch, images);
        let spec = &self.spec.branch;
        let state = &mut self.state.net.branches[branch];
        let (logits, tape) = sequence::train(spec, state, &x, self.options.bn_momentum);
        let loss = classifier::cross_entropy(&logits.data, labels, self.options.label_smoothing);
        let dlogits = Nchw::new(logits.shape(), loss.dlogits.clone());
        let (_, gradients) = sequence::backward(spec, state, &tape, &dlogits);
        self.update(branch, &gradients, lr);
        (loss, gradients)
    }

    fn update(&mut self, branch: usize, gradients: &State, lr: f64) {
        let TrainerState { net, m, v, ema, steps, ema_updates, ema_decay, stem: _ } = &mut self.state;
        let state = &mut net.branches[branch];
        steps[branch] += 1;
        for (name, m) in &mut m[branch] {
            let param = &mut state.get_mut(name).expect("checked in new").data;
            let v = &mut v[branch].get_mut(name).expect("has the names of m").data;
            let grad = &gradients[name].data;
            optim::adamw(&self.options.adamw, lr, steps[branch], param, grad, &mut m.data, v);
        }
        if let (Some(averages), Some(target)) = (ema, *ema_decay) {
            ema_updates[branch] += 1;
            let decay = optim::ema_decay(target, ema_updates[branch]);
            for (name, average) in &mut averages[branch] {
                optim::ema(&mut average.data, &state[name].data, decay);
            }
        }
    }

    /// Starts the moving average of the trained tensors at their present values.
    pub fn start_ema(&mut self, decay: f32) {
        let TrainerState { net, m, .. } = &self.state;
        let trained = |(state, m): (&State, &State)| -> State {
            m.keys().map(|name| (name.clone(), state[name].clone())).collect()
        };
        self.state.ema = Some(net.branches.iter().zip(m).map(trained).collect());
        self.state.ema_updates = vec![0; self.spec.branches];
        self.state.ema_decay = Some(decay);
    }

    /// Weights for evaluation: the moving average where it has started, with the current running statistics.
    pub fn eval_state(&self) -> NetState {
        let mut state = self.state.net.clone();
        for (branch, averages) in state.branches.iter_mut().zip(self.state.ema.iter().flatten()) {
            branch.extend(averages.clone());
        }
        state
    }
}

/// Means of 2 x 2 pixels, those of bytes rounded half up.
fn halved(images: &Images<'_>) -> Nchw {
    let (n, height, width) = (images.n, images.height / 2, images.width / 2);
    let corners = |i: usize| {
        let (x, y, image) = (i / 3 % width, i / 3 / width % height, i / 3 / width / height);
        let at = ((image * images.height + 2 * y) * images.width + 2 * x) * 3 + i % 3;
        [at, at + 3, at + images.width * 3, at + images.width * 3 + 3]
    };
    let all = 0..n * height * width * 3;
    match images.pixels {
        Pixels::U8 { data, normalize } => {
            let mean = |i| (corners(i).iter().map(|at| u32::from(data[*at])).sum::<u32>() + 2) / 4;
            let data: Vec<u8> = all.map(|i| mean(i) as u8).collect();
            let pixels = Pixels::U8 { data: &data, normalize };
            Nchw::from_images(&Images { pixels, n, height, width })
        }
        Pixels::F32(data) => {
            let data: Vec<f32> =
                all.map(|i| corners(i).iter().map(|at| data[*at]).sum::<f32>() / 4.0).collect();
            Nchw::from_images(&Images { pixels: Pixels::F32(&data), n, height, width })
        }
    }
}
