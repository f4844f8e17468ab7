//! Whether a run that cannot go on is begun anew.

use rrr_checkpoint::Error as FileError;
use rrrnet::backbone::BackboneError;
use rrrnet::model::ModelError;
use rrrnet::run::RunError;
use rrrnet::train::TrainError;
use std::io::ErrorKind;

/// Whether the same training from the beginning may end otherwise than the resumed one, which ended in `e`, after it had
/// begun to train or before.
///
/// Before, what was left of the run is damaged, incomplete or names files that have moved since. Once training goes on,
/// images and backbone are what they should be, and it can only be that the best model so far is not. Neither helps
/// where the disk is full or does not let itself be read or written, or another process has the run.
pub(crate) fn helps(e: &TrainError, training: bool) -> bool {
    let withheld = match e {
        TrainError::Checkpoint(e)
        | TrainError::Backbone(BackboneError::Checkpoint(e))
        | TrainError::Model(ModelError::File(e))
        | TrainError::Run(RunError::Write(e)) => is_disk(e),
        TrainError::Run(RunError::File { action, .. }) => *action != "read",
        TrainError::Run(e) => matches!(e, RunError::NotWritable { .. } | RunError::Taken(_)),
        _ => false,
    };
    !withheld && (!training || matches!(e, TrainError::Model(_)))
}

fn is_disk(e: &FileError) -> bool {
    match e {
        FileError::DiskFull { .. } => true,
        FileError::Io { source, .. } => source.kind() != ErrorKind::NotFound,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rrr_data::DataError;

    #[test]
    fn a_fresh_start_is_for_what_it_can_cure() {
        let path = || "somewhere".into();
        let io = |kind: ErrorKind| FileError::Io { action: "read", path: path(), source: kind.into() };
        let full = || FileError::DiskFull { path: path() };
        let damaged = || FileError::Damaged { path: path(), what: String::new() };
        let run = |action| RunError::File { action, path: path(), reason: String::new() };
        let moved = || DataError::PathNotFound { path: path() };
        let diverged = || TrainError::Diverged { epoch: 1, step: 1, loss: f32::NAN, lr: 1.0 };
        for (e, training, cured) in [
            (moved().into(), false, true),
            (moved().into(), true, false),
            (TrainError::DataChanged { data: path() }, false, true),
            (TrainError::ContentsChanged { data: path() }, false, true),
            (TrainError::TeacherChanged { path: path() }, false, true),
            (damaged().into(), false, true),
            (io(ErrorKind::NotFound).into(), false, true),
            (io(ErrorKind::PermissionDenied).into(), false, false),
            (full().into(), false, false),
            (RunError::Damaged { path: path(), reason: String::new() }.into(), false, true),
            (run("read").into(), false, true),
            (run("write").into(), false, false),
            (RunError::Write(full()).into(), false, false),
            (RunError::NotWritable { path: path(), reason: String::new() }.into(), false, false),
            (RunError::Taken(path()).into(), false, false),
            (BackboneError::Checkpoint(damaged()).into(), false, true),
            (ModelError::NotFound(path()).into(), false, true),
            (ModelError::File(damaged()).into(), true, true),
            (ModelError::File(full()).into(), true, false),
            (diverged(), true, false),
        ] {
            assert_eq!(helps(&e, training), cured, "{e}, training: {training}");
        }
    }
}
