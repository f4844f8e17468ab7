//! A step in f32.

use crate::Images;
use crate::backward;
use crate::folded::{Folded, Input, Source};
use crate::input::PaddedImages;
use crate::learner::{Learner, Net, Trained};
use crate::plans::{Plans, Workspace};
use crate::stem;
use crate::tape;
use rrr_kernels::Activation;

/// A step of everything that is trained, from the gradients of the logits, which `losses` makes of the branches' tapes.
/// `padded` is memory for images.
pub(super) fn step(
    images: &Images<'_>,
    net: Net<'_>,
    padded: &mut PaddedImages,
    frozen_stem: &mut Option<Folded>,
    losses: impl FnOnce(&[Learner], &mut Workspace) -> Vec<Activation>,
) {
    let Net { layout, stem_layout, branches: mut trained, stem, plans, workspace, momentum, .. } = net;
    let (has_stem, trains_stem) = (stem_layout.params > 0, net.stem_optimiser.is_some());
    if trains_stem || !has_stem {
        padded.load(images, plans.compute());
    }
    let frozen = (has_stem && !trains_stem).then(|| {
        let folded =
            frozen_stem.get_or_insert_with(|| Folded::new(stem_layout, &Source::Trained(&stem.member)));
        stem::run(folded, images, padded, plans, workspace)
    });
    let images_in = Input::Images(padded.all());
    if trains_stem {
        tape::forward(stem_layout, std::slice::from_mut(stem), images_in, momentum, plans);
    }
    let stem_output = match &frozen {
        Some(features) => Some(&features[0]),
        None if trains_stem => stem.member.tape.last(),
        None => None,
    };
    let input = stem_output.map_or(images_in, Input::Features);
    tape::forward(layout, trained.learners, input, momentum, plans);
    let dlogits = losses(trained.learners, workspace);
    if net.trains_all {
        let dx = backward::backward(layout, &mut trained, input, dlogits, trains_stem, plans, workspace);
        if let Some((dx, optimiser)) = dx.zip(net.stem_optimiser) {
            let dy = mean(dx, plans, workspace);
            let mut stem =
                Trained { learners: std::slice::from_mut(stem), optimisers: std::slice::from_mut(optimiser) };
            backward::stem(stem_layout, &mut stem, images_in, dy, plans, workspace);
            stem.update_vectors(stem_layout, plans.compute());
        }
    } else {
        let fc = layout.fc.as_ref().expect("training needs a classifier");
        backward::head(fc, trained.learners, dlogits, false, plans, workspace);
    }
    trained.update_vectors(layout, plans.compute());
    if let Some(features) = frozen {
        workspace.give(features);
    }
}

/// The mean over the branches, summed in their order.
fn mean(parts: Vec<Activation>, plans: &Plans, workspace: &mut Workspace) -> Vec<Activation> {
    let (first, share) = (&parts[0], 1.0 / parts.len() as f32);
    let len = first.plane_len();
    let mut mean = workspace.take_many(1, first.channels(), (first.height(), first.width()), first.n());
    plans.compute().pool().for_each(mean[0].planes_mut(), |i, mean| {
        mean.fill(0.0);
        for part in &parts {
            for (m, p) in mean.iter_mut().zip(&part.data()[i * len..(i + 1) * len]) {
                *m += p;
            }
        }
        mean.iter_mut().for_each(|m| *m *= share);
    });
    workspace.give(parts);
    mean
}
