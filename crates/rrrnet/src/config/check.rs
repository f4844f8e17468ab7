//! What the values of a complete configuration must be, one by one and together.

use super::{ConfigError, Settings, TrainConfig};
use crate::compute::Precision;
use crate::model::MAX_BRANCHES;
use std::fmt::{Debug, Display};
use std::path::Path;

/// Most of anything that is counted. Products of two counts then fit 64 bits, and every count fits TOML.
const MOST: usize = 1_000_000_000;

type Checked = Result<(), ConfigError>;

impl TrainConfig {
    /// Checks every value, and that nothing is missing that the method needs.
    pub(crate) fn check(&self) -> Checked {
        self.check_presence()?;
        self.check_counts()?;
        self.check_numbers()?;
        self.check_data()?;
        self.check_together()
    }

    /// As [`check`](Self::check), for a file whose settings, as they stand there, are `settings`.
    pub(super) fn check_file(&self, settings: &Settings, path: &Path) -> Checked {
        let checked = settings.reject_meaningless(self.method).and_then(|()| self.check());
        checked.map_err(|e| ConfigError::Within { path: path.to_path_buf(), source: Box::new(e) })
    }

    fn check_presence(&self) -> Checked {
        let (method, taught) = (self.method, self.teacher.is_some());
        let needed = [
            ("blocks", self.blocks.is_some(), method.is_reduced()),
            ("split", self.split.is_some(), method.is_reduced()),
            ("recycle", self.recycle.is_some(), method.is_reduced()),
            ("branches", self.branches.is_some(), method.has_branches()),
            ("teacher_share", self.teacher_share.is_some(), taught),
            ("teacher_temperature", self.teacher_temperature.is_some(), taught),
        ];
        match needed.into_iter().find(|(_, given, needed)| *needed && !given) {
            Some((key, ..)) => {
                Err(ConfigError::Missing { key, hint: "the configuration of a run has no gaps: add the key" })
            }
            None => Ok(()),
        }
    }

    fn check_counts(&self) -> Checked {
        let counts = [
            ("epochs", Some(self.epochs), 1),
            ("batch_size", Some(self.batch_size), 1),
            ("warm_passes", Some(self.warm_passes), 0),
            ("checkpoint_every", Some(self.checkpoint_every), 0),
            ("memory_budget_mib", Some(usize::try_from(self.memory_budget_mib).unwrap_or(usize::MAX)), 0),
            ("threads", self.threads, 1),
            ("round_to", self.round_to, 1),
            ("train_per_class", self.train_per_class, 1),
            ("val_per_class", self.val_per_class, 0),
            ("test_per_class", self.test_per_class, 0),
        ];
        let stages = [("blocks", self.blocks), ("budget", self.budget)];
        let of_stages = stages.iter().flat_map(|(key, n)| n.iter().flatten().map(|n| (*key, Some(*n), 0)));
        for (key, count, least) in counts.into_iter().chain(of_stages) {
            let Some(count) = count else { continue };
            rule(key, count, count >= least, &format!("it must be at least {least}"))?;
            rule(key, count, count <= MOST, &format!("it must be at most {MOST}"))?;
        }
        let (size, branches) = (self.image_size, self.branch_count());
        rule("image_size", size, (8..=4096).contains(&size), "it must lie in 8..4096")?;
        rule("branches", branches, (1..=MAX_BRANCHES).contains(&branches), "it must lie in 1..1024")?;
        rule("seed", self.seed, i64::try_from(self.seed).is_ok(), "it must be below 2^63")
    }

    fn check_numbers(&self) -> Checked {
        let share = "it must be at least 0 and below 1";
        let positive = |x: f64| (x as f32).is_finite() && x as f32 > 0.0;
        let (lr, stem_lr, decay) = (self.lr, self.stem_lr, self.weight_decay);
        rule("lr", lr, lr.is_finite() && lr > 0.0, "it must be a number above 0")?;
        rule("stem_lr", stem_lr, (0.0..=1.0).contains(&stem_lr), "it is a share of lr, in 0..1")?;
        rule("weight_decay", decay, decay.is_finite() && decay >= 0.0, "it must be a number, not negative")?;
        rule("label_smoothing", self.label_smoothing, in_share(self.label_smoothing), share)?;
        rule("ema_decay", self.ema_decay, in_share(self.ema_decay), share)?;
        for (key, part) in [("val_fraction", self.val_fraction), ("test_fraction", self.test_fraction)] {
            rule(key, shown(part.as_ref()), part.is_none_or(in_share), share)?;
        }
        let (of_teacher, temperature) = (self.teacher_share, self.teacher_temperature);
        let within = of_teacher.is_none_or(|share| positive(share) && share <= 1.0);
        let reason = "it must be above 0 and at most 1; without a say for the teacher, leave it out";
        rule("teacher_share", shown(of_teacher.as_ref()), within, reason)?;
        let above = temperature.is_none_or(positive);
        rule("teacher_temperature", shown(temperature.as_ref()), above, "it must be a number above 0")
    }

    fn check_data(&self) -> Checked {
        let paths =
            [("data", Some(&self.data)), ("init", self.init.as_ref()), ("teacher", self.teacher.as_ref())];
        for (key, path) in paths.into_iter().filter_map(|(key, path)| path.map(|path| (key, path))) {
            let reason = "a configuration file holds UTF-8 only: rename the file or its folders";
            rule(key, path.display(), path.to_str().is_some(), reason)?;
        }
        let (mean, std) = (self.mean, self.std);
        rule("mean", shown(mean.as_ref()), mean.is_some() == std.is_some(), "give mean and std together")?;
        let finite = |x: &f64| (*x as f32).is_finite();
        let all = mean.is_none_or(|m| m.iter().all(finite));
        rule("mean", shown(mean.as_ref()), all, "it must be three numbers")?;
        let all = std.is_none_or(|s| s.iter().all(|x| finite(x) && *x as f32 > 0.0));
        rule("std", shown(std.as_ref()), all, "it must be three numbers above 0")
    }

    fn check_together(&self) -> Checked {
        let (coarse, size) = (self.coarse_branches, self.image_size);
        let (frozen, shared) = (self.stem_lr == 0.0, !self.independent_batches);
        rule(
            "ema_epochs",
            self.ema_epochs,
            self.ema_epochs <= self.epochs,
            "it must not be above the number of epochs",
        )?;
        rule("coarse_branches", coarse, coarse <= self.branch_count(), "there are not as many branches")?;
        rule(
            "stem_lr",
            self.stem_lr,
            frozen || shared,
            "a stem that trains needs batches that the branches share: leave independent_batches out",
        )?;
        rule(
            "stem_lr",
            self.stem_lr,
            frozen || coarse == 0,
            "a stem that trains needs images of one size: leave coarse_branches out",
        )?;
        rule(
            "image_size",
            size,
            coarse == 0 || (size >= 16 && size.is_multiple_of(2)),
            "coarse branches see half of it: give an even number from 16 on",
        )?;
        rule(
            "teacher",
            shown(self.teacher.as_ref()),
            self.teacher.is_none() || shared,
            "a teacher looks at the batches that the branches share: leave independent_batches out",
        )?;
        rule(
            "precision",
            self.precision,
            self.precision != Precision::Auto,
            "a run is continued as it was begun: say f32 or bf16",
        )
    }
}

fn rule(key: &'static str, value: impl Display, holds: bool, reason: &str) -> Checked {
    if holds {
        return Ok(());
    }
    Err(ConfigError::Invalid { key, value: value.to_string(), reason: reason.into() })
}

/// A value in an error about it.
fn shown(value: Option<&impl Debug>) -> String {
    value.map_or_else(|| "nothing".into(), |value| format!("{value:?}"))
}

fn in_share(x: f64) -> bool {
    (0.0..1.0).contains(&x)
}
