//! Layers of settings become one complete configuration.

use super::{
    Augmentation, ConfigError, Method, Recipe, ResizeFilter, ScheduleKind, Select, Settings, TrainConfig,
};
use crate::compute::Precision;
use crate::recycle::Recycle;

const DEFAULT_RECIPE: &str = "fast";
/// Block at which branches begin where nobody says: the third stage, as published ("divergence index" 15).
pub const DEFAULT_SPLIT: &str = "layer3.0";
const DEFAULT_BACKBONE: &str = "resnet152";
const DEFAULT_TEACHER_SHARE: f64 = 0.9;
const DEFAULT_TEMPERATURE: f64 = 2.0;

impl Settings {
    /// These settings where given, else those of `base`.
    pub fn over(self, base: Settings) -> Settings {
        macro_rules! layered {
            ($($field:ident)*) => { Settings { $($field: self.$field.or(base.$field)),* } };
        }
        layered!(
            data image_column label_column method recipe backbone mean std init teacher teacher_share
            teacher_temperature blocks split branches coarse_branches round_to budget recycle train_per_class val_per_class
            test_per_class val_fraction test_fraction epochs batch_size lr stem_lr weight_decay label_smoothing schedule
            ema_epochs ema_decay warm_passes augmentation image_size resize independent_batches seed threads
            precision checkpoint_every select skip_bad memory_budget_mib
        )
    }

    /// Blocks kept of each stage, and the blocks that give the budget of stem and branches, if any: the recipe's unless
    /// blocks or a split are given.
    ///
    /// # Errors
    /// [`ConfigError`]: there is no such recipe, or not one number per stage.
    pub fn layout(&self) -> Result<([usize; 4], Option<[usize; 4]>), ConfigError> {
        let base = self.recipe()?;
        // A recipe's blocks, split and budget belong together.
        let (blocks, budget) = if self.blocks.is_some() || self.split.is_some() {
            (self.blocks.as_ref(), self.budget.as_ref())
        } else {
            (base.blocks.as_ref(), self.budget.as_ref().or(base.budget.as_ref()))
        };
        let blocks = blocks.map_or(Ok([1; 4]), |b| four_stages("blocks", b))?;
        Ok((blocks, budget.map(|b| four_stages("budget", b)).transpose()?))
    }

    /// What the recipe says for the method.
    fn recipe(&self) -> Result<Settings, ConfigError> {
        let name = self.recipe.as_deref().unwrap_or(DEFAULT_RECIPE);
        Ok(Recipe::named(name)?.for_method(self.method.unwrap_or(Method::Rrr)))
    }

    /// Fills the gaps from the recipe and the defaults, and checks the result.
    ///
    /// # Errors
    /// [`ConfigError`] names the key that is missing, out of range or without meaning for the method.
    pub fn resolve(self) -> Result<TrainConfig, ConfigError> {
        let method = self.method.unwrap_or(Method::Rrr);
        self.reject_meaningless(method)?;
        let recipe = self.recipe.clone().unwrap_or_else(|| DEFAULT_RECIPE.into());
        let (asked_ema, asked_stem, asked_teacher) = (self.ema_epochs, self.stem_lr, self.teacher.clone());
        let asked_lesson =
            [("teacher_share", self.teacher_share), ("teacher_temperature", self.teacher_temperature)];
        let (blocks, budget) = self.layout()?;
        let mut base = self.recipe()?;
        // A recipe's coarse branches are a share of its branches, and leave no stem to train.
        if let (Some(asked), Some(of), Some(coarse)) = (self.branches, base.branches, base.coarse_branches) {
            base.coarse_branches = Some(asked.saturating_mul(coarse) / of.max(1));
        }
        if self.stem_lr.is_some_and(|rate| rate > 0.0) {
            base.coarse_branches = None;
        }
        let (base_epochs, base_ema) = (base.epochs, base.ema_epochs);
        let s = self.over(base);
        let epochs = s.epochs.unwrap_or(30);
        // A recipe's average keeps its share of the epochs when somebody asks for another number of them.
        let ema_epochs = asked_ema.unwrap_or_else(|| match (base_ema, base_epochs) {
            (Some(ema), Some(of)) => epochs.saturating_mul(ema).div_ceil(of.max(1)),
            _ => epochs.div_ceil(5),
        });
        let reduced = method.is_reduced();
        let independent_batches = s.independent_batches.unwrap_or(false);
        // Branches with batches of their own leave no batch to train the stem on or to show to a teacher, whatever a
        // recipe says.
        let (stem_lr, teacher) =
            if independent_batches { (asked_stem, asked_teacher) } else { (s.stem_lr, s.teacher) };
        if teacher.is_none()
            && let Some((key, Some(value))) = asked_lesson.into_iter().find(|(_, value)| value.is_some())
        {
            let reason = "there is no teacher: name a model as `teacher`".into();
            return Err(ConfigError::Invalid { key, value: value.to_string(), reason });
        }
        let config = TrainConfig {
            data: s.data.ok_or(ConfigError::Missing {
                key: "data",
                hint: "name the folder of images, or set `data` in the configuration file",
            })?,
            image_column: s.image_column,
            label_column: s.label_column,
            method,
            recipe,
            backbone: s.backbone.unwrap_or_else(|| DEFAULT_BACKBONE.into()),
            mean: s.mean,
            std: s.std,
            init: s.init,
            teacher_share: teacher.is_some().then(|| s.teacher_share.unwrap_or(DEFAULT_TEACHER_SHARE)),
            teacher_temperature: teacher
                .is_some()
                .then(|| s.teacher_temperature.unwrap_or(DEFAULT_TEMPERATURE)),
            teacher,
            blocks: reduced.then_some(blocks),
            split: reduced.then(|| s.split.unwrap_or_else(|| DEFAULT_SPLIT.into())),
            branches: method.has_branches().then(|| s.branches.unwrap_or(8)),
            coarse_branches: s.coarse_branches.filter(|_| method == Method::Rrr).unwrap_or(0),
            round_to: s.round_to.filter(|_| method.has_branches()),
            budget: budget.filter(|_| method.has_branches()),
            recycle: reduced.then(|| s.recycle.unwrap_or(Recycle::Coherent)),
            train_per_class: s.train_per_class,
            val_per_class: s.val_per_class,
            test_per_class: s.test_per_class,
            val_fraction: s.val_fraction,
            test_fraction: s.test_fraction,
            epochs,
            batch_size: s.batch_size.unwrap_or(32),
            lr: s.lr.unwrap_or(1e-3),
            stem_lr: stem_lr.filter(|_| method.trains_stem()).unwrap_or(0.0),
            weight_decay: s.weight_decay.unwrap_or(0.01),
            label_smoothing: s.label_smoothing.unwrap_or(0.0),
            schedule: match method {
                Method::Fge => ScheduleKind::Constant,
                _ => s.schedule.unwrap_or(ScheduleKind::Constant),
            },
            // The copies of `fge` are snapshots of the moving weights; averaging them first would undo the cycles.
            ema_epochs: if method == Method::Fge { 0 } else { ema_epochs },
            ema_decay: s.ema_decay.unwrap_or(59.0 / 60.0),
            warm_passes: if reduced { s.warm_passes.unwrap_or(10) } else { 0 },
            augmentation: s.augmentation.unwrap_or(Augmentation::Paper),
            image_size: s.image_size.unwrap_or(128),
            resize: s.resize.unwrap_or(ResizeFilter::Antialias),
            independent_batches,
            seed: s.seed.unwrap_or(0),
            threads: s.threads.filter(|n| *n > 0),
            precision: s.precision.unwrap_or(Precision::Auto).resolve(),
            checkpoint_every: s.checkpoint_every.unwrap_or(5),
            select: s.select.filter(|_| method != Method::Fge).unwrap_or(Select::Last),
            skip_bad: s.skip_bad.unwrap_or(false),
            memory_budget_mib: s.memory_budget_mib.unwrap_or(2048),
        };
        config.check()?;
        Ok(config)
    }

    /// These settings without those that have no meaning for `method`: what is said for several methods at once holds
    /// for those it can hold for.
    pub fn meaningful_for(mut self, method: Method) -> Self {
        if !method.is_reduced() {
            (self.blocks, self.split, self.recycle, self.warm_passes) = (None, None, None, None);
        }
        if !method.has_branches() {
            (self.branches, self.round_to, self.budget) = (None, None, None);
        }
        if !method.trains_stem() {
            self.stem_lr = None;
        }
        if method != Method::Rrr {
            (self.coarse_branches, self.independent_batches) = (None, None);
        }
        if method == Method::Fge {
            (self.ema_epochs, self.schedule, self.select) = (None, None, None);
        }
        self
    }

    /// What somebody set on purpose must have an effect. (A recipe may set more than a method uses.)
    pub(super) fn reject_meaningless(&self, method: Method) -> Result<(), ConfigError> {
        let given = [
            ("blocks", self.blocks.is_some(), method.is_reduced()),
            ("split", self.split.is_some(), method.is_reduced()),
            ("budget", self.budget.is_some(), method.has_branches()),
            ("recycle", self.recycle.is_some(), method.is_reduced()),
            ("warm_passes", self.warm_passes.is_some_and(|n| n > 0), method.is_reduced()),
            ("stem_lr", self.stem_lr.is_some_and(|r| r > 0.0), method.trains_stem()),
            ("branches", self.branches.is_some_and(|n| n != 1), method.has_branches()),
            ("coarse_branches", self.coarse_branches.is_some_and(|n| n > 0), method == Method::Rrr),
            ("round_to", self.round_to.is_some(), method.has_branches()),
            ("independent_batches", self.independent_batches == Some(true), method == Method::Rrr),
            ("ema_epochs", self.ema_epochs.is_some_and(|n| n > 0), method != Method::Fge),
            ("schedule", self.schedule.is_some_and(|s| s != ScheduleKind::Constant), method != Method::Fge),
            ("select", self.select.is_some_and(|s| s != Select::Last), method != Method::Fge),
        ];
        for (key, set, meaningful) in given {
            if set && !meaningful {
                let reason = match key {
                    "blocks" | "split" | "recycle" | "warm_passes" => "it uses the whole backbone",
                    "coarse_branches" if method == Method::Fge => "its copies come from one branch",
                    "stem_lr" if method == Method::Fge => "its copies share one stem",
                    "stem_lr" => "it has no stem",
                    "ema_epochs" => "its copies are snapshots of the moving weights",
                    "schedule" => "it cycles its learning rate by itself",
                    "select" => "its copies are complete only when training ends",
                    _ => "it trains a single branch",
                };
                return Err(ConfigError::NotForMethod { key, method, reason });
            }
        }
        Ok(())
    }
}

fn four_stages(key: &'static str, blocks: &[usize]) -> Result<[usize; 4], ConfigError> {
    <[usize; 4]>::try_from(blocks).map_err(|_| ConfigError::Invalid {
        key,
        value: format!("{blocks:?}"),
        reason: "give one number for each of the four stages, such as 1,1,1,1".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TEACHER_AUTO;

    fn photos() -> Settings {
        Settings { data: Some("photos".into()), ..Settings::default() }
    }

    #[test]
    fn flags_win_over_file_over_recipe_over_default() {
        let file = Settings { epochs: Some(7), batch_size: Some(16), ..photos() };
        let flags = Settings { epochs: Some(3), recipe: Some("paper".into()), ..Settings::default() };
        let c = flags.over(file).resolve().unwrap();
        assert_eq!((c.epochs, c.batch_size, c.image_size), (3, 16, 128));
        assert_eq!(c.ema_epochs, 1);
        assert_eq!((c.schedule, c.warm_passes, c.seed), (ScheduleKind::Constant, 10, 0));
    }

    #[test]
    fn the_paper_recipe_is_as_published() {
        let c = Settings { recipe: Some("paper".into()), ..photos() }.resolve().unwrap();
        assert_eq!((c.epochs, c.ema_epochs, c.batch_size, c.warm_passes), (300, 60, 32, 10));
        assert_eq!((c.lr, c.weight_decay, c.ema_decay), (1e-3, 0.01, 59.0 / 60.0));
        assert_eq!((c.blocks, c.branches, c.recycle), (Some([1; 4]), Some(8), Some(Recycle::Paper)));
    }

    #[test]
    fn blocks_split_and_budget_of_a_recipe_belong_together() {
        let fast = photos().resolve().unwrap();
        assert_eq!((fast.blocks, fast.budget), (Some([3, 8, 1, 1]), Some([1; 4])));
        let asked = Settings { blocks: Some(vec![2; 4]), ..photos() };
        assert_eq!(asked.clone().resolve().unwrap().budget, None);
        let both = Settings { budget: Some(vec![3; 4]), ..asked };
        assert_eq!(both.resolve().unwrap().budget, Some([3; 4]));
        let split = Settings { split: Some("layer4.0".into()), ..photos() }.resolve().unwrap();
        assert_eq!((split.blocks, split.budget), (Some([1; 4]), None));
    }

    #[test]
    fn a_resolved_configuration_resolves_to_itself() {
        for method in [Method::Rrr, Method::Reduced, Method::Finetune, Method::Probe, Method::Fge] {
            let c = Settings { method: Some(method), ..photos() }.resolve().unwrap();
            let again: Settings = toml::from_str(&c.to_toml()).unwrap();
            assert_eq!(again.resolve().unwrap(), c, "{method}");
        }
    }

    #[test]
    fn settings_without_effect_are_refused() {
        let s = Settings { method: Some(Method::Probe), branches: Some(4), ..photos() };
        let text = s.resolve().unwrap_err().to_string();
        assert_eq!(text, "branches has no meaning for method probe: it trains a single branch");
        let s = Settings { method: Some(Method::Fge), select: Some(Select::Best), ..photos() };
        let text = s.resolve().unwrap_err().to_string();
        assert_eq!(
            text,
            "select has no meaning for method fge: its copies are complete only when training ends"
        );
    }

    #[test]
    fn a_lesson_needs_a_teacher() {
        let alone = Settings { teacher_share: Some(0.5), ..photos() };
        let text = alone.clone().resolve().unwrap_err().to_string();
        assert!(text.contains("teacher_share = 0.5") && text.contains("no teacher"), "{text}");
        let taught = Settings { teacher: Some(TEACHER_AUTO.into()), ..alone };
        let c = taught.clone().resolve().unwrap();
        assert_eq!((c.teacher_share, c.teacher_temperature), (Some(0.5), Some(DEFAULT_TEMPERATURE)));
        let alone = Settings { independent_batches: Some(true), ..taught };
        let text = alone.resolve().unwrap_err().to_string();
        assert!(
            text.contains("teacher = \"auto\"") && text.contains("leave independent_batches out"),
            "{text}"
        );
    }

    #[test]
    fn a_stem_trains_only_on_batches_that_the_branches_share() {
        let s = Settings { independent_batches: Some(true), stem_lr: Some(0.1), ..photos() };
        let text = s.clone().resolve().unwrap_err().to_string();
        assert!(text.contains("leave independent_batches out"), "{text}");
        assert_eq!(Settings { stem_lr: None, ..s }.resolve().unwrap().stem_lr, 0.0);
        let fge = Settings { method: Some(Method::Fge), stem_lr: Some(0.1), ..photos() };
        assert!(fge.resolve().unwrap_err().to_string().contains("its copies share one stem"));
    }

    #[test]
    fn coarse_branches_keep_their_share_and_a_frozen_stem() {
        let best = || Settings { recipe: Some("best".into()), ..photos() };
        let c = best().resolve().unwrap();
        assert_eq!((c.branches, c.coarse_branches, c.image_size), (Some(8), 4, 128));
        let coarse = |s: Settings| s.resolve().unwrap().coarse_branches;
        assert_eq!(coarse(Settings { branches: Some(2), ..best() }), 1);
        assert_eq!(coarse(Settings { branches: Some(1), ..best() }), 0);
        assert_eq!(coarse(Settings { branches: Some(2), coarse_branches: Some(2), ..best() }), 2);
        assert_eq!(coarse(Settings { stem_lr: Some(0.1), ..best() }), 0);
        let refused = |s: Settings| s.resolve().unwrap_err().to_string();
        let text = refused(Settings { coarse_branches: Some(9), ..best() });
        assert!(text.starts_with("coarse_branches = 9"), "{text}");
        let text = refused(Settings { coarse_branches: Some(4), stem_lr: Some(0.1), ..best() });
        assert!(text.contains("leave coarse_branches out"), "{text}");
        let text = refused(Settings { image_size: Some(65), ..best() });
        assert!(text.contains("an even number"), "{text}");
        let text = refused(Settings { method: Some(Method::Fge), coarse_branches: Some(4), ..best() });
        assert!(text.contains("its copies come from one branch"), "{text}");
    }

    #[test]
    fn what_is_meaningful_for_a_method_resolves() {
        let s = Settings {
            branches: Some(4),
            warm_passes: Some(2),
            ema_epochs: Some(1),
            blocks: Some(vec![1, 1, 1, 1]),
            independent_batches: Some(true),
            schedule: Some(ScheduleKind::Cosine),
            select: Some(Select::Best),
            ..photos()
        };
        for method in [Method::Rrr, Method::Reduced, Method::Finetune, Method::Probe, Method::Fge] {
            let s = Settings { method: Some(method), ..s.clone().meaningful_for(method) };
            assert!(s.resolve().is_ok(), "{method}");
        }
    }

    #[test]
    fn values_out_of_range_name_their_key() {
        for (s, key) in [
            (Settings { epochs: Some(0), ..photos() }, "epochs"),
            (Settings { lr: Some(f64::NAN), ..photos() }, "lr"),
            (Settings { blocks: Some(vec![1, 1]), ..photos() }, "blocks"),
            (Settings { epochs: Some(2), ema_epochs: Some(3), ..photos() }, "ema_epochs"),
            (Settings { val_fraction: Some(1.0), ..photos() }, "val_fraction"),
            (Settings { seed: Some(u64::MAX), ..photos() }, "seed"),
        ] {
            let text = s.resolve().unwrap_err().to_string();
            assert!(text.starts_with(key), "{text}");
        }
    }
}
