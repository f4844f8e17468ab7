//! When what happens: learning rates, the start of the moving average, the snapshots of FGE.

use crate::config::{Method, ScheduleKind, TrainConfig};
use std::f64::consts::PI;

/// Of a training of `fge`, this share of the steps comes before the cycles.
const FGE_BASE: f64 = 0.8;

/// The timetable of a training run; steps count from 0 over all epochs.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    kind: ScheduleKind,
    lr: f64,
    total: u64,
    ema_start: Option<u64>,
    cycles: Option<Cycles>,
}

/// The second phase of `fge`.
#[derive(Clone, Debug, PartialEq)]
struct Cycles {
    /// First step.
    start: u64,
    /// Steps per cycle; not whole in general.
    length: f64,
    copies: u64,
}

impl Schedule {
    /// The timetable of `config` with `steps` optimiser steps per epoch.
    pub fn new(config: &TrainConfig, steps: usize) -> Self {
        let epochs = config.epochs as u64;
        let steps = steps as u64;
        let total = epochs * steps;
        let ema_start = (config.ema_epochs > 0).then(|| (epochs - config.ema_epochs as u64) * steps);
        let cycles = (config.method == Method::Fge).then(|| {
            let start = (total as f64 * FGE_BASE).round() as u64;
            let copies = config.branch_count() as u64;
            // The last copy is taken at the middle of the last cycle, where training ends.
            let length = (total - start) as f64 / (copies as f64 - 0.5);
            Cycles { start, length, copies }
        });
        Self { kind: config.schedule, lr: config.lr, total, ema_start, cycles }
    }

    /// Optimiser steps in all.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Learning rate of step `step`.
    pub fn lr(&self, step: u64) -> f64 {
        match (&self.cycles, self.kind) {
            (Some(c), _) if step >= c.start => {
                let phase = ((step - c.start) as f64 / c.length).fract();
                let low = self.lr / 2.0;
                low + (self.lr - low) * (1.0 - 2.0 * phase).abs()
            }
            (_, ScheduleKind::Cosine) => {
                self.lr * 0.5 * (1.0 + (PI * step as f64 / self.total.max(1) as f64).cos())
            }
            (_, ScheduleKind::Constant) => self.lr,
        }
    }

    /// Whether the moving average starts just before step `step`.
    pub fn starts_ema(&self, step: u64) -> bool {
        self.ema_start == Some(step)
    }

    /// Whether a copy of the branch is kept once `done` steps are done.
    pub fn takes_copy(&self, done: u64) -> bool {
        self.cycles.as_ref().is_some_and(|c| (0..c.copies).any(|i| c.copy_at(i) == done))
    }

    /// How many copies are kept by the time that `done` steps are done.
    pub(super) fn copies_after(&self, done: u64) -> usize {
        self.cycles.as_ref().map_or(0, |c| (0..c.copies).filter(|i| c.copy_at(*i) <= done).count())
    }

    /// Whether every copy has a step of its own (always so without cycles).
    pub fn copies_are_distinct(&self) -> bool {
        self.cycles.as_ref().is_none_or(|c| {
            let first = c.copy_at(0) > c.start;
            first && (1..c.copies).all(|i| c.copy_at(i) > c.copy_at(i - 1))
        })
    }
}

impl Cycles {
    fn copy_at(&self, i: u64) -> u64 {
        self.start + ((i as f64 + 0.5) * self.length).round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn schedule(settings: Settings, steps: usize) -> Schedule {
        let settings = Settings { data: Some("x".into()), ..settings };
        Schedule::new(&settings.resolve().unwrap(), steps)
    }

    #[test]
    fn the_paper_averages_the_last_60_of_300_epochs_at_a_constant_rate() {
        let s = schedule(Settings { recipe: Some("paper".into()), ..Settings::default() }, 13);
        assert_eq!(s.total(), 3900);
        assert_eq!((s.lr(0), s.lr(3899)), (1e-3, 1e-3));
        assert_eq!((0..3900).filter(|i| s.starts_ema(*i)).collect::<Vec<_>>(), [240 * 13]);
    }

    #[test]
    fn a_cosine_falls_from_lr_towards_zero() {
        let s = schedule(Settings { epochs: Some(10), lr: Some(0.1), ..Settings::default() }, 5);
        let rates: Vec<f64> = (0..50).map(|i| s.lr(i)).collect();
        assert_eq!(rates[0], 0.1);
        assert!(rates.windows(2).all(|w| w[1] < w[0]));
        assert!((rates[25] - 0.05).abs() < 1e-12 && rates[49] < 2e-4);
    }

    #[test]
    fn fge_keeps_its_copies_at_the_low_points_and_ends_with_the_last() {
        let fge = Settings { method: Some(Method::Fge), epochs: Some(100), ..Settings::default() };
        let s = schedule(fge, 15);
        let copies: Vec<u64> = (0..=s.total()).filter(|i| s.takes_copy(*i)).collect();
        assert_eq!(copies.len(), 8);
        assert_eq!((copies[0], copies[7]), (1220, 1500));
        assert_eq!([1219, 1220, 1499, 1500].map(|done| s.copies_after(done)), [0, 1, 7, 8]);
        assert_eq!((s.lr(0), s.lr(1199), s.lr(1200)), (1e-3, 1e-3, 1e-3));
        assert!(copies.iter().take(7).all(|c| (s.lr(*c) - 5e-4).abs() < 1e-9));
        assert!((s.lr(1240) - 1e-3).abs() < 1e-9);
        assert!(s.copies_are_distinct());
    }

    #[test]
    fn too_few_steps_for_the_copies_are_noticed() {
        let fge = Settings { method: Some(Method::Fge), epochs: Some(2), ..Settings::default() };
        assert!(!schedule(fge, 3).copies_are_distinct());
    }
}
